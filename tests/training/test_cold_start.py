"""Supervised fine-tuning on supplied samples, around a trainer that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from training_fakes import Verified, model_directory, open_stage, png

from viper.errors import InputError
from viper.methods.stages import COLD_START
from viper.stage import StageContext
from viper.store import open_store
from viper.training.cold_start import SuppliedSamples, cold_start, read_samples, sft_settings
from viper.training.settings import SftResult, SftSettings, StepMetrics

if TYPE_CHECKING:
    from viper.training.local.sft import SftSample


def sample_file(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        (folder / f"{i}.png").write_bytes(png(i))
        rows.append({"prompt": f"What is {i}?", "images": [f"{i}.png"], "response": f"<think>it is {i}</think>{i}"})
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class FakeSft:
    """Writes a model and one row of metrics a step."""

    def __init__(self) -> None:
        self.samples: Sequence[SftSample] = ()
        self.settings = SftSettings()

    def __call__(
        self,
        model_dir: Path,
        samples: Sequence[SftSample],
        settings: SftSettings,
        work_dir: Path,
        *,
        on_step: Callable[[StepMetrics], None],
    ) -> SftResult:
        self.samples, self.settings = samples, settings
        steps = settings.total_steps(len(samples))
        rows = [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)]
        for row in rows:
            on_step(StepMetrics(int(row["step"]), steps, {"loss": row["loss"]}, 0.1, 1, 1))
        for folder in (work_dir / "model", work_dir / "checkpoints" / f"step-{steps:06d}"):
            folder.mkdir(parents=True)
            (folder / "model.safetensors").write_bytes(b"tuned")
        return SftResult(work_dir / "model", steps, tuple(rows))


def stage(folder: Path, samples: Path) -> StageContext:
    recipe = {"coldStart": {"samplesUri": str(samples), "batch": 4, "epochs": 2, "learningRate": 1e-3}}
    store, theta0 = open_store(folder / "store"), model_directory(folder / "theta0")
    return open_stage(store, folder / "work", COLD_START, theta0, recipe=recipe)


def test_supplied_samples_become_a_model(tmp_path: Path) -> None:
    ctx, trainer, verify = stage(tmp_path, sample_file(tmp_path / "s")), FakeSft(), Verified()
    sent: list[float] = []
    manifest = cold_start(ctx, trainer, verify, lambda rows: sent.extend(r["loss"] for r in rows))
    assert manifest is not None
    assert (manifest.outputs["steps"], manifest.outputs["samples"]) == (3, {"train": 6})
    assert trainer.settings == sft_settings(ctx.frozen.iteration.spec)
    assert (trainer.settings.batch, trainer.settings.learning_rate) == (4, 1e-3)
    assert verify.calls[0][0] == b"tuned"
    assert sent == [1, 1 / 2, 1 / 3]
    assert len(ctx.store.get(f"{ctx.prefix}/{manifest.outputs['curves']}").splitlines()) == 3
    assert not (tmp_path / "work" / "sft").exists()


def test_samples_are_read_in_order_and_named_by_their_content(tmp_path: Path) -> None:
    path = sample_file(tmp_path)
    samples = read_samples(path.as_uri())
    assert isinstance(samples, SuppliedSamples)
    assert [s.prompt for s in samples] == [f"What is {i}?" for i in range(6)]
    assert samples[2].images[0].size == (96, 96)
    assert [s.response for s in samples[4:]] == ["<think>it is 4</think>4", "<think>it is 5</think>5"]
    before = [s.sample_id for s in samples]
    (tmp_path / "3.png").write_bytes(png(99))
    after = [s.sample_id for s in read_samples(str(path))]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, True, False, True, True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "p", "response": ""}', "line 7, response: String should have at least 1 character"),
        ('{"prompt": "p", "response": "r", "image": "0.png"}', "line 7, image: Extra inputs are not permitted"),
        ('{"prompt": "p", "response": "r", "images": ["9.png"]}', "line 7: there is no image '9.png'"),
        (
            '{"prompt": "p", "response": "<think>it is"}',
            "line 7: the response has no answer: the reasoning does not end",
        ),
        ('{"prompt": "p", "response": "<think>5</think> "}', "line 7: the response has no answer: empty"),
        ('{"prompt": " ", "response": "r"}', "line 7: the prompt is empty"),
        ('{"prompt": "p"', "line 7: Invalid JSON"),
        ('{"prompt": "p", "response": "r", "images": ["0.png", "1.png", "2.png"]}', "line 7, images: List should have"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = sample_file(tmp_path)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError) as error:
        read_samples(str(path))
    assert words in str(error.value)
    assert "{prompt, images?, response}" in error.value.fix


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(InputError, match="there is no sample"):
        read_samples(str(tmp_path / "none.jsonl"))
