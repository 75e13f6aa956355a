"""Task 2, visual-operation predicting: category → entity and instruction → edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from PIL import Image

from viper.engines.base import VlmRequest
from viper.images import encode_png
from viper.methods.stages import INGEST, SYNTHESIZE_CAPTIONS, SYNTHESIZE_OPERATIONS, VALIDATE_CAPTIONS
from viper.modelcache.engines import StageEngines
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.stage import Manifest, StageContext
from viper.stage.phases import Draft, Drafts, Gathered, Phase, PhasedStage, Piece, bytes_of
from viper.stage.quota import Quota, candidates
from viper.stage.rows import Int32, schema_of
from viper.tasks.captions.flawless import says_none
from viper.tasks.captions.synthesis import CHUNK, CaptionRow, chunk_name
from viper.tasks.operations.balance import steer
from viper.tasks.passport import Passport, text_digest
from viper.tasks.pictures import broken
from viper.tasks.pool import Pool, PoolImage, batches
from viper.tasks.structured import (
    CategoryChoice,
    Instruction,
    Output,
    Reply,
    ask,
    reader,
    request_schema,
    restored,
    stored,
)
from viper.tasks.text import comparable

#: Instructions are short and directly usable (paper, prompt 3); longer ones are dropped before the edit.
MAX_INSTRUCTION = 300
_TEMPLATES = ("category", "instruction")
Seed = Callable[..., int]
M = TypeVar("M", bound=Output)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """A candidate; `edited` is PNG, empty when there was no edit."""

    sample_id: str
    image_id: str
    category: str
    chosen_category: str
    steered: bool
    entity: str
    instruction: str
    edited: bytes
    editor_note: str
    attempts: Int32
    detail: str
    passport: str
    accepted: bool
    reason: str


def synthesize_operations(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage: parts until the quota is reached, then the manifest when all that it needs are there."""
    engines = engines or StageEngines(ctx)
    pool, captions = Pool(ctx), Captions(ctx)
    recipe = ctx.frozen.iteration.spec.recipe.operations
    proposals = [recipe.edits_per_image * pool.size(i) for i in range(pool.parts)]
    work = OperationSynthesis(ctx, engines, pool, captions)
    stage = PhasedStage(
        ctx,
        engines,
        work.drafts,
        work.phases,
        proposals,
        Quota(candidates(recipe.samples, recipe.expected_acceptance), proposals),
        work.assemble,
        schema_of(OperationRow),
    )
    parts = stage.run()
    return None if parts is None else ctx.finish((INGEST, *captions.inputs, *engines.inputs), parts=parts)


class Captions:
    """The refined captions of this iteration; none when operations are its only stage."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        captioned = VALIDATE_CAPTIONS in ctx.frozen.node(ctx.stage).needs
        self._manifest = ctx.manifest(SYNTHESIZE_CAPTIONS) if captioned else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The stage that the captions come from."""
        return () if self._manifest is None else (SYNTHESIZE_CAPTIONS,)

    def part(self, index: int) -> dict[str, str]:
        """Refined caption (the caption itself where nobody refined it) by image id, for the images of part `index`.

        Images beyond the quota of captions have none.
        """
        if self._manifest is None or index >= len(self._manifest.parts):
            return {}
        part = self._manifest.parts[index]
        rows = self._ctx.read(
            SYNTHESIZE_CAPTIONS, part, CaptionRow, lambda r: (r.image_id, r.caption, r.refined_caption)
        )
        return {row.image_id: row.refined_caption or row.caption for row in rows}


