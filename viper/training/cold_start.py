"""The stage `cold-start`: supervised fine-tuning on supplied samples before reinforcement learning (an ablation)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

from pydantic import BaseModel, ConfigDict, Field

from viper.engines.base import RlSample
from viper.errors import InputError, StageError
from viper.images import decode
from viper.ingest.checked import checked
from viper.jsonl import read_rows
from viper.methods.stages import COLD_START
from viper.modelcache.resolve import model_dir, policy_of
from viper.reader import read
from viper.seeds import derive
from viper.spec import IterationSpec
from viper.stage import Manifest, StageContext
from viper.store import ObjectStore
from viper.training.live import Send
from viper.training.publishing import (
    Verify,
    check_steps,
    following,
    forget,
    inputs_of,
    publish_curves,
    publish_model,
    trained_weights,
)
from viper.training.settings import SftResult, SftSettings, StepMetrics

if TYPE_CHECKING:
    from viper.training.local.sft import SftSample

_PROBES = 4


class SampleRow(BaseModel):
    """One line of a sample file; `images` are paths below the file's folder."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(min_length=1)
    images: list[str] = Field(default_factory=list, max_length=2)
    response: str = Field(min_length=1)


@dataclass(frozen=True)
class SuppliedSample:
    """A row with its images as encoded files; `sample_id` is the sha256 of all of it."""

    sample_id: str
    prompt: str
    images: tuple[bytes, ...]
    response: str


class SuppliedSamples(Sequence["SftSample"]):
    """Samples in order, images decoded on access."""

    def __init__(self, samples: Sequence[SuppliedSample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> SftSample: ...

    @overload
    def __getitem__(self, index: slice) -> SuppliedSamples: ...

    def __getitem__(self, index: int | slice) -> SftSample | SuppliedSamples:
        from viper.training.local.sft import SftSample

        if isinstance(index, slice):
            return SuppliedSamples(self._samples[index])
        s = self._samples[index]
        return SftSample(s.sample_id, s.prompt, tuple(map(decode, s.images)), s.response)


class SftTrainer(Protocol):
    """`viper.training.local.sft.train_sft`."""

    def __call__(
        self,
        model_dir: Path,
        samples: Sequence[SftSample],
        settings: SftSettings,
        work_dir: Path,
        *,
        on_step: Callable[[StepMetrics], None],
    ) -> SftResult: ...


def read_samples(uri: str) -> SuppliedSamples:
    """Reads a JSONL file of `SampleRow`s; raises `InputError` naming the lines that cannot be used."""

    def convert(store: ObjectStore, row: SampleRow) -> SuppliedSample:
        prompt, images = checked(store, row.prompt, row.response, row.images)
        if problem := read(row.response).problem:  # it would teach not to end
            raise InputError(f"the response has no answer: {problem}")
        digest = hashlib.sha256(row.model_dump_json().encode())
        for image in images:
            digest.update(hashlib.sha256(image.data).digest())
        return SuppliedSample(digest.hexdigest(), prompt, tuple(image.data for image in images), row.response)

    samples = read_rows(uri, SampleRow, convert)
    if not samples:
        raise InputError("there is no sample", where=uri, fix="give at least one row")
    return SuppliedSamples(samples)


def sft_settings(spec: IterationSpec) -> SftSettings:
    """The recipe in the trainer's words; token limits are those of the caption training."""
    cold = spec.recipe.cold_start
    if cold is None:
        raise StageError("the recipe has no cold start", where="spec.recipe.coldStart")
    limits = spec.recipe.captions.training
    return SftSettings(
        epochs=cold.epochs,
        batch=cold.batch,
        micro_batch=min(cold.batch, limits.micro_batch),
        learning_rate=cold.learning_rate,
        max_prompt_tokens=limits.max_prompt_tokens,
        max_response_tokens=limits.max_response_tokens,
        save_every=limits.save_every,
        seed=derive(spec.recipe.seed, COLD_START) % 2**31,
        threads=spec.profile.of(COLD_START).threads or None,
    )


def cold_start(ctx: StageContext, train: SftTrainer, verify: Verify, send_curves: Send) -> Manifest | None:
    """Runs the stage; like the GRPO stages it is resumable, one process, and judged by what it made."""
    spec, cold = ctx.frozen.iteration.spec, ctx.frozen.iteration.spec.recipe.cold_start
    if ctx.shard != 0 or cold is None:
        return None
    settings, samples = sft_settings(spec), read_samples(cold.samples_uri)
    start, work_dir = model_dir(ctx, policy_of(ctx)), ctx.work_dir / "sft"
    steps = settings.total_steps(len(samples))
    with following(ctx, work_dir, send_curves, steps) as on_step:
        result = train(start, samples, settings, work_dir, on_step=on_step)
    check_steps(result.history, result.steps, steps, work_dir)
    probes = [RlSample(s.sample_id, s.prompt, s.images, ()) for s in samples[:_PROBES]]
    model = publish_model(
        ctx,
        result.model_dir,
        trained_weights(start, work_dir, steps, result.model_dir),
        probes,
        tokens=settings.max_prompt_tokens,
        verify=verify,
    )
    curves = publish_curves(ctx, result.history)
    manifest = ctx.finish(
        inputs_of(ctx.frozen.node(ctx.stage)),
        outputs={"model": model, "steps": result.steps, "curves": curves, "samples": {"train": len(samples)}},
    )
    forget(ctx, work_dir)
    return manifest
