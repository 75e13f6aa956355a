"""Task 2, visual-operation predicting: category → entity and instruction → edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from viper.engines.base import EditResult, VlmRequest
from viper.images import encode_png
from viper.passport import Passport, text_digest
from viper.prompts import PromptSet
from viper.prompts.categories import task_text
from viper.seeds import derive
from viper.spec.recipe import CATEGORIES
from viper.spec.stages import INGEST, SYNTHESIZE_CAPTIONS, SYNTHESIZE_OPERATIONS, VALIDATE_CAPTIONS, stage_graph
from viper.stage import Manifest, StageContext
from viper.stage.context import Row
from viper.stage.work import work_parts
from viper.synthesis.balance import steer
from viper.synthesis.engines import StageEngines
from viper.synthesis.pictures import broken
from viper.synthesis.pool import Pool, PoolImage, batches
from viper.synthesis.structured import Answer, CategoryChoice, Instruction, ask, reader, request_schema
from viper.synthesis.text import comparable

if TYPE_CHECKING:
    import pyarrow as pa

#: Model calls per proposal, for progress: category, instruction, edit.
STEPS = 3
#: Instructions are short and directly usable (paper, prompt 3); longer ones are dropped before the edit.
MAX_INSTRUCTION = 300
_TEMPLATES = ("category", "instruction")
Seed = Callable[..., int]


def schema() -> pa.Schema:
    """Columns of the stage; `edited` is PNG, empty when there was no edit."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("image_id", pa.string()),
            ("category", pa.string()),
            ("chosen_category", pa.string()),
            ("steered", pa.bool_()),
            ("entity", pa.string()),
            ("instruction", pa.string()),
            ("edited", pa.binary()),
            ("editor_note", pa.string()),
            ("attempts", pa.int32()),
            ("detail", pa.string()),
            ("passport", pa.string()),
            ("accepted", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


def synthesize_operations(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage: the parts of this shard, then the manifest when all shards' parts are there."""
    engines = engines or StageEngines(ctx)
    pool, captions = Pool(ctx), Captions(ctx)
    work = OperationSynthesis(ctx, engines)
    edits = ctx.frozen.iteration.spec.recipe.operations.edits_per_image
    sizes = [STEPS * edits * pool.size(i) for i in range(pool.parts)]
    work_parts(
        ctx, "operations", sizes, lambda index: work.part(index, pool.part(index), captions.part(index)), schema()
    )
    return ctx.finish((INGEST, *captions.inputs, *engines.inputs), parts=pool.parts)


class Captions:
    """The refined captions of this iteration; none when operations are its only stage."""

    def __init__(self, ctx: StageContext) -> None:
        node = next(n for n in stage_graph(ctx.frozen.iteration.spec.recipe) if n.name == SYNTHESIZE_OPERATIONS)
        self._ctx = ctx
        self._manifest = ctx.manifest(SYNTHESIZE_CAPTIONS) if VALIDATE_CAPTIONS in node.needs else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The stage that the captions come from."""
        return () if self._manifest is None else (SYNTHESIZE_CAPTIONS,)

    def part(self, index: int) -> dict[str, str]:
        """Refined caption (the caption itself where nobody refined it) by image id, for the images of part `index`."""
        if self._manifest is None:
            return {}
        columns = ["image_id", "caption", "refined_caption"]
        rows = self._ctx.table(SYNTHESIZE_CAPTIONS, self._manifest.parts[index], columns).to_pylist()
        return {row["image_id"]: row["refined_caption"] or row["caption"] for row in rows}


@dataclass
class Proposal:
    """One operation on its way to a sample (I_orig, I_recon, Ops). `edit` counts the proposals on one image."""

    image: PoolImage
    original: Image.Image
    caption: str
    edit: int
    choice: Answer[CategoryChoice] | None = None
    category: str = ""
    instruction: Answer[Instruction] | None = None
    weakness: str = ""
    edit_seed: int = 0
    result: EditResult | None = None

    @property
    def chosen(self) -> str:
        """What the model chose; empty when its answer could not be read."""
        return self.choice.value.chosen_category if self.choice and self.choice.value else ""

    @property
    def text(self) -> str:
        """Ops; empty when there is no instruction."""
        return self.instruction.value.editing_instruction if self.instruction and self.instruction.value else ""

    def answers(self) -> dict[str, Answer[Any]]:
        """Answers so far, by step."""
        steps: dict[str, Answer[Any] | None] = {"category": self.choice, "instruction": self.instruction}
        return {name: answer for name, answer in steps.items() if answer is not None}

    def problem(self) -> tuple[str, str]:
        """Reason and detail of the rejection; empty for a sample."""
        for answer in self.answers().values():
            if answer.value is None:
                return "invalid-json", answer.problem
        if self.weakness:
            return self.weakness, ""
        if self.result is not None:
            if self.result.note:
                return "editor-refused", self.result.note
            if problem := broken(self.result.image, self.original.size):
                return "broken-edit", problem
        return "", ""

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


class OperationSynthesis:
    """Makes parts of the stage. A part is a function of the frozen iteration, its images and its index."""

    def __init__(self, ctx: StageContext, engines: StageEngines) -> None:
        self._ctx, self._engines = ctx, engines
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._settings = self._recipe.operations
        self._prompts = PromptSet.load(self._recipe.prompts)
        self._tasks = {c: task_text(self._recipe.prompts, c) for c in CATEGORIES}

    def part(
        self, index: int, images: Sequence[PoolImage], captions: Mapping[str, str]
    ) -> tuple[list[Row], Mapping[str, int]]:
        """Rows image by image, and counters of model calls, failures and categories."""
        rows: list[Row] = []
        counters: Counter[str] = Counter()
        for number, batch in enumerate(batches(images, 1 + self._settings.edits_per_image)):
            seed = partial(derive, self._recipe.seed, SYNTHESIZE_OPERATIONS, index, number)
            proposals = [
                Proposal(image, original, captions.get(image.image_id, ""), edit)
                for image in batch
                for original in (image.decode(),)
                for edit in range(self._settings.edits_per_image)
            ]
            self._choose(proposals, seed, index + number)
            self._ctx.progress.advance(len(proposals))
            self._instruct([p for p in proposals if p.category], seed)
            self._ctx.progress.advance(len(proposals))
            self._edit([p for p in proposals if p.instruction and not p.problem()[0]], seed)
            self._ctx.progress.advance(len(proposals))
            rows += [self._row(index, proposal) for proposal in proposals]
            for proposal in proposals:
                counters.update(proposal.counters())
        return rows, counters

    def _choose(self, proposals: Sequence[Proposal], seed: Seed, first: int) -> None:
        form = request_schema(CategoryChoice)
        requests = [
            VlmRequest((p.original,), self._prompts.render("category", caption=p.caption), form) for p in proposals
        ]
        sampling = self._settings.proposing
        answers = ask(self._engines.generator, requests, reader(CategoryChoice), sampling, partial(seed, "category"))
        for proposal, answer in zip(proposals, answers, strict=True):
            proposal.choice = answer
        readable = [p for p in proposals if p.chosen]
        used = [p.chosen for p in readable]
        if self._settings.category_balance.mode == "targets":
            used = steer(used, self._settings.category_balance.targets, first)
        for proposal, category in zip(readable, used, strict=True):
            proposal.category = category

    def _instruct(self, proposals: Sequence[Proposal], seed: Seed) -> None:
        form = request_schema(Instruction)
        requests = [
            VlmRequest(
                (p.original,),
                self._prompts.render(
                    "instruction", caption=p.caption, category=p.category, task=self._tasks[p.category]
                ),
                form,
            )
            for p in proposals
        ]
        sampling = self._settings.proposing
        answers = ask(self._engines.generator, requests, reader(Instruction), sampling, partial(seed, "instruction"))
        earlier: set[tuple[str, str]] = set()
        for proposal, answer in zip(proposals, answers, strict=True):
            proposal.instruction = answer
            if answer.value is not None:
                key = proposal.image.image_id, comparable(proposal.text)
                proposal.weakness = weakness(proposal.text) or ("repeated-instruction" if key in earlier else "")
                earlier.add(key)

    def _edit(self, proposals: Sequence[Proposal], seed: Seed) -> None:
        if not proposals:
            return
        for proposal in proposals:
            proposal.edit_seed = seed("edit", proposal.image.position, proposal.edit)
        images, texts = [p.original for p in proposals], [p.text for p in proposals]
        results = self._engines.editor.edit(images, texts, [p.edit_seed for p in proposals])
        for proposal, result in zip(proposals, results, strict=True):
            proposal.result = result

    def _row(self, index: int, proposal: Proposal) -> Row:
        answers, result = proposal.answers(), proposal.result
        written = proposal.instruction.value if proposal.instruction else None
        task = self._tasks.get(proposal.category, "")
        passport = Passport(
            task="operations",
            image_id=proposal.image.image_id,
            inputs={"caption": text_digest(proposal.caption), "task": text_digest(task)},
            prompts={name: self._prompts.digest(name) for name in _TEMPLATES},
            models={"generator": self._engines.generator_model.digest},
            engines={"vlm": self._engines.generator.engine_id, "editor": self._engines.editor.engine_id},
            seeds={name: a.seed for name, a in answers.items()} | ({"edit": proposal.edit_seed} if result else {}),
            part=index,
            position=proposal.image.position * self._settings.edits_per_image + proposal.edit,
        )
        reason, detail = proposal.problem()
        return {
            "sample_id": passport.sample_id,
            "image_id": proposal.image.image_id,
            "category": proposal.category,
            "chosen_category": proposal.chosen,
            "steered": proposal.category != proposal.chosen,
            "entity": written.entity_to_edit if written else "",
            "instruction": proposal.text,
            # A refused edit is the original again.
            "edited": b"" if reason or result is None else encode_png(result.image),
            "editor_note": result.note if result else "",
            "attempts": sum(answer.attempts for answer in answers.values()),
            "detail": detail,
            "passport": passport.text,
            "accepted": not reason,
            "reason": reason,
        }


def weakness(instruction: str) -> str:
    """Why an instruction is not worth an edit (the costliest step); empty when it is."""
    if not any(c.isalnum() for c in instruction):
        return "empty-instruction"
    return "long-instruction" if len(instruction) > MAX_INSTRUCTION else ""
