"""Qwen-Image-Edit behind `Editor`: diffusers' real pipelines with tiny random weights, saved and loaded from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.contracts import EditorContract, drawn, same
from viper.engines.base import Editor
from viper.engines.diffusion import working_size
from viper.engines.qwen_image_edit import QwenImageEditor
from viper.errors import InputError
from viper.spec.engines import EditingSettings

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch


def settings(**changes: Any) -> EditingSettings:
    return EditingSettings(**({"steps": 2, "guidance": 1.0, "dtype": "float32", "max_pixels": 64 * 64} | changes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from engines.tiny_diffusion import save_qwen_image_edit

    return save_qwen_image_edit(tmp_path_factory.mktemp("tiny-qwen-image-edit"))


@pytest.fixture(scope="module")
def plain(directory: Path) -> QwenImageEditor:
    return QwenImageEditor(directory, settings=settings())


class TestQwenImageEdit(EditorContract):
    @pytest.fixture
    def engine(self, plain: QwenImageEditor) -> Editor:
        return plain


def edit(engine: QwenImageEditor, image: Any, instruction: str = "Make it blue.", seed: int = 1) -> Any:
    (result,) = engine.edit([image], [instruction], [seed])
    assert result.note == ""
    return result.image


def test_instruction_and_original_show_in_the_edit(plain: QwenImageEditor) -> None:
    original = EditorContract.images[1]
    made = edit(plain, original)
    assert not same(made, original)
    assert not same(made, edit(plain, original, "Remove the ring."))
    assert not same(made, edit(plain, drawn(original.size, "yellow"), "Make it blue."))


def test_the_pipeline_of_later_releases_is_taken_as_well(tmp_path: Path) -> None:
    from engines.tiny_diffusion import save_qwen_image_edit

    engine = QwenImageEditor(save_qwen_image_edit(tmp_path, plus=True), settings=settings(guidance=4.0))
    assert edit(engine, EditorContract.images[1]).size == EditorContract.images[1].size


@pytest.mark.parametrize("size", [(96, 96), (640, 480), (33, 500), (2000, 30)])
def test_the_working_size_has_the_originals_aspect_and_the_area_asked_for(size: tuple[int, int]) -> None:
    width, height = working_size(size, 512 * 512, 32)
    assert width % 32 == height % 32 == 0
    assert width * height == pytest.approx(512 * 512, rel=0.3)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.3)


def test_one_images_failure_is_a_note_and_the_others_are_edited(
    plain: QwenImageEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = EditorContract.images
    encode = plain._pipeline.vae.encode
    broken = iter([True, False])

    def encoded(pixels: Any) -> Any:
        if next(broken):
            raise RuntimeError("Calculated padded input size per channel: (0 x 0)")
        return encode(pixels)

    monkeypatch.setattr(plain._pipeline.vae, "encode", encoded)
    failed, fine = plain.edit(images, EditorContract.instructions, [0, 1])
    assert "the model failed: Calculated padded input size" in failed.note
    assert same(failed.image, images[0])
    assert fine.note == ""
    assert not same(fine.image, images[1])


def test_an_instruction_longer_than_the_text_encoder_takes_is_noted(plain: QwenImageEditor) -> None:
    (result,) = plain.edit([drawn((40, 40), "red")], ["ring " * 1100], [0])
    assert "tokens too long" in result.note
    assert same(result.image, drawn((40, 40), "red"))


def test_a_model_for_drawing_is_no_model_for_editing(tmp_path: Path) -> None:
    from engines.tiny_diffusion import save_qwen_image

    with pytest.raises(InputError, match="this is a QwenImagePipeline, and not a QwenImageEditPipeline or"):
        QwenImageEditor(save_qwen_image(tmp_path))


def test_memory_grows_with_the_pixels_that_are_edited(directory: Path) -> None:
    small, large = (QwenImageEditor.memory_needed(directory, settings(max_pixels=side**2)) for side in (512, 1024))
    assert large - small == 2 * 4096 * (1024**2 - 512**2)
