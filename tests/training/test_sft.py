"""Supervised fine-tuning on a model of a few thousand weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_qwen import samples

from viper.errors import InputError, StageError
from viper.training.local.sft import SftSample, SftSettings, train_sft
from viper.training.settings import StepMetrics

pytestmark = pytest.mark.torch

RESPONSES = ("<think> left </think> red square .", "blue circle .", "green")
DATA = [SftSample(s.sample_id, s.prompt, s.images, RESPONSES[i % 3]) for i, s in enumerate(samples(9))]
SETTINGS = SftSettings(epochs=4, batch=6, micro_batch=4, learning_rate=0.02, max_prompt_tokens=100, save_every=2)


class Killed(BaseException):
    """Stands for SIGKILL."""


def weights(directory: Path) -> bytes:
    return b"".join(f.read_bytes() for f in sorted(directory.glob("*.safetensors")))


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("sft")
    train_sft(tiny_model, DATA, SETTINGS, work_dir)
    return work_dir


def test_the_model_learns_the_responses(undisturbed: Path) -> None:
    from viper.engines.base import RlSample
    from viper.training.local.policy import Policy

    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["loss"] > 2.5 > rows[-1]["loss"]
    policy = Policy(undisturbed / "model")
    import torch

    prompts = policy.encode([RlSample(s.sample_id, s.prompt, s.images, ()) for s in DATA], 100)
    drawn = policy.sample(prompts, 1, 10, 0.0, torch.Generator())
    words = {w for text in policy.decode(drawn) for w in text.split()}
    assert words <= {w for r in RESPONSES for w in r.split()}


def test_the_first_loss_is_the_mean_negative_log_likelihood_of_the_response_tokens(
    undisturbed: Path, tiny_model: Path
) -> None:
    import torch

    from viper.engines.base import RlSample
    from viper.training.local.policy import Policy
    from viper.training.settings import data_order

    policy, total, tokens = Policy(tiny_model), 0.0, 0
    for i in data_order(9, 0, 6, SETTINGS.seed):
        sample = DATA[i]
        prompts = policy.encode([RlSample(sample.sample_id, sample.prompt, sample.images, ())], 100)
        ids = torch.tensor([policy.response_ids(sample.response, 100, "")])
        total -= float(policy.completion_logprobs(prompts, torch.tensor([0]), ids, torch.ones_like(ids), 1.0).sum())
        tokens += ids.shape[1]
    first = json.loads((undisturbed / "metrics.jsonl").read_text().splitlines()[0])
    assert first["tokens"] == tokens
    assert first["loss"] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_that_dies_continues_to_the_same_bits(
    undisturbed: Path, tiny_model: Path, tmp_path: Path, step: int
) -> None:
    def die(metrics: StepMetrics) -> None:
        if metrics.step == step:
            raise Killed

    with pytest.raises(Killed):
        train_sft(tiny_model, DATA, SETTINGS, tmp_path, on_step=die)
    result = train_sft(tiny_model, DATA, SETTINGS, tmp_path)
    assert weights(result.model_dir) == weights(undisturbed / "model")
    assert (tmp_path / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert result.history == train_sft(tiny_model, DATA, SETTINGS, tmp_path).history


def test_progress_counts_to_the_end(tiny_model: Path, tmp_path: Path) -> None:
    seen: list[StepMetrics] = []
    train_sft(tiny_model, DATA, replace(SETTINGS, epochs=2), tmp_path, on_step=seen.append)
    assert [(m.step, m.steps) for m in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].eta_seconds == 0
    assert all(np.isfinite(m.items_per_second) and m.items_per_second > 0 for m in seen)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no samples"),
        ([replace(DATA[0], response="  ")], "sample sample-0: the response is empty"),
        ([replace(DATA[1], response="red " * 200)], "sample sample-1: the response has 201 tokens"),
    ],
)
def test_rows_that_cannot_be_learnt_are_named(
    tiny_model: Path, tmp_path: Path, data: list[SftSample], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_sft(tiny_model, data, replace(SETTINGS, max_response_tokens=50), tmp_path)


def test_a_work_directory_of_another_run_is_refused(undisturbed: Path, tiny_model: Path) -> None:
    with pytest.raises(StageError, match="other settings"):
        train_sft(tiny_model, DATA[1:], SETTINGS, undisturbed)
