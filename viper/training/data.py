"""From validated samples to RL data: prompts rendered, ground truth as sentences, images decoded when they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from viper.engines.base import RlSample
from viper.errors import StageError
from viper.images import lazily
from viper.methods.stages import INGEST_SAMPLES, VALIDATE_CAPTIONS, VALIDATE_OPERATIONS, StageNode
from viper.prompts import PromptSet
from viper.reward.sentences import split_sentences
from viper.stage import StageContext

Row = Mapping[str, Any]
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


def caption_sample(row: Row, prompts: PromptSet) -> EncodedSample:
    """Task 1 of a `validate-captions` row: image and caption C_g → the flaws R."""
    return EncodedSample(
        sample_id=row["sample_id"],
        prompt=prompts.render("caption_refining", caption=row["caption"]),
        images=(row["image"],),
        ground_truth=tuple(row["refinement"]),
        task="captions",
        image_id=row["image_id"],
        generator=_generator(row),
    )


def operation_sample(row: Row, prompts: PromptSet) -> EncodedSample:
    """Task 2 of a `validate-operations` row: original and edited image → the instruction, as sentences."""
    return EncodedSample(
        sample_id=row["sample_id"],
        prompt=prompts.render("operation_predicting"),
        images=(row["image"], row["edited"]),
        ground_truth=split_sentences(row["instruction"]),
        task="operations",
        image_id=row["image_id"],
        generator=_generator(row),
    )


def external_sample(row: Row, prompts: PromptSet) -> EncodedSample:
    """A supplied row of `ingest-samples`: its question in the form in which questions are asked, its own answer."""
    return EncodedSample(
        sample_id=row["sample_id"],
        prompt=prompts.render("question", question=row["prompt"]),
        images=tuple(row["images"]),
        ground_truth=tuple(row["ground_truth"]),
        task="external",
        image_id=row["image_id"],
        generator=_generator(row),
    )


_COMMON = ("sample_id", "image_id", "image", "split", "passport")
_TASKS: dict[str, tuple[tuple[str, ...], Callable[[Row, PromptSet], EncodedSample]]] = {
    VALIDATE_CAPTIONS: ((*_COMMON, "caption", "refinement"), caption_sample),
    VALIDATE_OPERATIONS: ((*_COMMON, "edited", "instruction"), operation_sample),
    INGEST_SAMPLES: (
        ("sample_id", "image_id", "images", "prompt", "ground_truth", "split", "passport"),
        external_sample,
    ),
}


def training_data(ctx: StageContext, node: StageNode, prompts: PromptSet) -> Split:
    """The accepted rows of every data stage of a training stage, several of them interleaved evenly.

    Raises:
        StageError: a row has no ground truth, or a split that is neither `train` nor `held_out`.
    """
    splits: dict[str, list[list[EncodedSample]]] = {"train": [], "held_out": []}
    for stage in node.data:
        columns, make = _TASKS[stage]
        groups: dict[str, list[EncodedSample]] = {"train": [], "held_out": []}
        for row in ctx.rows(stage, columns):
            sample = make(row, prompts)
            if not sample.ground_truth or row["split"] not in groups:
                what = f"has the split {row['split']!r}" if sample.ground_truth else "has no ground truth"
                raise StageError(f"sample {sample.sample_id} {what}", where=f"{ctx.store.uri}, {stage}")
            groups[row["split"]].append(sample)
        for name, samples in groups.items():
            splits[name].append(samples)
    train, held_out = (RlDataset(interleave(*splits[name])) for name in ("train", "held_out"))
    return Split(train, held_out)


def interleave(*sources: Sequence[T]) -> list[T]:
    """All items, each source in its own order and spread evenly over the whole."""
    placed = [
        ((position + 0.5) / len(source), number, item)
        for number, source in enumerate(sources)
        for position, item in enumerate(source)
    ]
    return [item for *_, item in sorted(placed, key=lambda p: p[:2])]


def _generator(row: Row) -> str:
    passport = row.get("passport")
    return str(json.loads(passport)["models"].get("generator", "")) if passport else ""
