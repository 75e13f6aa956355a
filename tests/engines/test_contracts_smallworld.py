"""The small world's engines, and the real libraries with tiny models, keep the contracts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.contracts import (
    EditorContract,
    ImageSimilarityContract,
    ReconstructorContract,
    VisionLanguageModelContract,
)
from viper.engines import factory
from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, VisionLanguageModel
from viper.smallworld import EXTENSION
from viper.smallworld.editor import SmallWorldEditor
from viper.smallworld.reconstructor import SmallWorldReconstructor


class TestSmallWorldReconstructor(ReconstructorContract):
    @pytest.fixture
    def engine(self) -> Reconstructor:
        return SmallWorldReconstructor()


class TestSmallWorldEditor(EditorContract):
    @pytest.fixture
    def engine(self) -> Editor:
        return SmallWorldEditor()


@pytest.mark.torch
class TestSmallWorldClip(ImageSimilarityContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> ImageSimilarityModel:
        from viper.smallworld.clip import SmallWorldClip

        return SmallWorldClip()


@pytest.mark.torch
class TestTransformersVlm(VisionLanguageModelContract):
    """A tiny Qwen2.5-VL with random weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
        from viper.engines.transformers_vlm import TransformersVlm
        from viper.smallworld.model import build_model, build_processor, save

        directory = tmp_path_factory.mktemp("tiny-vlm")
        processor = build_processor()
        save(build_model(processor.tokenizer), processor, directory)
        return TransformersVlm(directory)


@pytest.mark.torch
class TestOpenClip(ImageSimilarityContract):
    """A tiny open_clip with random weights, from a configuration file and a safetensors checkpoint."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> ImageSimilarityModel:
        from viper.engines.open_clip_filter import OpenClipFilter

        return OpenClipFilter(save_open_clip(tmp_path_factory.mktemp("tiny-clip")))


def save_open_clip(directory: Path) -> Path:
    """Writes open_clip's own layout."""
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    return directory


@pytest.mark.parametrize("interface", EXTENSION.engines)
def test_the_memory_of_an_engine_is_asked_as_every_stage_and_doctor_ask(interface: str) -> None:
    assert factory.memory_needed(interface, "smallworld", None) == 0
    assert factory.weights_needed(interface, "smallworld", None) in (None, 0)
