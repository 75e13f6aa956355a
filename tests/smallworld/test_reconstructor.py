"""Text to image in the small world."""

import numpy as np
from PIL import Image

from viper.engines.base import Reconstructor
from viper.smallworld.language import caption
from viper.smallworld.reconstructor import SmallWorldReconstructor, imagined
from viper.smallworld.scenes import Background, Thing, scene_from_seed
from viper.smallworld.sight import see

BARE = "The background is smooth gray. At top left is a small striped red ring."


def test_it_is_a_reconstructor() -> None:
    assert isinstance(SmallWorldReconstructor(), Reconstructor)


def test_a_full_caption_is_drawn_as_it_says() -> None:
    scenes = [scene_from_seed(seed) for seed in range(20)]
    made = SmallWorldReconstructor().reconstruct([caption(scene) for scene in scenes], range(20), (96, 96))
    images = [one.image for one in made]
    assert [sight and sight.scene for sight in map(see, images)] == scenes


def test_what_the_caption_omits_is_not_drawn() -> None:
    scene = imagined(BARE, 0)
    assert scene.occupied == (0,)
    assert scene.things[0] == Thing("small", "striped", "red", "ring")
    assert scene.background == Background("smooth", "gray")


def test_a_wrong_attribute_is_drawn_wrong() -> None:
    assert imagined(BARE.replace("red", "blue"), 0).thing(0).color == "blue"


def test_what_is_left_open_is_made_up_from_the_seed() -> None:
    open_caption = "A ring at top left."
    assert imagined(open_caption, 5) == imagined(open_caption, 5)
    drawn = [imagined(open_caption, seed) for seed in range(40)]
    assert {scene.thing(0).shape for scene in drawn} == {"ring"}
    assert len({scene.thing(0).color for scene in drawn}) > 3
    assert len({scene.background for scene in drawn}) > 3


def test_a_thing_without_a_place_takes_a_free_cell() -> None:
    scene = imagined(f"{BARE} There is a big plain blue cross.", 1)
    assert len(scene.occupied) == 2
    assert Thing("big", "plain", "blue", "cross") in scene.things


def test_text_about_nothing_known_gives_an_empty_picture() -> None:
    for text in ("", "Lorem ipsum.", '{"refinement": []}'):
        assert imagined(text, 0).occupied == ()


def test_the_seed_fixes_the_picture() -> None:
    tool = SmallWorldReconstructor()
    first, again, other = (np.asarray(tool.reconstruct([BARE], [seed], (96, 96))[0].image) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_any_size_can_be_asked_for() -> None:
    image = SmallWorldReconstructor().reconstruct([BARE], [0], (200, 120))[0].image
    assert isinstance(image, Image.Image)
    assert image.size == (200, 120)
