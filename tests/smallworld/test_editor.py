"""Instruction-guided editing in the small world."""

import random

import numpy as np
import pytest
from PIL import Image
from skimage import data

from viper.engines.base import Editor
from viper.smallworld import language
from viper.smallworld.drawing import CELL_PIXELS, render
from viper.smallworld.editor import SmallWorldEditor
from viper.smallworld.scenes import Background, Scene, Thing, scene_from_seed
from viper.smallworld.sight import see

RING = Thing("small", "striped", "red", "ring")
CROSS = Thing("big", "plain", "blue", "cross")
SCENE = Scene(Background("smooth", "gray"), (RING, None, None, None, CROSS, None, None, None, None))
SURE = SmallWorldEditor(failure_rate=0.0)


def edited(instruction: str, scene: Scene = SCENE) -> Scene:
    """The scene after an edit that must succeed."""
    result = SURE.edit([render(scene, 11)], [instruction], [5])[0]
    assert result.note == ""
    sight = see(result.image)
    assert sight is not None
    return sight.scene


def test_it_is_an_editor() -> None:
    assert isinstance(SURE, Editor)


@pytest.mark.parametrize("category", language.CATEGORIES)
def test_operations_of_every_category_are_carried_out(category: language.Category) -> None:
    rng = random.Random(category)
    right = 0
    for seed in range(60):
        scene = scene_from_seed(20_000_000 + seed)
        operation = language.random_operation(rng, scene, category)
        result = SURE.edit([render(scene, seed)], [language.operation_sentence(operation)], [seed])[0]
        sight = see(result.image)
        right += sight is not None and sight.scene == language.apply(scene, operation)
    assert right >= 58


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Delete the little red donut in the upper left.", SCENE.with_thing(0, None)),
        ("Paint the ring at top left blue.", SCENE.with_thing(0, RING.changed("color", "blue"))),
        ("Make the cross small.", SCENE.with_thing(4, CROSS.changed("size", "small"))),
        ("Shift the cross from the center to the bottom right.", SCENE.with_thing(4, None).with_thing(8, CROSS)),
        ("Change the background to navy.", Scene(Background("smooth", "navy"), SCENE.things)),
        ("Turn the backdrop into checkered beige.", Scene(Background("checked", "beige"), SCENE.things)),
        ("Insert a big dotted pink square at left.", SCENE.with_thing(3, Thing("big", "dotted", "pink", "square"))),
    ],
)
def test_free_wording_is_carried_out(instruction: str, expected: Scene) -> None:
    assert edited(instruction, SCENE) == expected


@pytest.mark.parametrize(
    ("instruction", "note"),
    [
        ("It could be nicer.", "does not start with an operation"),
        ("Remove the small striped green ring at top left.", "color is red, not green"),
        ("Remove the small striped red ring at top.", "nothing at top"),
        ("Add a big plain blue ring at center.", "already taken"),
        ("Move the small striped red ring at top left to center.", "already taken"),
        ("Move the small striped red ring at top left to top left.", "already taken"),
        ("Change the color of the object at top left from red to red.", "like that already"),
        ("Change the color of the object at top left from green to blue.", "color is red, not green"),
        ("Change the background from smooth teal to checked teal.", "background is not teal but gray"),
        ("Change the background to smooth gray.", "like that already"),
        ("Remove the green thing.", "no object fits"),
        ("Remove the object.", "what to remove"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_note(instruction: str, note: str) -> None:
    image = render(SCENE, 11)
    result = SURE.edit([image], [instruction], [5])[0]
    assert note in result.note
    assert (np.asarray(result.image) == np.asarray(image)).all()


def test_an_ambiguous_description_is_refused() -> None:
    image = render(SCENE.with_thing(8, RING), 0)
    assert "more than one" in SURE.edit([image], ["Remove the red ring."], [0])[0].note


def test_only_the_named_cell_is_touched_and_the_noise_stays_alike() -> None:
    image = render(SCENE, 11)
    result = SURE.edit([image], ["Remove the small striped red ring at top left."], [5])[0]
    before, after = np.asarray(image, np.float32), np.asarray(result.image, np.float32)
    cell = slice(0, CELL_PIXELS)
    assert (before[CELL_PIXELS:] == after[CELL_PIXELS:]).all()
    assert (before[cell, CELL_PIXELS:] == after[cell, CELL_PIXELS:]).all()
    erased = after[4 : CELL_PIXELS - 2, 4 : CELL_PIXELS - 2]
    other = before[4 : CELL_PIXELS - 2, CELL_PIXELS + 4 : 2 * CELL_PIXELS - 2]
    assert erased.std() == pytest.approx(other.std(), rel=0.1)
    assert erased.mean() == pytest.approx(other.mean(), abs=2.0)


@pytest.mark.parametrize("image", [Image.fromarray(data.astronaut()), Image.new("RGB", (3, 500))])
def test_a_photograph_is_left_alone_with_a_note(image: Image.Image) -> None:
    result = SmallWorldEditor().edit([image], ["Remove the red ring at top left."], [0])[0]
    assert "not a drawing of the small world" in result.note
    assert result.image is image


def test_failures_come_at_the_set_rate_and_from_the_seed() -> None:
    editor = SmallWorldEditor(failure_rate=0.25)
    scenes = [scene_from_seed(30_000_000 + seed) for seed in range(200)]
    rng = random.Random(0)
    operations = [language.random_operation(rng, scene) for scene in scenes]
    images = [render(scene, seed) for seed, scene in enumerate(scenes)]
    texts = [language.operation_sentence(operation) for operation in operations]
    first = editor.edit(images, texts, range(200))
    again = editor.edit(images, texts, range(200))
    assert all((np.asarray(a.image) == np.asarray(b.image)).all() for a, b in zip(first, again, strict=True))
    right = sum(
        (sight := see(result.image)) is not None and sight.scene == language.apply(scene, operation)
        for result, scene, operation in zip(first, scenes, operations, strict=True)
    )
    assert 120 <= right <= 172  # 150 ± 3.5 standard deviations
    assert not any(result.note for result in first)  # a failing edit does not tell


def test_an_editor_that_always_fails_never_does_what_it_was_told() -> None:
    editor = SmallWorldEditor(failure_rate=1.0)
    rng = random.Random(1)
    for seed in range(60):
        scene = scene_from_seed(40_000_000 + seed)
        operation = language.random_operation(rng, scene)
        result = editor.edit([render(scene, seed)], [language.operation_sentence(operation)], [seed])[0]
        sight = see(result.image)
        assert sight is not None
        assert sight.scene != language.apply(scene, operation)


def test_a_failure_rate_is_a_share() -> None:
    with pytest.raises(ValueError, match="share between 0 and 1"):
        SmallWorldEditor(failure_rate=8)
