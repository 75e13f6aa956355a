"""How well the small world's image analysis reads pictures, against the truth it never sees."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from viper.smallworld.drawing import WORLD, Style, from_image, render
from viper.smallworld.scenes import ATTRIBUTES, scene_from_seed
from viper.smallworld.sight import see


@pytest.mark.parametrize("style", [WORLD, Style(jitter=4, shade=12, noise=16.0)], ids=["world", "rough"])
def test_more_than_99_of_100_attributes_backgrounds_and_cells_are_read_right(style: Style) -> None:
    scenes = [scene_from_seed(10_000_000 + seed) for seed in range(300)]
    wrong = dict.fromkeys([*ATTRIBUTES, "cell", "background"], 0)
    total = dict.fromkeys(wrong, 0)
    for seed, scene in enumerate(scenes):
        sight = see(render(scene, seed, style))
        assert sight is not None
        total["background"] += 1
        wrong["background"] += sight.background != scene.background
        for there, seen in zip(scene.things, sight.scene.things, strict=True):
            total["cell"] += 1
            wrong["cell"] += (there is None) != (seen is None)
            if there is not None and seen is not None:
                for name in ATTRIBUTES:
                    total[name] += 1
                    wrong[name] += there.value(name) != seen.value(name)
    assert all(wrong[name] < 0.01 * total[name] for name in wrong), (wrong, total)


def test_place_and_noise_are_estimated() -> None:
    scene = scene_from_seed(3)
    sight = see(render(scene, 7, Style(jitter=3, shade=0, noise=10.0)))
    assert sight is not None
    assert sight.noise == pytest.approx(10.0, rel=0.15)
    clean = render(scene, 7, Style(jitter=3, shade=0, noise=0.0))
    assert np.abs(sight.pixels().clip(0, 255) - from_image(clean)).mean() < 1.0


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(data.astronaut()),
        Image.fromarray(data.astronaut()).resize((96, 96)),
        Image.fromarray(data.camera()).resize((96, 96)),
        Image.new("RGB", (96, 96), (245, 245, 245)),
        Image.new("RGB", (1, 1)),
    ],
    ids=["photograph", "small photograph", "grey photograph", "blank", "one pixel"],
)
def test_other_pictures_are_recognised_as_foreign(image: Image.Image) -> None:
    assert see(image) is None