@dataclass
class Proposal:
    """One operation on its way to a sample (I_orig, I_recon, Ops). `edit` counts the proposals on one image."""

    image: PoolImage
    caption: str
    edit: int
    choice: Reply[CategoryChoice]
    category: str = ""
    instruction: Reply[Instruction] | None = None
    weakness: str = ""
    edit_seed: int | None = None
    edited: bytes = b""
    edit_problem: tuple[str, str] = ("", "")
    editor_note: str = ""
    engines: dict[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> str:
        """What the model chose; empty when its answer could not be read."""
        return self.choice.value.chosen_category if self.choice.value else ""

    @property
    def text(self) -> str:
        """Ops; empty when there is no instruction."""
        return self.instruction.value.editing_instruction if self.instruction and self.instruction.value else ""

    def answers(self) -> dict[str, Reply[Any]]:
        """Answers by step."""
        steps: dict[str, Reply[Any] | None] = {"category": self.choice, "instruction": self.instruction}
        return {name: answer for name, answer in steps.items() if answer is not None}

    def problem(self) -> tuple[str, str]:
        """Reason and detail of the rejection; empty for a sample."""
        for answer in self.answers().values():
            if answer.value is None:
                return "invalid-json", answer.problem
        return (self.weakness, "") if self.weakness else self.edit_problem

    def counters(self) -> dict[str, int]:
        """Requests, attempts and failures of each step; categories as chosen and as used."""
        counts: dict[str, int] = {}
        for name, answer in self.answers().items():
            counts[f"{name}.requests"] = 1
            counts[f"{name}.attempts"] = answer.attempts
            counts[f"{name}.failed"] = int(answer.value is None)
        if self.chosen:
            counts |= {f"chosen.{self.chosen}": 1, f"used.{self.category}": 1}
            counts["steered"] = int(self.category != self.chosen)
        return counts


@dataclass(frozen=True)
class ToPropose:
    """Images of a chunk, decoded, with their captions."""

    number: int
    images: Sequence[PoolImage]
    originals: Sequence[Image.Image]
    captions: Mapping[str, str]


@dataclass(frozen=True)
class ToEdit:
    """Edits of a chunk: place of the proposal, original, instruction, seed."""

    places: Sequence[int]
    originals: Sequence[Image.Image]
    instructions: Sequence[str]
    seeds: Sequence[int]


class OperationSynthesis:
    """The phases of the stage: propose (category, then instruction), edit. Weak instructions are dropped in between. A
    part is a function of the frozen iteration, its images and its index."""

    def __init__(self, ctx: StageContext, engines: StageEngines, pool: Pool, captions: Captions) -> None:
        self._ctx, self._engines, self._pool, self._captions = ctx, engines, pool, captions
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._settings = self._recipe.operations
        self._prompts = PromptSet.load(self._recipe.prompts)
        self.drafts = Drafts(ctx)
        self.phases: tuple[Phase[Any], ...] = (
            Phase("propose", "generator", self._to_propose, self._propose),
            Phase("edit", "editor", self._to_edit, self._edit),
        )

    def _seed(self, part: int, number: int) -> Seed:
        return partial(derive, self._recipe.seed, SYNTHESIZE_OPERATIONS, part, number)

    def _batches(self, part: int) -> Iterator[tuple[int, list[PoolImage]]]:
        return enumerate(batches(self._pool.part(part), 1 + self._settings.edits_per_image))

    # ---- propose -------------------------------------------------------------------------------------------------

    def _to_propose(self, part: int) -> Iterator[Piece[ToPropose]]:
        edits = self._settings.edits_per_image
        for number, batch in self._batches(part):
            yield Piece(chunk_name(number), edits * len(batch), partial(self._opened, part, number, batch))

    def _opened(self, part: int, number: int, batch: Sequence[PoolImage]) -> ToPropose:
        return ToPropose(number, batch, [image.decode() for image in batch], self._captions.part(part))

    def _propose(self, part: int, chunk: ToPropose) -> list[Draft]:
        seed, edits = self._seed(part, chunk.number), self._settings.edits_per_image
        each = [(i, o, edit) for i, o in zip(chunk.images, chunk.originals, strict=True) for edit in range(edits)]
        captions = [chunk.captions.get(image.image_id, "") for image, _, _ in each]
        form = request_schema(CategoryChoice)
        requests = [
            VlmRequest((original,), self._prompts.render("category", caption=caption), form)
            for (_, original, _), caption in zip(each, captions, strict=True)
        ]
        choices = self._ask(requests, CategoryChoice, partial(seed, "category"))
        known = [i for i, choice in enumerate(choices) if choice.value is not None]
        used = [choice.value.chosen_category for choice in choices if choice.value is not None]
        if self._settings.category_balance.mode == "targets":
            used = steer(used, self._settings.category_balance.targets, part + chunk.number)
        categories = dict(zip(known, used, strict=True))
        form = request_schema(Instruction)
        requests = [
            VlmRequest(
                (each[i][1],),
                self._prompts.render(
                    "instruction", caption=captions[i], category=category, task=self._prompts.tasks[category]
                ),
                form,
            )
            for i, category in categories.items()
        ]
        answers = self._ask(requests, Instruction, partial(seed, "instruction"))
        instructions = dict(zip(categories, answers, strict=True))
        engine, earlier, drafts = self._engines.generator.engine_id, set[tuple[str, str]](), []
        for i, (image, _, edit) in enumerate(each):
            instruction = instructions.get(i)
            data: dict[str, Any] = {
                "choice": stored(choices[i]),
                "category": categories.get(i, ""),
                "instruction": stored(instruction) if instruction else None,
                "weakness": "",
                "engine": engine,
            }
            if instruction and instruction.value is not None:
                text = instruction.value.editing_instruction
                key = image.image_id, comparable(text)
                data["weakness"] = weakness(text) or ("repeated-instruction" if key in earlier else "")
                earlier.add(key)
            drafts.append(Draft(image.position * edits + edit, data))
        return drafts

    def _ask(self, requests: Sequence[VlmRequest], model: type[M], seed: Callable[[int], int]) -> list[Reply[M]]:
        return ask(self._engines.generator, requests, reader(model), self._settings.proposing, seed)

    # ---- edit ----------------------------------------------------------------------------------------------------

    def _to_edit(self, part: int) -> Iterator[Piece[ToEdit]]:
        edits = self._settings.edits_per_image
        step = max(1, CHUNK // edits)
        for number, batch in self._batches(part):
            for start in range(0, len(batch), step):
                images = batch[start : start + step]
                name = f"{chunk_name(number)}-{start:04d}"
                yield Piece(name, edits * len(images), partial(self._proposed, part, number, images))

    def _proposed(self, part: int, number: int, images: Sequence[PoolImage]) -> ToEdit:
        """Those proposals on the images that are worth an edit."""
        proposed, _ = self.drafts.read(part, "propose", chunk_name(number))
        edits = self._settings.edits_per_image
        places, originals, texts, seeds = [], [], [], []
        for image in images:
            original = None
            for edit in range(edits):
                data = proposed[image.position * edits + edit].data
                written = data["instruction"]
                if written and written["value"] and not data["weakness"]:
                    original = original or image.decode()
                    places.append(image.position * edits + edit)
                    originals.append(original)
                    texts.append(written["value"]["editing_instruction"])
                    seeds.append(self._seed(part, number)("edit", image.position, edit))
        return ToEdit(places, originals, texts, seeds)

    def _edit(self, part: int, chunk: ToEdit) -> list[Draft]:
        if not chunk.places:
            return []
        editor = self._engines.editor
        results = editor.edit(chunk.originals, chunk.instructions, chunk.seeds)
        drafts = []
        for place, seed, original, result in zip(chunk.places, chunk.seeds, chunk.originals, results, strict=True):
            reason, detail = ("editor-refused", result.note) if result.note else ("", "")
            if not reason and (detail := broken(result.image, original.size)):
                reason = "broken-edit"
            data = {"seed": seed, "reason": reason, "detail": detail, "note": result.note, "engine": editor.engine_id}
            drafts.append(Draft(place, data, b"" if reason else partial(encode_png, result.image)))
        return drafts

    # ---- rows ----------------------------------------------------------------------------------------------------

    def assemble(self, part: int, drafts: Gathered) -> tuple[list[OperationRow], Mapping[str, int]]:
        """Rows image by image, and counters of model calls, failures and categories."""
        edits, captions = self._settings.edits_per_image, self._captions.part(part)
        rows: list[OperationRow] = []
        counters: Counter[str] = Counter()
        for image in self._pool.part(part):
            for edit in range(edits):
                place = image.position * edits + edit
                caption = captions.get(image.image_id, "")
                proposal = _proposal(image, caption, edit, drafts["propose"][place], drafts["edit"].get(place))
                rows.append(self._row(part, proposal))
                counters.update(proposal.counters())
        return rows, counters

    def _row(self, index: int, proposal: Proposal) -> OperationRow:
        answers = proposal.answers()
        written = proposal.instruction.value if proposal.instruction else None
        task = self._prompts.tasks.get(proposal.category, "")
        drawn = {} if proposal.edit_seed is None else {"edit": proposal.edit_seed}
        passport = Passport(
            task="operations",
            image_id=proposal.image.image_id,
            inputs={"caption": text_digest(proposal.caption), "task": text_digest(task)},
            prompts={name: self._prompts.digest(name) for name in _TEMPLATES},
            models={"generator": self._engines.generator_model.digest},
            engines=proposal.engines,
            seeds={name: answer.seed for name, answer in answers.items()} | drawn,
            part=index,
            position=proposal.image.position * self._settings.edits_per_image + proposal.edit,
        )
        reason, detail = proposal.problem()
        return OperationRow(
            sample_id=passport.sample_id,
            image_id=proposal.image.image_id,
            category=proposal.category,
            chosen_category=proposal.chosen,
            steered=proposal.category != proposal.chosen,
            entity=written.entity_to_edit if written else "",
            instruction=proposal.text,
            edited=proposal.edited,
            editor_note=proposal.editor_note,
            attempts=sum(answer.attempts for answer in answers.values()),
            detail=detail,
            passport=passport.text,
            accepted=not reason,
            reason=reason,
        )


def _proposal(image: PoolImage, caption: str, edit: int, proposed: Draft, edited: Draft | None) -> Proposal:
    """A proposal out of what the phases made of it."""
    data = proposed.data
    proposal = Proposal(image, caption, edit, restored(data["choice"], CategoryChoice), data["category"])
    proposal.instruction = restored(data["instruction"], Instruction) if data["instruction"] else None
    proposal.weakness = data["weakness"]
    proposal.engines["vlm"] = data["engine"]
    if edited is not None:
        proposal.edit_seed, proposal.edited = edited.data["seed"], bytes_of(edited)
        proposal.edit_problem = edited.data["reason"], edited.data["detail"]
        proposal.editor_note = edited.data["note"]
        proposal.engines["editor"] = edited.data["engine"]
    return proposal


def weakness(instruction: str) -> str:
    """Why an instruction is not worth an edit (the costliest step); empty when it is."""
    if says_none(instruction):
        return "empty-instruction"
    return "long-instruction" if len(instruction) > MAX_INSTRUCTION else ""
