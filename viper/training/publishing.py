"""What every training stage does around its trainer: follow the steps, publish the result, forget the scratch."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from viper.engines.base import RlSample
from viper.errors import StageError, StoreError
from viper.methods.stages import THETA0, StageNode
from viper.modelcache.resolve import model_dir
from viper.stage import ResolvedModel, StageContext
from viper.store import child_uri
from viper.store.transfer import directory_digests, upload_directory
from viper.training.live import LiveCurves, Send
from viper.training.mirror import FOLDERS, mirror_for
from viper.training.settings import StepMetrics
from viper.words import plural

CURVES, MODELS = "curves.jsonl", "models"
#: What progress shows of a step, by metric.
_SHOWN = {"reward/mean": "reward", "shadow/recall": "recall", "loss": "loss"}

History = Sequence[Mapping[str, float]]


class Verify(Protocol):
    """`viper.training.verify.verify_model`."""

    def __call__(
        self, stored: Path, reference: Path, weights: Path | None, probes: Sequence[RlSample], tokens: int
    ) -> float: ...


def inputs_of(node: StageNode) -> tuple[str, ...]:
    """The stages that a training stage's manifest is made from."""
    return tuple(dict.fromkeys((*node.needs, *(() if node.model in (None, THETA0) else (str(node.model),)))))


@contextmanager
def following(
    ctx: StageContext, work_dir: Path, send_curves: Send, steps: int, checkpoints: str = FOLDERS
) -> Iterator[Callable[[StepMetrics], None]]:
    """Restores a checkpoint that only the store still has, then yields what to call after every step.

    A step advances the progress, reaches MLflow when MLflow can be reached, and, where the store is remote, the newest
    checkpoint is kept there too. One of a stage that another attempt has finished raises `SupersededError`; a full disk
    becomes a `StoreError`. `steps`: in all; `checkpoints` is the name of a step's checkpoint.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    mirror = mirror_for(ctx.store, ctx.prefix, work_dir, checkpoints)
    mirror.restore()
    ctx.progress.begin("train", steps, unit="step")
    ctx.progress.wait("starting the trainer")
    following_step = 1

    def on_step(step: StepMetrics) -> None:
        nonlocal following_step
        ctx.give_way()
        if step.step > following_step:  # the first one of an attempt that goes on
            ctx.tell(f"goes on after step {step.step - 1}, from the checkpoint of an earlier attempt")
            ctx.progress.reuse(step.step - following_step)
        elif step.step < following_step:  # one that is taken again after a restart of the trainer
            ctx.progress.begin("train", step.steps, step.step - 1, unit="step")
        following_step = step.step + 1
        ctx.progress.advance(1, **{name: step.values[key] for key, name in _SHOWN.items() if key in step.values})
        live.log({"step": step.step, **step.values})
        mirror.save()
        live.check()

    with LiveCurves(send_curves) as live:
        try:
            yield on_step
        except (KeyboardInterrupt, SystemExit):
            mirror.save(last=True)  # stopped in order: the checkpoint that the trainer wrote on its way out
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                "the disk is full", where=str(work_dir), fix="free some space; training goes on from its checkpoint"
            ) from error
    if following_step == 1:
        ctx.progress.reuse(steps)


def check_steps(history: History, steps: int, expected: int, work_dir: Path) -> None:
    """Raises `StageError` unless every step from the first to the expected last one is there, once."""
    told = [int(row["step"]) for row in history]
    if steps != expected or told != list(range(1, expected + 1)):
        raise StageError(
            f"training ended after {told[-1] if told else 0} of {plural(expected, 'step')} ({len(told)} in its log)",
            where=str(work_dir),
            fix="run the stage again; if it ends like this again, keep this folder to find out why, and run the "
            "iteration under another name",
        )


def trained_weights(start: Path, work_dir: Path, step: int, model: Path) -> tuple[Path, Path | None]:
    """Where the weights of `step` are besides the saved model: a model directory, and weights to load over it."""
    name = f"step-{step:06d}"
    checkpoint, candidate = work_dir / "checkpoints" / name / "model.safetensors", work_dir / "candidates" / name
    if checkpoint.is_file():
        return start, checkpoint
    if candidate.is_dir():
        return candidate, None
    return (start if step == 0 else model), None


def publish_model(
    ctx: StageContext,
    model: Path,
    trained: tuple[Path, Path | None],
    probes: Sequence[RlSample],
    *,
    tokens: int,
    verify: Verify,
) -> dict[str, str]:
    """Stores a model directory, reads it back and compares it with the trained weights; returns its URI and digest.

    It lies under its digest: the model of another attempt has another place, and what a manifest names never changes.
    """
    digests = directory_digests(model)
    prefix = f"{ctx.prefix}/{MODELS}/{digests.digest.replace(':', '-')}"
    with ctx.progress.waits("storing the model and reading it back"):
        upload_directory(ctx.store, prefix, model, digests=digests)
        published = ResolvedModel(uri=child_uri(ctx.store.uri, prefix), digest=digests.digest)
        stored = model_dir(ctx, published)
    with ctx.progress.waits("comparing the stored model with the trained weights"):
        verify(stored, *trained, probes, tokens)
    return {"uri": published.uri, "digest": published.digest}


def publish_curves(ctx: StageContext, history: History) -> str:
    """Stores the curves, one JSON object a step; returns their key below the stage prefix."""
    lines = "".join(json.dumps(dict(row), sort_keys=True) + "\n" for row in history)
    return ctx.keep(CURVES, lines.encode())


def forget(ctx: StageContext, work_dir: Path) -> None:
    """Removes checkpoints and scratch; the manifest is written."""
    mirror_for(ctx.store, ctx.prefix, work_dir).clear()
    shutil.rmtree(work_dir, ignore_errors=True)
