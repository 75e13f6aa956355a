"""Single samples of an iteration: their passport, the checkpoints that wrote them, and how their rollouts scored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from viper.errors import InputError, ViperError
from viper.jsonl import stored_lines
from viper.lineage.archive import open_iteration
from viper.lineage.records import Checkpoint, IterationRecord, VersionRecord
from viper.methods.stages import Stage, making
from viper.stage import StageContext, load_manifest

_COLUMNS = ("sample_id", "image_id", "split", "passport", "accepted", "reason")
#: What is averaged over a sample's rollouts of one step, by the name in the rollout rows.
_MEASURES = ("reward", "recall", "items", "duplicates")


@dataclass(frozen=True)
class Scores:
    """The rollouts of one sample in one step of one training stage: means over `outputs` outputs.

    `reward` is equation 7; `recall` (share of the ground truth that was hit), `items` (sentences) and `duplicates`
    (share) are measured beside it.
    """

    stage: str
    step: int
    outputs: int
    reward: float
    recall: float
    items: float
    duplicates: float


@dataclass(frozen=True)
class SampleRecord:
    """One sample. `author`: the checkpoint that wrote it; `critic`: who wrote the critique, where there was one."""

    sample_id: str
    iteration: str
    stage: str
    image_id: str
    split: str
    accepted: bool
    reason: str
    author: Checkpoint | None
    critic: Checkpoint | None
    passport: Mapping[str, Any]
    rollouts: tuple[Scores, ...] = ()
    texts: Mapping[str, Any] = field(default_factory=dict)
    image_source: str = ""

    def dump(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def samples(iteration: IterationRecord, *, everything: bool = False) -> list[SampleRecord]:
    """The samples of an iteration in the order of its data, with the scores of their rollouts.

    Args:
        everything: rejected rows too.

    Raises `StoreError`, `StageError` when the store cannot be read or a part is not what its manifest says.
    """
    reader = open_iteration(iteration.uri)
    scores, known = _scores(reader), iteration.checkpoints()
    return [
        _record(iteration.name, stage, row, known, scores.get(row["sample_id"], ()))
        for stage in _data_stages(reader)
        for row in reader.rows(stage.name, (*_COLUMNS, *stage.texts), rejected=everything)
    ]


def find_sample(version: VersionRecord, sample_id: str) -> SampleRecord:
    """One sample of the iterations of a lineage, rejected ones too, with the name of its image.

    Args:
        sample_id: the whole id or its beginning.

    Raises `InputError` when there is none, or several.
    """
    problems: list[str] = []
    for generation in version.chain():
        if generation.iteration is None:
            continue
        try:
            here = samples(generation.iteration, everything=True)
        except ViperError as error:
            problems.append(f"{generation.iteration.name} cannot be read: {error}")
            continue
        matching = {s.sample_id: s for s in here if s.sample_id.startswith(sample_id)}
        if len(matching) > 1:
            raise InputError(
                f"{len(matching)} samples of {generation.iteration.name} begin with it",
                where=sample_id,
                fix="give more of its digits: " + ", ".join(i[: len(sample_id) + 6] for i in sorted(matching)[:3]),
            )
        for sample in matching.values():
            return _with_image(generation.iteration, sample)
    raise InputError(
        "no iteration of this lineage has such a sample" + "".join(f"\n  {p}" for p in problems),
        where=sample_id,
        fix="`--samples` lists those of the version",
    )


def _with_image(iteration: IterationRecord, sample: SampleRecord) -> SampleRecord:
    reader = open_iteration(iteration.uri)
    if not reader.frozen.node(sample.stage).stage.images_beside:  # its images came with it
        return sample
    pools = making(reader.frozen.nodes, "images")
    rows = (row for pool in pools for row in reader.rows(pool.name, ["image_id", "source"]))
    source = next((str(r["source"]) for r in rows if r["image_id"] == sample.image_id), "")
    return replace(sample, image_source=source)


def _data_stages(reader: StageContext) -> Iterator[Stage]:
    """The stages whose samples are learnt from, as far as they are done."""
    for name in dict.fromkeys(name for node in reader.frozen.nodes for name in node.data):
        if load_manifest(reader.store, reader.frozen.prefix, name) is not None:
            yield reader.frozen.node(name).stage


def _record(
    iteration: str, stage: Stage, row: Mapping[str, Any], known: Mapping[str, Checkpoint], scores: Sequence[Scores]
) -> SampleRecord:
    passport = _json(row.get("passport"))
    models = passport.get("models", {})

    def by(role: str) -> Checkpoint | None:
        digest = models.get(role) if isinstance(models, Mapping) else None
        return None if digest is None else known.get(digest, Checkpoint("unknown here", str(digest)))

    return SampleRecord(
        sample_id=str(row["sample_id"]),
        iteration=iteration,
        stage=stage.name,
        image_id=str(row["image_id"]),
        split=str(row.get("split") or ""),
        accepted=bool(row["accepted"]),
        reason=str(row["reason"]),
        author=by("generator"),
        critic=by("critic"),
        passport=passport,
        rollouts=tuple(scores),
        texts={name: row[name] for name in stage.texts},
    )


def _scores(reader: StageContext) -> dict[str, list[Scores]]:
    """The scores of all rollouts by sample, in the order of training."""
    found: dict[str, list[Scores]] = {}
    for node in making(reader.frozen.nodes, "model"):
        manifest = load_manifest(reader.store, reader.frozen.prefix, node.name)
        rollouts = None if manifest is None else manifest.outputs.get("rollouts")
        if not isinstance(rollouts, str):
            continue
        lines = stored_lines(reader.store, f"{reader.frozen.prefix}/stages/{node.name}/{rollouts}")
        for sample, scores in score_table(node.name, lines).items():
            found.setdefault(sample, []).extend(scores)
    return found


def score_table(stage: str, lines: Iterable[bytes]) -> dict[str, list[Scores]]:
    """Rollout rows (JSON, one an output) by sample and step; lines that are no rollout are left out."""
    groups: dict[tuple[str, int], list[dict[str, float]]] = {}
    for line in lines:
        row = _json(line)
        if not {"step", "sample_id", "reward"} <= row.keys():
            continue
        measured = {name: float(row.get(name) or 0.0) for name in _MEASURES}
        groups.setdefault((str(row["sample_id"]), int(row["step"])), []).append(measured)
    found: dict[str, list[Scores]] = {}
    for (sample, step), outputs in sorted(groups.items()):
        means = {name: math.fsum(o[name] for o in outputs) / len(outputs) for name in _MEASURES}
        found.setdefault(sample, []).append(Scores(stage, step, len(outputs), **means))
    return found


def _json(text: str | bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
