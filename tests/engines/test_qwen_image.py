"""Qwen-Image behind `Reconstructor`: diffusers' real pipeline with tiny random weights, saved and loaded from disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from engines.contracts import ReconstructorContract, close, same
from viper.engines.base import Reconstructor
from viper.engines.qwen_image import QwenImageReconstructor
from viper.errors import EngineError, InputError, SpecError
from viper.spec.engines import DiffusionSettings

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch

CAPTIONS = ReconstructorContract.captions
SIZE = (48, 32)


def settings(**changes: Any) -> DiffusionSettings:
    return DiffusionSettings(**({"steps": 2, "dtype": "float32", "batch": 3} | changes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from engines.tiny_diffusion import save_qwen_image

    return save_qwen_image(tmp_path_factory.mktemp("tiny-qwen-image"))


@pytest.fixture(scope="module")
def plain(directory: Path) -> QwenImageReconstructor:
    return QwenImageReconstructor(directory, settings=settings())


class TestQwenImage(ReconstructorContract):
    @pytest.fixture
    def engine(self, plain: QwenImageReconstructor) -> Reconstructor:
        return plain


def image(engine: QwenImageReconstructor, caption: str = CAPTIONS[0], seed: int = 1) -> Any:
    (result,) = engine.reconstruct([caption], [seed], SIZE)
    assert result.note == ""
    return result.image


def read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def test_captions_show_in_the_images_and_words_that_guide_away_as_well(
    plain: QwenImageReconstructor, directory: Path
) -> None:
    assert not close(image(plain, CAPTIONS[0]), image(plain, CAPTIONS[1]), within=20)
    guided = QwenImageReconstructor(directory, settings=settings(negative_prompt="ring"))
    assert not same(image(plain), image(guided))


def test_the_default_type_of_numbers_draws_and_repeats_itself(directory: Path) -> None:
    engine = QwenImageReconstructor(directory, settings=settings(dtype="bfloat16", batch=1))
    assert next(engine._pipeline.transformer.parameters()).dtype == torch.bfloat16
    first, _ = engine.reconstruct(CAPTIONS[:2], [1, 2], SIZE)
    assert first.image is not None
    assert same(first.image, image(engine))


def test_guidance_up_to_one_is_off_and_costs_half(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = {}
    for guidance in (0.5, 1.0, 4.0):
        engine = QwenImageReconstructor(directory, settings=settings(guidance=guidance))
        calls = passes.setdefault(guidance, [])
        engine._pipeline.transformer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        image(engine)
    assert [len(calls) for calls in passes.values()] == [2, 2, 4]


def test_a_caption_longer_than_the_text_encoder_takes_is_not_cut_but_noted(plain: QwenImageReconstructor) -> None:
    pipeline = plain._pipeline
    fixed = len(pipeline.tokenizer(pipeline.prompt_template_encode.format(""))["input_ids"]) - 34
    just, more = " ring" * (1024 - fixed), " ring" * (1024 - fixed + 7)
    fits, long, short = plain.reconstruct([just, more, CAPTIONS[1]], [0, 1, 2], SIZE)
    assert fits.image is not None
    assert long.image is None
    assert "7 tokens too long for the text encoder, which takes 1024" in long.note
    assert short.image is not None
    assert close(short.image, image(plain, CAPTIONS[1], 2))


def test_latents_that_are_not_numbers_give_a_note(
    plain: QwenImageReconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = plain._pipeline.vae.decode

    def spoilt(latents: Any, **how: Any) -> Any:
        latents[1] = float("nan")
        return decode(latents, **how)

    monkeypatch.setattr(plain._pipeline.vae, "decode", spoilt)
    results = plain.reconstruct([CAPTIONS[1]] * 3, [0, 1, 2], SIZE)
    assert [result.image is None for result in results] == [False, True, False]
    assert "NaN" in results[1].note


def test_a_batch_that_fails_is_tried_one_by_one(plain: QwenImageReconstructor, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = plain._pipeline.encode_prompt

    def picky(prompt: list[str], **how: Any) -> Any:
        if "A cross." in prompt:
            raise ValueError("no crosses")
        return encode(prompt=prompt, **how)

    monkeypatch.setattr(plain._pipeline, "encode_prompt", picky)
    notes = [result.note for result in plain.reconstruct(CAPTIONS, [0, 1, 2], SIZE)]
    assert notes == ["", "the model failed: no crosses", ""]


def test_short_memory_makes_smaller_batches_and_then_names_the_setting(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QwenImageReconstructor(directory, settings=settings(batch=4))
    fits, sizes = 1, []
    decode = engine._pipeline.vae.decode

    def decoded(latents: Any, **how: Any) -> Any:
        sizes.append(len(latents))
        if len(latents) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return decode(latents, **how)

    monkeypatch.setattr(engine._pipeline.vae, "decode", decoded)
    results = engine.reconstruct(CAPTIONS, [0, 1, 2], SIZE)
    assert all(result.image is not None for result in results)
    assert sizes == [3, 2, 1, 1, 1]
    fits = 0
    with pytest.raises(EngineError, match=r"spec\.engines\.reconstruction\.batch: one item alone(.|\n)*set offload"):
        engine.reconstruct(CAPTIONS, [0, 1, 2], SIZE)


def test_a_model_that_does_not_fit_names_the_setting(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import QwenImagePipeline

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")

    monkeypatch.setattr(QwenImagePipeline, "to", full)
    with pytest.raises(EngineError, match=r"spec\.engines\.reconstruction\.offload: the model does not fit"):
        image(QwenImageReconstructor(directory, settings=settings()))


def test_a_device_in_error_ends_the_phase(plain: QwenImageReconstructor, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(plain._pipeline.vae, "decode", dead)
    with pytest.raises(EngineError, match="the device failed: CUDA error"):
        plain.reconstruct(CAPTIONS, [0, 1, 2], SIZE)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_first_block_cache_saves_work_and_leaves_nothing_to_the_next_image(directory: Path, batch: int) -> None:
    chosen = settings(steps=8, cache="firstBlock", cache_threshold=1.0, batch=batch)
    engine = QwenImageReconstructor(directory, settings=chosen)
    blocks: list[int] = []
    attention = engine._pipeline.transformer.transformer_blocks[1].attn
    attention.register_forward_hook(lambda *_: blocks.append(1))
    first = image(engine, CAPTIONS[0], 7)
    assert 2 <= len(blocks) < 16
    image(engine, CAPTIONS[2], 8)
    assert same(first, image(engine, CAPTIONS[0], 7))
    together = engine.reconstruct(CAPTIONS, [7, 8, 9], SIZE)
    assert together[0].image is not None
    assert same(first, together[0].image)


def test_a_call_that_breaks_off_leaves_no_cache_to_the_next_image(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FirstBlockCacheConfig

    engine = QwenImageReconstructor(directory, settings=settings(cache="firstBlock"))
    engine._pipeline.transformer.disable_cache()
    engine._pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=100.0))  # whatever is there is reused
    first = image(engine, CAPTIONS[0], 7)
    with monkeypatch.context() as broken:
        broken.setattr(engine._pipeline.vae, "decode", lambda *_, **__: torch.zeros(1) @ torch.zeros(2))
        (result,) = engine.reconstruct([CAPTIONS[2]], [8], SIZE)
        assert "the model failed" in result.note
    assert same(first, image(engine, CAPTIONS[0], 7))


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading_does_not_change_the_images(plain: QwenImageReconstructor, directory: Path, offload: str) -> None:
    engine = QwenImageReconstructor(directory, settings=settings(offload=offload))
    assert close(image(engine), image(plain))
    assert close(image(engine, CAPTIONS[1], 3), image(plain, CAPTIONS[1], 3))
    assert hasattr(engine._pipeline.transformer, "_hf_hook") == (offload == "model")
    engine.close()


def test_layers_are_offloaded_from_the_device_that_is_set(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import QwenImagePipeline

    asked: list[str] = []
    monkeypatch.setattr(QwenImagePipeline, "enable_sequential_cpu_offload", lambda self, device: asked.append(device))
    _ = QwenImageReconstructor(directory, "cuda:3", settings(offload="sequential"))._pipeline
    assert asked == ["cuda:3"]


def test_decoding_in_tiles_gives_images_of_the_same_size(directory: Path) -> None:
    engine = QwenImageReconstructor(directory, settings=settings(tiled_decoding=True))
    (result,) = engine.reconstruct(CAPTIONS[:1], [0], (320, 280))
    assert result.image is not None
    assert result.image.size == (320, 280)
    assert engine._pipeline.vae.use_tiling


def test_a_closed_engine_holds_no_pipeline(directory: Path) -> None:
    engine = QwenImageReconstructor(directory, settings=settings())
    image(engine)
    engine.close()
    assert "_pipeline" not in vars(engine)
    engine.close()


@pytest.fixture(scope="module")
def lora(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights for the tiny model, with a scheduler of their own as distilled weights have."""
    from diffusers import QwenImagePipeline
    from peft import LoraConfig, get_peft_model_state_dict

    place = tmp_path_factory.mktemp("lora")
    pipeline: Any = QwenImagePipeline.from_pretrained(directory)
    torch.manual_seed(5)
    pipeline.transformer.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    )
    layers = {name: torch.randn_like(value) for name, value in get_peft_model_state_dict(pipeline.transformer).items()}
    QwenImagePipeline.save_lora_weights(place, transformer_lora_layers=layers)
    return place


