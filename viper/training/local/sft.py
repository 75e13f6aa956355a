"""Cold start: supervised fine-tuning on supplied samples before reinforcement learning (an ablation of the paper).

Same contract as `viper.training.local.grpo`: one work directory a run, everything random a function of seed and step,
so a killed run continues to bit-identical weights.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from viper.digests import digest_of
from viper.engines.base import RlSample
from viper.errors import InputError, StageError
from viper.training.interrupt import StopRequest, stop_requests
from viper.training.local.checkpoints import Checkpoints, Log, check_own, publish, weights_digest, write_json, writing
from viper.training.settings import SftResult, SftSettings, StepMetrics, data_order

__all__ = ["SftResult", "SftSample", "SftSettings", "train_sft"]


@dataclass(frozen=True)
class SftSample:
    """One supervised row: the text that the model should answer, think block included, to prompt and images."""

    sample_id: str
    prompt: str
    images: tuple[Image, ...]
    response: str


def train_sft(
    model_dir: Path,
    samples: Sequence[SftSample],
    settings: SftSettings,
    work_dir: Path,
    *,
    on_step: Callable[[StepMetrics], None] = lambda _: None,
) -> SftResult:
    """Fine-tunes the model of `model_dir`; run again on the same `work_dir`, it continues where it was.

    The loss is the mean negative log-likelihood over all response tokens of a batch, the end token included. Metrics:
    `loss` (nats per token), `grad_norm`, `learning_rate`, `tokens`.

    Raises:
        InputError: no samples, an empty or too long response, a prompt over the limit, a model that cannot be loaded.
        StoreError: a checkpoint or log cannot be written (disk full).
        StageError: loss or gradient not finite; a `work_dir` of another run.
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, when the checkpoint is written.
    """
    if not samples:
        raise InputError("there are no samples to train on", where="samples")
    empty = next((s.sample_id for s in samples if not s.response.strip()), None)
    if empty is not None:
        raise InputError("the response is empty", where=f"sample {empty}", fix="drop the row or write the response")
    work_dir.mkdir(parents=True, exist_ok=True)
    fingerprint = digest_of(
        {
            "settings": asdict(settings),
            "samples": [[s.sample_id, s.prompt, s.response] for s in samples],
            "model": weights_digest(model_dir),
        }
    )
    steps = settings.total_steps(len(samples))
    done = work_dir / "result.json"
    if done.is_file():
        result = json.loads(done.read_text("utf-8"))
        check_own(result, fingerprint, done)
        return SftResult(work_dir / "model", steps, tuple(result["history"]))
    with stop_requests() as stop:
        history = _train(model_dir, samples, settings, Checkpoints(work_dir, fingerprint), on_step, stop)
    write_json(done, {"fingerprint": fingerprint, "steps": steps, "history": history})
    return SftResult(work_dir / "model", steps, tuple(history))


def _train(  # noqa: PLR0917
    model_dir: Path,
    samples: Sequence[SftSample],
    settings: SftSettings,
    checkpoints: Checkpoints,
    on_step: Callable[[StepMetrics], None],
    stop: StopRequest,
) -> list[Mapping[str, float]]:
    import torch

    from viper.training.local.policy import Policy

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    policy, steps = Policy(model_dir), settings.total_steps(len(samples))
    parameters = list(policy.model.parameters())
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    state = checkpoints.load(policy.model, optimizer) or {"step": 0, "metrics": 0}
    work_dir = checkpoints.root.parent
    log = Log(work_dir / "metrics.jsonl", state["metrics"])
    history: list[Mapping[str, float]] = list(log.rows())
    began, first = time.monotonic(), int(state["step"])
    policy.model.train()
    for step in range(first + 1, steps + 1):
        start = time.monotonic()
        order = data_order(len(samples), (step - 1) * settings.batch, settings.batch, settings.seed)
        rate = settings.learning_rate * min(1.0, step / (settings.warmup_steps or 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=False)
        loss, tokens = _backward(policy, [samples[i] for i in order], settings)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm))
        optimizer.step()
        if not (math.isfinite(loss + norm) and all(bool(p.isfinite().all()) for p in parameters)):
            raise StageError(
                f"step {step}: the training diverged (loss {loss}, gradient norm {norm}, or weights not finite)",
                where=str(work_dir),
                fix="lower the learning rate; the checkpoint before this step is kept",
            )
        row = {"step": step, "loss": loss, "grad_norm": norm, "learning_rate": rate, "tokens": float(tokens)}
        history.append(row)
        log.write([row])
        now = time.monotonic()
        speed = (step - first) / (now - began)
        values = {name: value for name, value in row.items() if name != "step"}
        on_step(StepMetrics(step, steps, values, now - start, speed * settings.batch, (steps - step) / speed))
        if step % settings.save_every == 0 or step == steps or stop.signal:
            checkpoints.save(step, policy.model, optimizer, {"metrics": log.size})
        if stop.signal and step < steps:
            stop.leave()
    log.close()
    temporary = work_dir / ".model.writing"
    with writing(work_dir / "model"):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        policy.save(temporary)
        publish(temporary, work_dir / "model")
    return history


def _backward(policy: Any, batch: Sequence[SftSample], settings: SftSettings) -> tuple[float, int]:
    """Accumulates the gradient of the batch's mean token loss; returns that loss and the number of tokens."""
    import torch

    from viper.training.local.policy import backward

    ids = [policy.response_ids(s.response, settings.max_response_tokens, s.sample_id) for s in batch]
    tokens, total = sum(map(len, ids)), 0.0
    order = sorted(range(len(batch)), key=lambda i: (len(ids[i]), i))  # like lengths together: little padding
    for begin in range(0, len(order), settings.micro_batch):
        rows = order[begin : begin + settings.micro_batch]
        prompts = policy.encode(
            [RlSample(batch[i].sample_id, batch[i].prompt, batch[i].images, ()) for i in rows],
            settings.max_prompt_tokens,
        )
        answers = [torch.tensor(ids[i]) for i in rows]
        padded = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=policy.pad)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(a) for a in answers], batch_first=True)
        scored = policy.completion_logprobs(prompts, torch.arange(len(rows)), padded, mask, 1.0)
        loss = -scored.sum() / tokens
        backward(loss)
        total += float(loss.detach())
    return total, tokens
