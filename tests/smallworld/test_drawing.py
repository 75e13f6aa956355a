"""Pictures: same seed, same pixels; an edit changes what it names and nothing else."""

import random

import numpy as np
import pytest

from viper.smallworld import language
from viper.smallworld.drawing import CELL_PIXELS, DUSK, STUDIO, WORLD, Style, from_image, render, to_image
from viper.smallworld.scenes import ATTRIBUTES, COLORS, Background, Scene, Thing, scene_from_seed

WHITE = (1.0, 1.0, 1.0)
QUIET = Style(jitter=0, shade=0, noise=0.0, light=WHITE)


def empty(background: Background) -> Scene:
    return Scene(background, (None,) * 9)


@pytest.mark.parametrize("style", [WORLD, STUDIO])
def test_the_same_scene_and_seed_give_the_same_pixels(style: Style) -> None:
    first, second = (np.asarray(render(scene_from_seed(5), 7, style)) for _ in range(2))
    assert first.shape == (96, 96, 3)
    assert (first == second).all()
    assert (first != np.asarray(render(scene_from_seed(5), 8, style))).any()


def test_an_edit_changes_no_pixel_of_an_untouched_cell() -> None:
    rng = random.Random(3)
    for seed in range(50):
        scene = scene_from_seed(seed)
        operation = language.random_operation(rng, scene, "Changing Spatial Relationships")
        assert isinstance(operation, language.Move)
        after = language.apply(scene, operation)
        assert after is not None
        changed = (np.asarray(render(scene, seed)) != np.asarray(render(after, seed))).any(2)
        for cell in set(range(9)) - {operation.cell, operation.target}:
            y, x = cell // 3 * CELL_PIXELS, cell % 3 * CELL_PIXELS
            assert not changed[y : y + CELL_PIXELS, x : x + CELL_PIXELS].any()
        assert changed.any()


def test_every_combination_of_attributes_looks_different() -> None:
    background = Background("smooth", "gray")
    seen = {
        render(empty(background).with_thing(4, Thing(size, texture, color, shape)), 0, QUIET).tobytes()
        for size in ATTRIBUTES["size"]
        for texture in ATTRIBUTES["texture"]
        for color in ATTRIBUTES["color"]
        for shape in ATTRIBUTES["shape"]
    }
    assert len(seen) == 2 * 3 * 8 * 6


def test_a_thing_is_drawn_in_its_colour_in_its_cell() -> None:
    scene = empty(Background("smooth", "white")).with_thing(5, Thing("big", "plain", "purple", "square"))
    pixels = np.asarray(render(scene, 0, QUIET))
    assert tuple(pixels[48, 80]) == COLORS["purple"]
    assert tuple(pixels[48, 48]) == (245, 245, 245)


def test_things_stay_inside_the_picture_at_the_largest_jitter() -> None:
    corner = empty(Background("smooth", "white")).with_thing(8, Thing("big", "plain", "red", "square"))
    red = [
        int((np.asarray(render(corner, seed, Style(4, 0, 0.0, WHITE))) == COLORS["red"]).all(2).sum())
        for seed in range(60)
    ]
    assert set(red) == {23 * 23}


def test_the_light_of_the_world_can_be_undone() -> None:
    scene = scene_from_seed(3)
    lit, white = (render(scene, 0, Style(0, 0, 0.0, light)) for light in (DUSK, WHITE))
    assert np.asarray(lit, float).mean((0, 1)) / np.asarray(white, float).mean((0, 1)) == pytest.approx(DUSK, abs=0.01)
    assert np.abs(from_image(lit) - np.asarray(white, np.float32)).max() < 1
    assert (np.asarray(to_image(from_image(lit))) == np.asarray(lit)).all()
