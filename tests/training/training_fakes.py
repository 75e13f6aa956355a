"""Validated samples without synthesis, a trainer without a model, and what the stages need around them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from viper.engines.base import RlSample
from viper.methods.stages import VALIDATE_CAPTIONS, VALIDATE_OPERATIONS
from viper.spec import parse_resource
from viper.spec.iteration import ViperIteration
from viper.stage import FrozenIteration, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import ObjectStore
from viper.store.transfer import directory_digest
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics
from viper.training.stage import Tools


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class WordSimilarity:
    """Bags of words: real cosines, no model."""

    engine_id = "words"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(sentences), 256), np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            for word in sentence.lower().split():
                row[hashlib.sha256(word.encode()).digest()[0]] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def png(number: int, side: int = 96) -> bytes:
    """A picture of its own per number."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


_STRINGS = ("sample_id", "image_id", "caption", "category", "instruction", "split", "reason", "passport")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _STRINGS),
        ("image", pa.binary()),
        ("edited", pa.binary()),
        ("refinement", pa.list_(pa.string())),
        ("accepted", pa.bool_()),
    ]
)


def validated(number: int, **fields: Any) -> dict[str, Any]:
    """A row of either validation stage; every fifth one is held out, every seventh one rejected."""
    return {
        "sample_id": f"sample-{number}",
        "image_id": f"image-{number}",
        "image": png(number),
        "edited": png(1000 + number),
        "caption": "At top is a small plain red ring.",
        "refinement": ["At top the color is blue.", "At left is nothing."],
        "category": "Attribute Tuning",
        "instruction": "Remove the ring. Then stop.",
        "split": "held_out" if number % 5 == 4 else "train",
        "accepted": number % 7 != 6,
        "passport": '{"models": {"generator": "sha256:0"}}',
        "reason": "" if number % 7 != 6 else "near-duplicate",
        **fields,
    }


def iteration(recipe: Mapping[str, Any], **spec: Any) -> ViperIteration:
    """A small iteration with `recipe` over quick training settings."""
    quick = {"batchPrompts": 4, "miniBatchPrompts": 2, "groupSize": 2, "maxResponseTokens": 6, "saveEvery": 2}
    task = {"training": {**quick, "steps": 5, "learningRate": 1e-4}}
    found = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": {
                "model": "small",
                "images": {"uri": "file:///images"},
                "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake"),
                **spec,
                "recipe": {"prompts": "smallworld", "captions": task, "operations": task, **recipe},
            },
        }
    )
    assert isinstance(found, ViperIteration)
    return found


