"""From validated samples to RL data: prompts rendered, ground truth as sentences, images decoded when they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from viper.engines.base import RlSample
from viper.errors import StageError
from viper.images import lazily
from viper.methods.stages import Stage, StageNode
from viper.prompts import PromptSet
from viper.reward.sentences import split_sentences
from viper.stage import StageContext
from viper.tasks.captions.validation import CaptionSample
from viper.tasks.dataset import D
from viper.tasks.external.ingest import ExternalSample
from viper.tasks.operations.validation import OperationSample

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedSample:
    """An `RlSample` whose images are still encoded files: 7,000 of them fit into memory, their pixels do not."""

    sample_id: str
    prompt: str
    images: tuple[bytes, ...]
    ground_truth: tuple[str, ...]
    task: str
    image_id: str
    #: Digest of the checkpoint that wrote the sample; empty when its row has no passport.
    generator: str = ""

    def decoded(self) -> RlSample:
        """With images as Pillow opens them: their pixels are read on first use."""
        extra = {"task": self.task, "image_id": self.image_id}
        return RlSample(self.sample_id, self.prompt, tuple(map(lazily, self.images)), self.ground_truth, extra)


class RlDataset(Sequence[RlSample]):
    """Samples in order; every access gives fresh, lazily decoded images."""

    def __init__(self, samples: Sequence[EncodedSample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> RlSample: ...

    @overload
    def __getitem__(self, index: slice) -> RlDataset: ...

    def __getitem__(self, index: int | slice) -> RlSample | RlDataset:
        if isinstance(index, slice):
            return RlDataset(self._samples[index])
        return self._samples[index].decoded()

    def __iter__(self) -> Iterator[RlSample]:
        return (sample.decoded() for sample in self._samples)

    @property
    def encoded(self) -> Sequence[EncodedSample]:
        """The samples with their images as files."""
        return self._samples


@dataclass(frozen=True)
class Split:
    """What is trained on, and what never is."""

    train: RlDataset
    held_out: RlDataset


def caption_sample(row: CaptionSample, prompts: PromptSet) -> EncodedSample:
    """Task 1 of a `validate-captions` row: image and caption C_g → the flaws R."""
    prompt = prompts.render("caption_refining", caption=row.caption)
    return _encoded(row, "captions", prompt, (row.image,), row.refinement)


def operation_sample(row: OperationSample, prompts: PromptSet) -> EncodedSample:
    """Task 2 of a `validate-operations` row: original and edited image → the instruction, as sentences."""
    prompt, truth = prompts.render("operation_predicting"), split_sentences(row.instruction)
    return _encoded(row, "operations", prompt, (row.image, row.edited), truth)


def external_sample(row: ExternalSample, prompts: PromptSet) -> EncodedSample:
    """A supplied row of `ingest-samples`: its question in the form in which questions are asked, its own answer."""
    return _encoded(row, "external", prompts.render("question", question=row.prompt), row.images, row.ground_truth)


def _encoded(
    row: CaptionSample | OperationSample | ExternalSample,
    task: str,
    prompt: str,
    images: Sequence[bytes],
    truth: Sequence[str],
) -> EncodedSample:
    generator = str(json.loads(row.passport)["models"].get("generator", "")) if row.passport else ""
    return EncodedSample(row.sample_id, prompt, tuple(images), tuple(truth), task, row.image_id, generator)


@dataclass(frozen=True)
class _Source(Generic[D]):
    """How the rows of a data stage become samples; `lesson`: the columns that not every one has."""

    row: type[D]
    lesson: Callable[[D], tuple[object, ...]]
    make: Callable[[D, PromptSet], EncodedSample]

    def columns(self, row: Any) -> tuple[object, ...]:
        """What is read of a row."""
        return row.sample_id, row.image_id, row.split, row.passport, row.accepted, *self.lesson(row)


#: By the task that the rows are for.
_SOURCES: dict[str, _Source[Any]] = {
    "captions": _Source(CaptionSample, lambda r: (r.image, r.caption, r.refinement), caption_sample),
    "operations": _Source(OperationSample, lambda r: (r.image, r.edited, r.instruction), operation_sample),
    "external": _Source(ExternalSample, lambda r: (r.images, r.prompt, r.ground_truth), external_sample),
}


def training_data(ctx: StageContext, node: StageNode, prompts: PromptSet) -> Split:
    """The accepted rows of every data stage of a training stage, several of them interleaved evenly.

    Raises:
        StageError: a stage's rows are for no task that is known here; a row has no ground truth, or a split that is
            neither `train` nor `held_out`.
    """
    splits: dict[str, list[list[EncodedSample]]] = {"train": [], "held_out": []}
    for stage in node.data:
        source = _source(ctx.frozen.node(stage).stage)
        groups: dict[str, list[EncodedSample]] = {"train": [], "held_out": []}
        for row in _accepted(ctx, stage, source):
            sample = source.make(row, prompts)
            if not sample.ground_truth or row.split not in groups:
                what = f"has the split {row.split!r}" if sample.ground_truth else "has no ground truth"
                raise StageError(f"sample {sample.sample_id} {what}", where=f"{ctx.store.uri}, {stage}")
            groups[row.split].append(sample)
        for name, samples in groups.items():
            splits[name].append(samples)
    train, held_out = (RlDataset(interleave(*splits[name])) for name in ("train", "held_out"))
    return Split(train, held_out)


def _source(stage: Stage) -> _Source[Any]:
    if stage.task not in _SOURCES:
        raise StageError(f"its task {stage.task!r} is none to learn from: {', '.join(_SOURCES)}", where=stage.name)
    return _SOURCES[stage.task]


def _accepted(ctx: StageContext, stage: str, source: _Source[D]) -> Iterator[D]:
    for part in ctx.manifest(stage).parts:
        yield from (row for row in ctx.read(stage, part, source.row, source.columns) if row.accepted)


def interleave(*sources: Sequence[T]) -> list[T]:
    """All items, each source in its own order and spread evenly over the whole."""
    placed = [
        ((position + 0.5) / len(source), number, item)
        for number, source in enumerate(sources)
        for position, item in enumerate(source)
    ]
    return [item for *_, item in sorted(placed, key=lambda p: p[:2])]