def test_lora_weights_change_the_image_by_their_scale(
    plain: QwenImageReconstructor, directory: Path, lora: Path
) -> None:
    without, half, whole = (
        QwenImageReconstructor(directory, settings=settings(lora=str(lora), lora_scale=scale))
        for scale in (0.0, 0.5, 1.0)
    )
    assert close(image(plain), image(without))
    assert not close(image(plain), image(half))
    assert not close(image(half), image(whole))
    assert len({engine.engine_id for engine in (plain, without, half, whole)}) == 4


def test_distilled_weights_bring_their_own_scheduler(directory: Path, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path, dirs_exist_ok=True)
    config = read(directory / "scheduler" / "scheduler_config.json") | {"shift_terminal": None, "base_shift": 1.1}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config), "utf-8")
    engine = QwenImageReconstructor(directory, settings=settings(steps=1, lora=str(tmp_path)))
    assert engine.engine_id != QwenImageReconstructor(directory, settings=settings(steps=1, lora=str(lora))).engine_id
    assert engine._pipeline.scheduler.config.base_shift == 1.1
    image(engine)


def test_lora_weights_of_another_model_are_refused(directory: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    pair = {f"transformer.elsewhere.lora_{side}.weight": torch.zeros(2, 2) for side in "AB"}
    save_file(pair, tmp_path / "other.safetensors")
    engine = QwenImageReconstructor(directory, settings=settings(lora=str(tmp_path)))
    with pytest.raises(InputError, match="do not fit QwenImagePipeline"):
        image(engine)
    save_file({"x": torch.zeros(1)}, tmp_path / "second.safetensors")
    with pytest.raises(InputError, match=r"2 safetensors files \(other\.safetensors, second\.safetensors\)"):
        QwenImageReconstructor(directory, settings=settings(lora=str(tmp_path)))


def test_a_single_step_is_refused_where_it_would_give_no_numbers(directory: Path) -> None:
    with pytest.raises(SpecError, match=r"spec\.engines\.reconstruction\.steps"):
        image(QwenImageReconstructor(directory, settings=settings(steps=1)))


def _without_index(place: Path) -> None:
    (place / "model_index.json").unlink()


def _another_class(place: Path) -> None:
    index = read(place / "model_index.json") | {"_class_name": "FluxPipeline"}
    (place / "model_index.json").write_text(json.dumps(index), "utf-8")


def _no_folder(place: Path) -> None:
    shutil.rmtree(place / "vae")


def _no_weights(place: Path) -> None:
    (place / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def _pickled(place: Path) -> None:
    (place / "vae" / "diffusion_pytorch_model.safetensors").rename(place / "vae" / "diffusion_pytorch_model.bin")


def _cut_short(place: Path) -> None:
    file = place / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _a_shard_is_missing(place: Path) -> None:
    index = {"weight_map": {"a": "part-1.safetensors", "b": "diffusion_pytorch_model.safetensors"}}
    (place / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_index, "lacks model_index.json"),
        (_another_class, "this is a FluxPipeline, and not a QwenImagePipeline"),
        (_no_folder, "lacks its vae"),
        (_no_weights, "the vae has no weights"),
        (_pickled, "the vae has pickled weights only"),
        (_cut_short, "not a whole safetensors file"),
        (_a_shard_is_missing, "lacks 1 of 2 files: part-1.safetensors"),
    ],
)
def test_a_directory_that_is_not_what_it_claims_is_refused(
    directory: Path, tmp_path: Path, spoil: Any, message: str
) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        QwenImageReconstructor(tmp_path)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model directory"):
        QwenImageReconstructor(tmp_path / "none")


