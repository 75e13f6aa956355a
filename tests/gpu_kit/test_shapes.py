"""Real shapes without weights: as many parameters as are published, in layouts that our engines take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import shapes
from viper.engines.diffusion_files import check_pipeline, component_sizes
from viper.engines.model_directory import check_model_directory
from viper.engines.weights import weights_size

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("make", "name", "billions", "bytes_each"),
    [
        (shapes.language_model, "qwen2.5-vl-7b", 8.292, 2),
        (shapes.language_model, "qwen2.5-vl-3b", 3.755, 2),
        (shapes.sentence_model, "bge-m3", 0.568, 4),
        (shapes.clip_model, "vit-h-14", 0.986, 4),
    ],
)
def test_a_model_has_its_published_size_and_takes_no_room(
    make: Callable[..., Path], name: str, billions: float, bytes_each: int, tmp_path: Path
) -> None:
    directory = make(name, tmp_path / name, tiny=False)
    assert weights_size(directory) / bytes_each / 1e9 == pytest.approx(billions, rel=0.002)
    assert sum(f.stat().st_blocks * 512 for f in directory.rglob("*")) < 20e6
    if make is shapes.language_model:
        check_model_directory(directory)


@pytest.mark.parametrize(
    ("name", "classes", "billions"),
    [
        ("qwen-image", ("QwenImagePipeline",), {"transformer": 20.43, "text_encoder": 8.292, "vae": 0.127}),
        ("flux.2-klein-4b", ("Flux2KleinPipeline",), {"transformer": 3.876, "text_encoder": 4.022, "vae": 0.084}),
    ],
)
def test_a_pipeline_has_its_published_sizes(
    name: str, classes: tuple[str, ...], billions: dict[str, float], tmp_path: Path
) -> None:
    directory = shapes.pipeline(name, tmp_path / name, tiny=False)
    assert check_pipeline(directory, classes) == classes[0]
    found: dict[str, Any] = {part: size / 2e9 for part, size in component_sizes(directory, "bfloat16").items()}
    assert found == pytest.approx(billions, rel=0.01)


def test_the_editor_differs_from_the_reconstructor_in_its_processor_only() -> None:
    drawing, editing = shapes.shape("qwen-image"), shapes.shape("qwen-image-edit")
    assert editing["processor"]
    for part in ("transformer", "vae", "scheduler"):
        assert editing["components"][part]["config"] == drawing["components"][part]["config"]
    assert editing["language"] == drawing["language"]


@pytest.mark.parametrize("file", sorted(shapes._FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_every_shape_says_where_its_numbers_are_from(file: Path) -> None:
    assert len(shapes.shape(file.stem)["source"]) > 60
