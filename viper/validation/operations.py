"""The stage `validate-operations`: CLIP-score filter, then the judge, then duplicates, quota and split."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from viper.errors import NotFoundError
from viper.images import decode
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.spec.stages import INGEST, SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS
from viper.stage import Manifest, PartRecord, StageContext
from viper.stage.context import Row
from viper.synthesis.balance import quotas
from viper.synthesis.engines import StageEngines
from viper.synthesis.pool import Pool, PoolImage, batches
from viper.synthesis.text import comparable
from viper.validation.card import write_card
from viper.validation.clip_filter import clip_problem, clip_scores
from viper.validation.dataset import Figures, Selection
from viper.validation.judge import judge

if TYPE_CHECKING:
    import pyarrow as pa

#: Model calls per edit, for progress: CLIP, judge.
STEPS = 2


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


@dataclass(frozen=True)
class Verdicts:
    """What the two filters say about one edit; `reason` is empty when it passes both."""

    sample_id: str
    clip_score: float
    votes: int = 0
    votes_valid: int = 0
    attempts: int = 0
    judge_reason: str = ""
    reason: str = ""


def validate_operations(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage.

    Shards ask the filters about their own parts and leave drafts of the verdicts; as the quota depends on all samples
    before, the shard that finds all verdicts there writes the parts in order. A single shard needs no drafts.
    """
    source = ctx.manifest(SYNTHESIZE_OPERATIONS)
    filters = EditFilters(ctx, engines or StageEngines(ctx), source.parts)
    edits = sum(p.accepted for p in source.parts[ctx.shard :: ctx.shards])
    ctx.progress.begin("edits", STEPS * edits)
    if ctx.shards > 1 and not _draft_verdicts(ctx, filters, source.parts):
        return None
    recipe = ctx.frozen.iteration.spec.recipe
    operations = recipe.operations
    limits = quotas(operations.samples, operations.category_balance.targets)
    selection = Selection(
        operations.samples,
        recipe.validation.held_out_share,
        limits if operations.category_balance.mode == "targets" else None,
    )
    figures = Figures()
    for part in source.parts:
        started, record = ctx.clock(), ctx.part(part.index)
        if record is not None:
            rows = ctx.table(VALIDATE_OPERATIONS, record, [n for n in schema().names if n not in _BINARY]).to_pylist()
            for row in rows:
                selection.recall(row, _key(row), row["category"])
            if ctx.shards == 1:
                ctx.progress.advance(STEPS * len(rows))
        else:
            verdicts = _drafted(ctx, part.index) if ctx.shards > 1 else None
            rows = filters.rows(part.index, verdicts or filters.verdicts(part.index), selection)
            ctx.write_part(part.index, rows, schema(), seconds=ctx.clock() - started, counters=_counters(rows))
        for row in rows:
            _measure(row, figures)
    sources = (INGEST, SYNTHESIZE_OPERATIONS)
    templates = ("category", "instruction", "judge")
    outputs = write_card(ctx, sources, templates, figures.summary())
    return ctx.finish(sources, parts=len(source.parts), outputs=outputs)


_BINARY = ("image", "edited")


