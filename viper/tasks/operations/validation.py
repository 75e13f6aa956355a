"""The stage `validate-operations`: CLIP-score filter, then the judge, then duplicates, quota and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from viper.methods.stages import INGEST, SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS
from viper.modelcache.engines import StageEngines
from viper.stage import Manifest, PartRecord, StageContext
from viper.stage.context import in_order
from viper.stage.phases import Claims, Drafts, run_phases
from viper.stage.quota import Quota
from viper.stage.rows import Int32, schema_of
from viper.tasks.card import CONTROLS, CONTROLS_ACCEPTED, write_card
from viper.tasks.dataset import Figures, Selection
from viper.tasks.operations.balance import quotas
from viper.tasks.operations.edits import EditFilters, Verdicts
from viper.tasks.operations.synthesis import OperationRow
from viper.tasks.text import comparable


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSample:
    """A validated sample. `image` and `edited` (encoded) are empty in rejected rows; they are found under `image_id`
    in ingest-images and `sample_id` in synthesize-operations."""

    sample_id: str
    image_id: str
    image: bytes = b""
    edited: bytes
    category: str
    entity: str
    instruction: str
    changed: float
    clip_score: float
    votes: Int32
    votes_valid: Int32
    judge_reason: str
    split: str = ""
    passport: str
    accepted: bool = False
    reason: str


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
                _decide(selection, row, verdict)
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
            for row in ctx.read(VALIDATE_OPERATIONS, record, OperationSample, _light):
                selection.recall(row, _key(row), row.category)
                _measure(row, figures)
            continue
        rows = filters.rows(part)
        if part < parts and not selection.full:
            verdicts = judged.verdicts(part)
        else:
            verdicts = [Verdicts(row.sample_id, changed=0.0, clip_score=0.0, reason="over-quota") for row in rows]
        decided = [_decide(selection, row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
        originals = filters.originals(part)
        made = [_with_pictures(row, originals) for row in decided]
        seconds, counters = judged.seconds(part), _counters(decided, verdicts)
        ctx.write_part(part, made, schema_of(OperationSample), seconds=seconds, counters=counters, ordered=True)
        for row in decided:
            _measure(row, figures)
    sources = (INGEST, SYNTHESIZE_OPERATIONS)
    templates = ("category", "instruction", "judge")
    outputs = write_card(ctx, sources, templates, figures.summary())
    return ctx.finish(sources, parts=len(judged.edits), outputs=outputs)


def _decide(selection: Selection, row: OperationRow, verdict: Verdicts) -> OperationSample:
    sample = OperationSample(
        sample_id=row.sample_id,
        image_id=row.image_id,
        edited=row.edited,
        category=row.category,
        entity=row.entity,
        instruction=row.instruction,
        changed=verdict.changed,
        clip_score=verdict.clip_score,
        votes=verdict.votes,
        votes_valid=verdict.votes_valid,
        judge_reason=verdict.judge_reason,
        passport=row.passport,
        reason=verdict.reason,
    )
    return selection.decide(sample, _key(sample), sample.category)


def _with_pictures(row: OperationSample, originals: Mapping[str, bytes]) -> OperationSample:
    """Both images of a sample; none for a rejected edit."""
    return replace(row, image=originals[row.image_id]) if row.accepted else replace(row, edited=b"")


def _light(row: OperationSample) -> tuple[object, ...]:
    """What later parts, and the card, follow from."""
    return row.image_id, row.category, row.instruction, row.clip_score, row.accepted


def _key(row: OperationSample) -> Hashable:
    """The same instruction for the same image is the same lesson."""
    return row.image_id, comparable(row.instruction)


def _counters(rows: Sequence[OperationSample], verdicts: Sequence[Verdicts]) -> dict[str, int]:
    counters: Counter[str] = Counter({"train": 0, "held_out": 0})
    for row, verdict in zip(rows, verdicts, strict=True):
        counters["judge.attempts"] += verdict.attempts
        if verdict.control is not None:
            counters[CONTROLS] += 1
            counters[CONTROLS_ACCEPTED] += verdict.control
        if row.accepted:
            counters[row.split] += 1
            counters[f"accepted.{row.category}"] += 1
    return counters


def _measure(row: OperationSample, figures: Figures) -> None:
    figures.count("Candidates by category", row.category)
    figures.measure("CLIP score of candidates", row.clip_score)
    if row.accepted:
        figures.image(row.image_id)
        figures.count("Samples by category", row.category)
        figures.measure("CLIP score of samples", row.clip_score)
        figures.measure("characters per instruction", len(row.instruction))