def model_directory(folder: Path, weights: bytes = b"theta0") -> ResolvedModel:
    """A directory that only looks like a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    return ResolvedModel(uri=folder.absolute().as_uri(), digest=directory_digest(folder))


def open_stage(  # noqa: PLR0917
    store: ObjectStore,
    work_dir: Path,
    stage: str,
    theta0: ResolvedModel,
    rows: int = 20,
    recipe: Mapping[str, Any] | None = None,
    make: Callable[[int], dict[str, Any]] = validated,
    **spec: Any,
) -> StageContext:
    """A training stage whose validation stages are done."""
    frozen = FrozenIteration(
        iteration=iteration(recipe or {}, **spec),
        generator=theta0,
        base=theta0,
        critic=theta0,
        judge=theta0,
        tracking=Tracking(uri="sqlite:////none/mlflow.db", parent_run="none"),
    )
    for name, offset in ((VALIDATE_CAPTIONS, 0), (VALIDATE_OPERATIONS, 100)):
        ctx = StageContext(frozen, store, name, work_dir)
        if ctx.done() is None:
            ctx.write_part(0, [make(offset + i) for i in range(rows)], SCHEMA)
            ctx.finish((), parts=1)
    work_dir.mkdir(parents=True, exist_ok=True)
    return StageContext(frozen, store, stage, work_dir)


class FakeTrainer:
    """Behaves like `train_grpo`: checkpoints every `save_every` steps, resumes from them, ends in the same bytes.

    `kill_at`: dies in that step, before its checkpoint. `best`: the step it selects. `lose`: leaves out that step.
    `weights`: what its models hold, before the step.
    """

    def __init__(
        self, kill_at: int = 0, best: int | None = None, lose: int = 0, stop_at: int = 0, weights: str = "weights"
    ) -> None:
        self.weights = weights
        self.kill_at, self.best, self.lose, self.stop_at = kill_at, best, lose, stop_at
        self.computed: list[int] = []
        self.seen: dict[str, Any] = {}

    def __call__(
        self,
        model_dir: Path,
        samples: Sequence[RlSample],
        held_out: Sequence[RlSample],
        settings: GrpoSettings,
        work_dir: Path,
        *,
        on_step: Callable[[StepMetrics], None],
        evaluate: Callable[[Path], float] | None,
    ) -> GrpoResult:
        self.seen = {"samples": samples, "held_out": held_out, "settings": settings, "evaluate": evaluate}
        steps, log = settings.total_steps(len(samples)), work_dir / "metrics.jsonl"
        saved = sorted((work_dir / "checkpoints").glob("step-*"))
        first = int(saved[-1].name[-6:]) if saved else 0
        kept = log.read_text("utf-8").splitlines()[:first] if first else []
        log.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        for step in range(first + 1, steps + 1):
            self.computed.append(step)
            row = {"step": step, "reward/mean": step / 10, "shadow/recall": 0.5, "held_out/reward": step / 20}
            if step != self.lose:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            on_step(StepMetrics(step, steps, {k: v for k, v in row.items() if k != "step"}, 0.1, 1, 1))
            if step == self.kill_at:
                raise Killed
            if step % settings.save_every == 0 or step == steps:
                self._save(work_dir, step, log)
            if step == self.stop_at:
                raise SystemExit(143)
        best = steps if self.best is None else self.best
        weights = f"{self.weights} of step {best}".encode() if best else (model_dir / "model.safetensors").read_bytes()
        for folder in (work_dir / "model", work_dir / "candidates" / f"step-{best:06d}"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("{}", "utf-8")
            (folder / "model.safetensors").write_bytes(weights)
        (work_dir / "rollouts.jsonl").write_text('{"sample_id": "sample-0"}\n', "utf-8")
        history = tuple(json.loads(line) for line in log.read_text("utf-8").splitlines())
        return GrpoResult(work_dir / "model", steps, best, history, work_dir / "rollouts.jsonl")

    def _save(self, work_dir: Path, step: int, log: Path) -> None:
        target = work_dir / "checkpoints" / f"step-{step:06d}"
        target.mkdir(parents=True)
        (target / "model.safetensors").write_bytes(f"{self.weights} of step {step}".encode())
        (target / "state.json").write_text(json.dumps({"step": step, "metrics": log.stat().st_size}), "utf-8")
        for old in (work_dir / "checkpoints").glob("step-*"):
            if old.name < target.name:
                for file in old.iterdir():
                    file.unlink()
                old.rmdir()


class Verified:
    """Remembers what was compared."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, Path, bytes]] = []

    def __call__(
        self, stored: Path, reference: Path, weights: Path | None, probes: Sequence[RlSample], tokens: int
    ) -> float:
        assert len(probes) == 4
        source = weights or reference / "model.safetensors"
        self.calls.append(((stored / "model.safetensors").read_bytes(), reference, source.read_bytes()))
        return 0.0


def tools(trainer: FakeTrainer, verify: Verified | None = None, sent: list[int] | None = None) -> Callable[[], Tools]:
    """Tools around a fake trainer; `sent` receives the steps that reached MLflow."""

    def send(rows: Sequence[Mapping[str, float]]) -> None:
        if sent is not None:
            sent.extend(int(row["step"]) for row in rows)

    return lambda: Tools(trainer, verify or Verified(), None, send)