class EditFilters:
    """Both filters, over one part at a time."""

    def __init__(self, ctx: StageContext, engines: StageEngines, source: Sequence[PartRecord]) -> None:
        self._ctx, self._engines, self._source = ctx, engines, source
        self._pool = Pool(ctx)
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._prompts = PromptSet.load(self._recipe.prompts)
        self._read: tuple[int, list[PoolImage], list[Row]] | None = None

    def verdicts(self, index: int) -> list[Verdicts]:
        """A verdict on each edit of a part, in order."""
        images, rows = self._part(index)
        by_image: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_image[row["image_id"]].append(row)
        found: dict[str, Verdicts] = {}
        most = max(map(len, by_image.values()), default=0)
        for number, batch in enumerate(batches([i for i in images if i.image_id in by_image], 1 + most)):
            originals = {image.image_id: image.decode() for image in batch}
            edits = [row for image in batch for row in by_image[image.image_id]]
            seed = partial(derive, self._recipe.seed, VALIDATE_OPERATIONS, index, number, "judge")
            for verdict in self._filter(originals, edits, seed):
                found[verdict.sample_id] = verdict
        return [found[row["sample_id"]] for row in rows]

    def _filter(self, originals: Mapping[str, Image.Image], rows: Sequence[Row], seed: Any) -> list[Verdicts]:
        validation = self._recipe.validation
        before = [originals[row["image_id"]] for row in rows]
        after = [decode(row["edited"]) for row in rows]
        verdicts = []
        scores = clip_scores(self._engines.image_similarity, before, after)
        for row, original, edited, score in zip(rows, before, after, scores, strict=True):
            same = original.size == edited.size and original.tobytes() == edited.tobytes()
            verdicts.append(Verdicts(row["sample_id"], score, reason=clip_problem(score, same, validation.clip)))
        self._ctx.progress.advance(len(rows))
        passed = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
        if passed:
            edits = [(before[i], after[i], rows[i]["instruction"]) for i in passed]
            judgements = judge(self._engines.judge, self._prompts, edits, validation.judge, seed)
            for i, j in zip(passed, judgements, strict=True):
                verdicts[i] = Verdicts(
                    rows[i]["sample_id"], scores[i], j.votes, j.valid, j.attempts, j.reason, j.problem
                )
        self._ctx.progress.advance(len(rows))
        return verdicts

    def rows(self, index: int, verdicts: Sequence[Verdicts], selection: Selection) -> list[Row]:
        """The rows of a part of this stage."""
        images, rows = self._part(index)
        originals = {image.image_id: image.data for image in images}
        made = []
        for row, verdict in zip(rows, verdicts, strict=True):
            decided = selection.decide(row | asdict(verdict), _key(row), row["category"])
            binary = {"image": originals[row["image_id"]]} if decided["accepted"] else {"image": b"", "edited": b""}
            made.append(decided | binary)
        return made

    def _part(self, index: int) -> tuple[list[PoolImage], list[Row]]:
        """Images and accepted edits of a part, read once for verdicts and rows."""
        if self._read is None or self._read[0] != index:
            columns = ["sample_id", "image_id", "category", "entity", "instruction", "edited", "passport", "accepted"]
            rows = self._ctx.table(SYNTHESIZE_OPERATIONS, self._source[index], columns).to_pylist()
            self._read = index, self._pool.part(index), [row for row in rows if row["accepted"]]
        return self._read[1:]


def _draft_key(ctx: StageContext, index: int) -> str:
    return f"{ctx.prefix}/drafts/{index:05d}.json"


def _drafted(ctx: StageContext, index: int) -> list[Verdicts] | None:
    try:
        return [Verdicts(**verdict) for verdict in json.loads(ctx.store.get(_draft_key(ctx, index)))]
    except NotFoundError:
        return None


def _draft_verdicts(ctx: StageContext, filters: EditFilters, parts: Sequence[PartRecord]) -> bool:
    """Leaves the verdicts on this shard's parts; True when those of all parts are there."""
    there = {info.key for info in ctx.store.list(f"{ctx.prefix}/drafts/")}
    for part in parts[ctx.shard :: ctx.shards]:
        if (key := _draft_key(ctx, part.index)) in there:
            ctx.progress.advance(STEPS * part.accepted)
        else:
            drafts = [asdict(verdict) for verdict in filters.verdicts(part.index)]
            ctx.store.put(key, (json.dumps(drafts, indent=0) + "\n").encode())
    there = {info.key for info in ctx.store.list(f"{ctx.prefix}/drafts/")}
    return all(_draft_key(ctx, part.index) in there for part in parts)


def _key(row: Row) -> Hashable:
    """The same instruction for the same image is the same lesson."""
    return row["image_id"], comparable(row["instruction"])


def _counters(rows: Sequence[Row]) -> dict[str, int]:
    counters: Counter[str] = Counter({"train": 0, "held_out": 0})
    for row in rows:
        counters["judge.attempts"] += row["attempts"]
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
