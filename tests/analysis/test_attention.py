"""Attention maps of a real (tiny) Qwen2.5-VL against the weights that the library itself gives out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training import tiny_qwen

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from viper.analysis.attention import AttentionModel  # noqa: E402
from viper.errors import InputError  # noqa: E402


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(directory: Path) -> AttentionModel:
    return AttentionModel(directory, "cpu", 401_408)


def expected(directory: Path, width: int, tokens: int) -> Any:
    """The same from what generation itself gives out, token by token, every layer's and head's weights whole."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(directory)
    whole: Any = AutoModelForImageTextToText.from_pretrained(directory, attn_implementation="eager").eval()
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Find the red square"}]}
    text = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[tiny_qwen.picture(1, width)], return_tensors="pt")
    with torch.inference_mode():
        made = whole.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, output_attentions=True, return_dict_in_generate=True
        )
    seen = (inputs["input_ids"][0] == whole.config.image_token_id).nonzero()[:, 0]
    assert len(made.attentions) > 1
    rows = [head[-1, seen] for step in made.attentions for layer in step for head in layer[0]]
    return torch.stack(rows).mean(0).numpy()


@pytest.mark.parametrize(("width", "shape"), [(56, (2, 2)), (112, (2, 4))])
def test_the_map_is_the_mean_of_what_eager_attention_gives(
    model: AttentionModel, directory: Path, width: int, shape: tuple[int, int]
) -> None:
    look = model.look(tiny_qwen.picture(1, width), "Find the red square", 6)
    assert look.weights.shape == shape
    assert np.allclose(look.weights.ravel(), expected(directory, width, 6), atol=1e-6)
    assert 0 < look.image_share < 1
    assert look.answer


def test_looking_again_gives_the_same(model: AttentionModel) -> None:
    first, second = (model.look(tiny_qwen.picture(2), "Find the blue circle", 4) for _ in range(2))
    assert (first.weights == second.weights).all()
    assert first.answer == second.answer


def test_large_images_are_reduced(directory: Path) -> None:
    small = AttentionModel(directory, "cpu", 56 * 56)
    assert small.look(tiny_qwen.picture(1, 112), "Find", 2).weights.size < 8
    small.close()


def test_other_checkpoints_look_elsewhere(tmp_path: Path, model: AttentionModel) -> None:
    other = AttentionModel(tiny_qwen.build(tmp_path / "other", seed=1), "cpu", 401_408)
    picture = tiny_qwen.picture(1, 112)
    there, here = (m.look(picture, "Find the red square", 4).weights for m in (other, model))
    assert np.abs(there - here).max() > 1e-4


def test_a_directory_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        AttentionModel(tmp_path, "cpu", 1000)
