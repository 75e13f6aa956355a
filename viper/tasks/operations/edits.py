"""The phases of `validate-operations`: what changed and the CLIP score, then the judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

from PIL import Image

from viper.images import decode
from viper.methods.stages import SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS
from viper.modelcache.engines import StageEngines
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.stage import PartRecord, StageContext
from viper.stage.phases import Draft, Drafts, Gathered, Phase, Piece
from viper.tasks.operations.clip_filter import change_problem, changed_share, clip_problem, clip_scores, threshold
from viper.tasks.operations.judge import Judgement, judge
from viper.tasks.operations.synthesis import OperationRow
from viper.tasks.pool import Pool, batches
from viper.tasks.text import comparable

#: Edits from whose scores a quantile becomes a threshold.
CALIBRATION = 256


@dataclass(frozen=True)
class Verdicts:
    """What the filters say about one edit; `reason` is empty when it passes all of them.

    `control`: whether the judge accepted the same pictures as what they are not; None when it was not asked.
    """

    sample_id: str
    changed: float
    clip_score: float
    votes: int = 0
    votes_valid: int = 0
    attempts: int = 0
    judge_reason: str = ""
    reason: str = ""
    control: bool | None = None


@dataclass(frozen=True)
class Edit:
    """A candidate. `place`: among the accepted edits of its part; `reason`: why it failed before the judge."""

    place: int
    row: OperationRow
    original: Image.Image
    edited: Image.Image
    reason: str = ""


@dataclass(frozen=True)
class Edits:
    """Edits of a chunk."""

    number: int
    edits: Sequence[Edit]


class EditFilters:
    """The filters, over all edits of a part; a verdict is a function of the frozen iteration, the edit and its part."""

    def __init__(self, ctx: StageContext, engines: StageEngines, source: Sequence[PartRecord], drafts: Drafts) -> None:
        self._ctx, self._engines, self._source, self._drafts = ctx, engines, source, drafts
        self._pool = Pool(ctx)
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._prompts = PromptSet.load(self._recipe.prompts)
        self.phases: tuple[Phase[Any], ...] = (
            Phase("clip", "image_similarity", self._to_compare, self._compare),
            Phase("judge", "judge", self._to_judge, self._judge),
        )

    def rows(self, part: int) -> list[OperationRow]:
        """Accepted edits of a part of the synthesis, in order."""
        found = self._ctx.read(SYNTHESIZE_OPERATIONS, self._source[part], OperationRow, _passed_on)
        return [row for row in found if row.accepted]

    def originals(self, part: int) -> dict[str, bytes]:
        """Encoded originals of a part by image id."""
        return {image.image_id: image.data for image in self._pool.part(part)}

    def verdicts(self, gathered: Gathered) -> list[Verdicts]:
        """The verdicts on the edits of a part, in order."""
        first, second = gathered["clip"], gathered["judge"]
        return [Verdicts(**{**first[place].data, **second[place].data}) for place in sorted(first)]

    def accepted(self, part: int) -> int | None:
        """Edits of a part that passed all filters; None while that is not known."""
        judged, _ = self._drafts.read(part, "judge")
        if len(judged) < self._source[part].accepted:
            return None
        return sum(not draft.data["reason"] for draft in judged.values())

    # ---- chunks --------------------------------------------------------------------------------------------------

    def _chunks(self, part: int) -> Iterator[tuple[int, list[str], int]]:
        """Number, image ids and edits of each chunk."""
        source = self._source[part]
        rows = self._ctx.read(SYNTHESIZE_OPERATIONS, source, OperationRow, lambda r: (r.image_id, r.accepted))
        count: dict[str, int] = defaultdict(int)
        for row in rows:
            count[row.image_id] += row.accepted
        images = [image for image in self._pool.part(part) if count[image.image_id]]
        for number, batch in enumerate(batches(images, 1 + max(count.values(), default=0))):
            yield number, [image.image_id for image in batch], sum(count[image.image_id] for image in batch)

    def _edits(self, part: int, number: int, image_ids: Sequence[str], skip: Callable[[int], bool]) -> Edits:
        wanted, encoded = set(image_ids), self.originals(part)
        originals: dict[str, Image.Image] = {}
        edits = []
        for place, row in enumerate(self.rows(part)):
            if row.image_id in wanted and not skip(place):
                original = originals.setdefault(row.image_id, decode(encoded[row.image_id]))
                edits.append(Edit(place, row, original, decode(row.edited)))
        return Edits(number, edits)

    # ---- what changed, CLIP --------------------------------------------------------------------------------------

    def _to_compare(self, part: int) -> Iterator[Piece[Edits]]:
        for number, image_ids, edits in self._chunks(part):
            load = partial(self._edits, part, number, image_ids, lambda place: False)
            yield Piece(f"{number:04d}", edits, load)

    def _compare(self, part: int, chunk: Edits) -> list[Draft]:
        limits = self._recipe.validation
        shares = [changed_share(edit.original, edit.edited) for edit in chunk.edits]
        scores = self._scores(chunk.edits)
        drafts = []
        for edit, share, score in zip(chunk.edits, shares, scores, strict=True):
            same = edit.original.size == edit.edited.size and edit.original.tobytes() == edit.edited.tobytes()
            reason = "unchanged" if same else change_problem(share, limits.change)
            reason = reason or clip_problem(score, limits.clip, self._lowest)
            found = Verdicts(edit.row.sample_id, share, score, reason=reason)
            drafts.append(Draft(edit.place, asdict(found)))
        return drafts

    def _scores(self, edits: Sequence[Edit]) -> list[float]:
        return clip_scores(
            self._engines.image_similarity, [edit.original for edit in edits], [edit.edited for edit in edits]
        )

    @cached_property
    def _lowest(self) -> float:
        """The lowest CLIP score that passes; by the first edits of the stage, so the same for every shard."""
        limits = self._recipe.validation.clip
        scores: list[float] = []
        for part in range(len(self._source) if limits.min_quantile is not None else 0):
            for number, image_ids, _ in self._chunks(part):
                if len(scores) < CALIBRATION:
                    scores += self._scores(self._edits(part, number, image_ids, lambda place: False).edits)
            if len(scores) >= CALIBRATION:
                break
        return threshold(scores[:CALIBRATION], limits)

    # ---- judge ---------------------------------------------------------------------------------------------------

    def _to_judge(self, part: int) -> Iterator[Piece[Edits]]:
        for number, image_ids, edits in self._chunks(part):
            yield Piece(f"{number:04d}", edits, partial(self._compared, part, number, image_ids))

    def _compared(self, part: int, number: int, image_ids: Sequence[str]) -> Edits:
        """All edits of the chunk; those that failed already keep their pictures, as controls of the others."""
        compared, _ = self._drafts.read(part, "clip", f"{number:04d}")
        edits = self._edits(part, number, image_ids, lambda place: place not in compared)
        return Edits(number, [replace(edit, reason=compared[edit.place].data["reason"]) for edit in edits.edits])

    def _judge(self, part: int, chunk: Edits) -> list[Draft]:
        settings = self._recipe.validation.judge
        passed = [edit for edit in chunk.edits if not edit.reason]
        controls = {edit.place: control_of(edit, chunk.edits) for edit in passed if self._controlled(edit)}
        shown = [(edit.original, edit.edited, edit.row.instruction) for edit in passed]
        seed = partial(derive, self._recipe.seed, VALIDATE_OPERATIONS, part, chunk.number, "judge")
        found: list[Judgement] = []
        if shown:
            found = judge(self._engines.judge, self._prompts, [*shown, *controls.values()], settings, seed)
        judged = dict(zip((edit.place for edit in passed), found[: len(passed)], strict=True))
        fooled = dict(zip(controls, found[len(passed) :], strict=True))
        return [Draft(edit.place, _said(edit, judged, fooled)) for edit in chunk.edits]

    def _controlled(self, edit: Edit) -> bool:
        drawn = derive(self._recipe.seed, VALIDATE_OPERATIONS, "control", edit.row.sample_id)
        return (drawn % 10_000) / 10_000 < self._recipe.validation.judge.controls


def _passed_on(row: OperationRow) -> tuple[object, ...]:
    """What is read of a candidate: all that its sample has."""
    said = row.category, row.entity, row.instruction
    return row.sample_id, row.image_id, *said, row.edited, row.passport, row.accepted


def control_of(edit: Edit, others: Sequence[Edit]) -> tuple[Image.Image, Image.Image, str]:
    """Pictures and an instruction that do not belong together: this edit with an instruction for another image; where
    there is none, the unedited image twice with its own instruction."""
    own = comparable(edit.row.instruction)
    for other in others:
        if other.row.image_id != edit.row.image_id and comparable(other.row.instruction) != own:
            return edit.original, edit.edited, other.row.instruction
    return edit.original, edit.original, edit.row.instruction


def _said(edit: Edit, judged: Mapping[int, Judgement], fooled: Mapping[int, Judgement]) -> dict[str, Any]:
    """What the judge adds to the verdicts on an edit."""
    if (found := judged.get(edit.place)) is None:
        return {"reason": edit.reason}
    control = fooled.get(edit.place)
    return {
        "votes": found.votes,
        "votes_valid": found.valid,
        "attempts": found.attempts,
        "judge_reason": found.reason,
        "reason": found.problem,
        "control": None if control is None else not control.problem,
    }
