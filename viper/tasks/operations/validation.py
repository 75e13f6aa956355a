"""The stage `validate-operations`: CLIP-score filter, then the judge, then duplicates, quota and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from viper.methods.stages import INGEST, SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS
from viper.modelcache.engines import StageEngines
from viper.stage import Manifest, PartRecord, StageContext
from viper.stage.context import Row, in_order
from viper.stage.phases import Claims, Drafts, run_phases
from viper.stage.quota import Quota
from viper.tasks.card import CONTROLS, CONTROLS_ACCEPTED, write_card
from viper.tasks.dataset import Figures, Selection
from viper.tasks.operations.balance import quotas
from viper.tasks.operations.edits import EditFilters, Verdicts
from viper.tasks.text import comparable

if TYPE_CHECKING:
    import pyarrow as pa


#: What later parts, and the card, follow from.
_LIGHT = ("image_id", "category", "instruction", "clip_score", "accepted")


def schema() -> pa.Schema:
    """Columns of the stage. `image` and `edited` (encoded) are empty in rejected rows; they are found under `image_id`
    in ingest-images and `sample_id` in synthesize-operations."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("image_id", pa.string()),
            ("image", pa.binary()),
            ("edited", pa.binary()),
            ("category", pa.string()),
            ("entity", pa.string()),
            ("instruction", pa.string()),
            ("changed", pa.float64()),
            ("clip_score", pa.float64()),
            ("votes", pa.int32()),
            ("votes_valid", pa.int32()),
            ("judge_reason", pa.string()),
            ("split", pa.string()),
            ("passport", pa.string()),
            ("accepted", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


def validate_operations(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage.

    Shards ask the filters about parts and leave drafts of the verdicts. As the quota depends on all samples before, a
    shard that finds the verdicts it takes to fill the quota writes the parts, in order; what comes after is not judged.
    """
    source = ctx.manifest(SYNTHESIZE_OPERATIONS)
    engines, drafts = engines or StageEngines(ctx), Drafts(ctx)
    filters = EditFilters(ctx, engines, source.parts, drafts)
    engines.check(*(phase.role for phase in filters.phases))
    judged = _Judged(ctx, engines, filters, drafts, [part.accepted for part in source.parts])
    target = ctx.frozen.iteration.spec.recipe.operations.samples
    while True:
        parts = judged.until(target)
        if parts is None:
            return None
        selection = _selection(ctx)
        for part in range(parts):
            for row, verdict in zip(filters.rows(part), judged.verdicts(part), strict=True):
                selection.decide(row | asdict(verdict), _key(row), row["category"])
        if selection.full or parts == len(source.parts):
            break
        target += selection.missing  # duplicates, or a category that was full
    return in_order(lambda: _write(ctx, filters, judged, parts))


def _selection(ctx: StageContext) -> Selection:
    recipe = ctx.frozen.iteration.spec.recipe
    operations = recipe.operations
    steered = operations.category_balance.mode == "targets"
    limits = quotas(operations.samples, operations.category_balance.targets) if steered else None
    return Selection(operations.samples, recipe.validation.held_out_share, limits)


@dataclass(frozen=True)
class _Judged:
    """Verdicts on all edits of the first parts, made by all shards."""

    ctx: StageContext
    engines: StageEngines
    filters: EditFilters
    drafts: Drafts
    edits: Sequence[int]

    def until(self, target: int) -> int | None:
        """Judges parts until so many edits passed. Returns after how many parts that is; None while other shards are
        at work on theirs."""
        claims, quota = Claims(self.ctx), Quota(target, self.edits)
        done: dict[int, PartRecord] = {}
        while True:
            for part in range(len(self.edits)):
                if part not in done and (passed := self.filters.accepted(part)) is not None:
                    done[part] = PartRecord(index=part, key="", digest="", rows=self.edits[part], accepted=passed)
            if (parts := quota.complete(done)) is not None:
                return parts
            mine = claims.take([part for part in range(quota.wanted(done)) if part not in done])
            if not mine:
                return None
            run_phases(self.ctx, self.engines, self.drafts, self.filters.phases, {i: self.edits[i] for i in mine})

    def verdicts(self, part: int) -> list[Verdicts]:
        """The verdicts on a part's edits, in order."""
        return self.filters.verdicts({p.name: self.drafts.read(part, p.name)[0] for p in self.filters.phases})

    def seconds(self, part: int) -> float:
        """Time that the filters spent on a part."""
        return sum(self.drafts.read(part, phase.name)[1] for phase in self.filters.phases)


def _write(ctx: StageContext, filters: EditFilters, judged: _Judged, parts: int) -> Manifest | None:
    """The parts in order, the card, the manifest."""
    selection, figures = _selection(ctx), Figures()
    for part in range(len(judged.edits)):
        if (record := ctx.part(part)) is not None:
            there = ctx.table(VALIDATE_OPERATIONS, record, _LIGHT).to_pylist()
            for row in there:
                selection.recall(row, _key(row), row["category"])
                _measure(row, figures)
            continue
        rows = filters.rows(part)
        if part < parts and not selection.full:
            verdicts = judged.verdicts(part)
            decided = [
                selection.decide(row | asdict(verdict), _key(row), row["category"])
                for row, verdict in zip(rows, verdicts, strict=True)
            ]
        else:
            nothing = asdict(Verdicts("", changed=0.0, clip_score=0.0, reason="over-quota"))
            decided = [selection.decide(row | nothing | {"sample_id": row["sample_id"]}, _key(row)) for row in rows]
        originals = filters.originals(part)
        made = [row | _pictures(row, originals) for row in decided]
        seconds = judged.seconds(part)
        ctx.write_part(part, made, schema(), seconds=seconds, counters=_counters(decided), ordered=True)
        for row in decided:
            _measure(row, figures)
    sources = (INGEST, SYNTHESIZE_OPERATIONS)
    templates = ("category", "instruction", "judge")
    outputs = write_card(ctx, sources, templates, figures.summary())
    return ctx.finish(sources, parts=len(judged.edits), outputs=outputs)


def _pictures(row: Row, originals: Mapping[str, bytes]) -> Row:
    """Both images of a sample; none for a rejected edit."""
    return {"image": originals[row["image_id"]]} if row["accepted"] else {"image": b"", "edited": b""}


def _key(row: Row) -> Hashable:
    """The same instruction for the same image is the same lesson."""
    return row["image_id"], comparable(row["instruction"])


def _counters(rows: Sequence[Row]) -> dict[str, int]:
    counters: Counter[str] = Counter({"train": 0, "held_out": 0})
    for row in rows:
        counters["judge.attempts"] += row["attempts"]
        if row["control"] is not None:
            counters[CONTROLS] += 1
            counters[CONTROLS_ACCEPTED] += row["control"]
        if row["accepted"]:
            counters[row["split"]] += 1
            counters[f"accepted.{row['category']}"] += 1
    return counters


def _measure(row: Row, figures: Figures) -> None:
    figures.count("Candidates by category", row["category"])
    figures.measure("CLIP score of candidates", row["clip_score"])
    if row["accepted"]:
        figures.image(row["image_id"])
        figures.count("Samples by category", row["category"])
        figures.measure("CLIP score of samples", row["clip_score"])
        figures.measure("characters per instruction", len(row["instruction"]))