def test_the_engine_id_names_what_changes_pixels_and_nothing_else(directory: Path) -> None:
    def engine_id(**changes: Any) -> str:
        return QwenImageReconstructor(directory, settings=settings(**changes)).engine_id

    plain = engine_id()
    assert plain == engine_id(batch=1) == engine_id(offload="model")
    changes: list[dict[str, Any]] = [
        {"steps": 9},
        {"guidance": 2.0},
        {"negative_prompt": "blur"},
        {"dtype": "bfloat16"},
    ]
    changes += [{"cache": "firstBlock"}, {"tiled_decoding": True}]
    assert len({plain, *(engine_id(**change) for change in changes)}) == len(changes) + 1


def test_planned_memory_is_what_has_to_be_on_the_device(directory: Path) -> None:
    def needed(**changes: Any) -> int:
        return QwenImageReconstructor.memory_needed(directory, settings(**changes))

    sizes = {
        part: sum(value.numel() for value in getattr(loaded, part).parameters())
        for loaded in [QwenImageReconstructor(directory, settings=settings())._pipeline]
        for part in ("transformer", "vae", "text_encoder")
    }
    work = 1024 * 1024 * 4096
    assert needed(dtype="bfloat16", batch=1) == 2 * sum(sizes.values()) + work
    assert needed(dtype="bfloat16", batch=2) == 2 * sum(sizes.values()) + 2 * work
    assert needed(dtype="float32", batch=1) == 4 * sum(sizes.values()) + 2 * work
    assert needed(dtype="bfloat16", batch=1, offload="model") == 2 * max(sizes.values()) + work
    sequential = needed(dtype="bfloat16", batch=1, offload="sequential") - work
    assert 0 < sequential < 2 * max(sizes.values())
    assert needed(dtype="bfloat16", batch=1, tiled_decoding=True) < needed(dtype="bfloat16", batch=1) - work / 2
