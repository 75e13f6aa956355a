"""The small world's CLIP-score filter, and the generic open_clip engine it is made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from viper.engines.base import ImageSimilarityModel
from viper.engines.open_clip_filter import CONFIG, WEIGHTS, OpenClipFilter
from viper.errors import InputError
from viper.smallworld.clip import ASSETS, SmallWorldClip, recommended_min_score
from viper.smallworld.drawing import render
from viper.smallworld.scenes import scene_from_seed

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model() -> SmallWorldClip:
    return SmallWorldClip()


def test_it_is_an_image_similarity_model(model: SmallWorldClip) -> None:
    assert isinstance(model, ImageSimilarityModel)
    assert model.engine_id.startswith("open-clip/")


def test_wholesale_drift_scores_below_edits(model: SmallWorldClip) -> None:
    from viper.smallworld.making.clip_training import RUINS, separation

    measured = separation(model, count=150, seed=90_000_000)
    assert measured["auc_scene"] >= 0.92
    assert all(measured[f"auc_{way}"] >= 0.93 for way in RUINS), measured


def test_the_recommended_threshold_lies_between_edits_and_drift(model: SmallWorldClip) -> None:
    from viper.smallworld.making.clip_training import RUINS, separation

    measured = separation(model, count=150, seed=91_000_000)
    threshold = recommended_min_score()
    assert measured["edit_quantile_0.5"] > threshold
    assert measured["scene_quantile_0.5"] < threshold
    assert all(measured[f"{way}_quantile_0.5"] < threshold for way in RUINS), measured


def test_the_same_picture_scores_one_and_the_batch_does_not_matter(model: SmallWorldClip) -> None:
    images = [render(scene_from_seed(seed), seed) for seed in range(70)]
    rows = model.embed_images(images)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([OpenClipFilter(ASSETS, batch_size=1).embed_images([image]) for image in images[:3]])
    np.testing.assert_allclose(rows[:3], alone, atol=1e-5)


def test_images_of_any_size_and_mode_are_embedded(model: SmallWorldClip) -> None:
    images = [
        Image.fromarray(data.astronaut()),
        Image.fromarray(data.camera()),
        Image.new("RGBA", (3, 700)),
        Image.new("P", (10, 10)),
        Image.new("CMYK", (64, 32)),
    ]
    assert model.embed_images(images).shape == (5, 64)
    assert model.embed_images([]).shape == (0, 64)


def test_the_packaged_model_is_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) < 2_000_000


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_directory_that_lacks_files_is_refused(tmp_path: Path, missing: str) -> None:
    for name in {CONFIG, WEIGHTS} - {missing}:
        (tmp_path / name).write_bytes((ASSETS / name).read_bytes())
    with pytest.raises(InputError, match=f"lacks {missing}"):
        OpenClipFilter(tmp_path)


def test_training_writes_a_loadable_model_and_its_measures(tmp_path: Path) -> None:
    from viper.smallworld.making.clip_training import train_clip

    measured = train_clip(tmp_path, seed=1, steps=1, pool=64)
    assert json.loads((tmp_path / "calibration.json").read_text("utf-8")) == measured
    assert OpenClipFilter(tmp_path).embed_images([Image.new("RGB", (96, 96))]).shape == (1, 64)
