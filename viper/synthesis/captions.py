"""Task 1, caption self-refining: caption with θ0 → reconstruct from the caption alone → critique → refined caption."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from viper.engines.base import VlmRequest
from viper.images import encode_png
from viper.passport import Passport
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.spec.stages import INGEST, SYNTHESIZE_CAPTIONS
from viper.stage import Manifest, StageContext
from viper.stage.context import Row
from viper.stage.work import work_parts
from viper.synthesis.engines import StageEngines
from viper.synthesis.pictures import broken
from viper.synthesis.pool import Pool, PoolImage, batches
from viper.synthesis.structured import Answer, Critique, ask, read_text, reader, request_schema

if TYPE_CHECKING:
    import pyarrow as pa

#: Model calls per image, for progress: caption, reconstruction, critique, refined caption.
STEPS = 4
Seed = Callable[..., int]
_TEMPLATES = ("caption", "critique", "refine")


def schema() -> pa.Schema:
    """Columns of the stage; `reconstruction` is PNG, `passport` canonical JSON."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("image_id", pa.string()),
            ("caption", pa.string()),
            ("reconstruction", pa.binary()),
            ("refinement", pa.list_(pa.string())),
            ("refined_caption", pa.string()),
            ("attempts", pa.int32()),
            ("detail", pa.string()),
            ("passport", pa.string()),
            ("accepted", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


def synthesize_captions(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage: the parts of this shard, then the manifest when all shards' parts are there."""
    pool = Pool(ctx)
    engines = engines or StageEngines(ctx)
    work = CaptionSynthesis(ctx, engines)
    sizes = [STEPS * pool.size(i) for i in range(pool.parts)]
    work_parts(ctx, "captions", sizes, lambda index: work.part(index, pool.part(index)), schema())
    return ctx.finish((INGEST, *engines.inputs), parts=pool.parts)


@dataclass
class Draft:
    """One image on its way to a sample (I, C_g, R)."""

    image: PoolImage
    original: Image.Image
    caption: Answer[str]
    reconstruction: Image.Image | None = None
    reconstruction_seed: int = 0
    reconstruction_problem: tuple[str, str] = ("", "")
    critique: Answer[Critique] | None = None
    refined: Answer[str] | None = None

    @property
    def text(self) -> str:
        """C_g; empty when there is none."""
        return self.caption.value or ""

    @property
    def flaws(self) -> list[str]:
        """R; empty for a perfect caption and when there is no critique."""
        found = self.critique.value if self.critique else None
        return [flaw for flaw in found.refinement if flaw] if found else []

    @property
    def refined_text(self) -> str:
        """The caption with its flaws repaired: itself when it is perfect; empty when nobody could tell."""
        if self.critique is None or self.critique.value is None:
            return ""
        return (self.refined.value or "" if self.refined else "") if self.flaws else self.text

    def answers(self) -> dict[str, Answer[Any]]:
        """Answers so far, by step."""
        steps = {"caption": self.caption, "critique": self.critique, "refine": self.refined}
        return {name: answer for name, answer in steps.items() if answer is not None}

    def seeds(self) -> dict[str, int]:
        """Seeds of the steps taken."""
        tried = self.reconstruction is not None or self.reconstruction_problem[0]
        drawn = {"reconstruct": self.reconstruction_seed} if tried else {}
        return {name: answer.seed for name, answer in self.answers().items()} | drawn

    def problem(self) -> tuple[str, str]:
        """Reason and detail of the rejection; empty for a sample."""
        if self.caption.value is None:
            return ("empty-caption" if self.caption.problem == "empty" else "unfinished-caption"), self.caption.problem
        if self.reconstruction is None:
            return self.reconstruction_problem
        if self.critique is None or self.critique.value is None:
            return "invalid-json", self.critique.problem if self.critique else ""
        return "", self.refined.problem if self.refined else ""

    def counters(self) -> dict[str, int]:
        """Requests, attempts and failures of each step, and flaws."""
        counts = {"flaws": len(self.flaws)}
        for name, answer in self.answers().items():
            counts[f"{name}.requests"] = 1
            counts[f"{name}.attempts"] = answer.attempts
            counts[f"{name}.failed"] = int(answer.value is None)
        return counts


class CaptionSynthesis:
    """Makes parts of the stage. A part is a function of the frozen iteration, its images and its index."""

    def __init__(self, ctx: StageContext, engines: StageEngines) -> None:
        self._ctx, self._engines = ctx, engines
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._prompts = PromptSet.load(self._recipe.prompts)

    def part(self, index: int, images: Sequence[PoolImage]) -> tuple[list[Row], Mapping[str, int]]:
        """Rows in the order of `images`, and counters of model calls and failures."""
        rows: list[Row] = []
        counters: Counter[str] = Counter()
        for number, batch in enumerate(batches(images, 2)):
            seed = partial(derive, self._recipe.seed, SYNTHESIZE_CAPTIONS, index, number)
            drafts = self._caption(batch, seed)
            self._reconstruct([d for d in drafts if d.text], seed)
            self._ctx.progress.advance(len(drafts))
            self._criticise([d for d in drafts if d.reconstruction is not None], seed)
            self._ctx.progress.advance(len(drafts))
            self._refine([d for d in drafts if d.flaws], seed)
            self._ctx.progress.advance(len(drafts))
            rows += [self._row(index, draft) for draft in drafts]
            for draft in drafts:
                counters.update(draft.counters())
        return rows, counters

    def _caption(self, batch: Sequence[PoolImage], seed: Seed) -> list[Draft]:
        originals = [image.decode() for image in batch]
        prompt = self._prompts.render("caption")
        requests = [VlmRequest((original,), prompt) for original in originals]
        answers = ask(
            self._engines.generator, requests, read_text, self._recipe.captions.captioning, partial(seed, "caption")
        )
        self._ctx.progress.advance(len(batch))
        return [Draft(*each) for each in zip(batch, originals, answers, strict=True)]

    def _reconstruct(self, drafts: Sequence[Draft], seed: Seed) -> None:
        by_size: dict[tuple[int, int], list[Draft]] = defaultdict(list)
        for draft in drafts:
            draft.reconstruction_seed = seed("reconstruct", draft.image.position)
            by_size[reconstruction_size(draft.image, self._recipe.captions.reconstruction_size)].append(draft)
        for size, group in by_size.items():
            captions = [d.text for d in group]
            seeds = [d.reconstruction_seed for d in group]
            made = self._engines.reconstructor.reconstruct(captions, seeds, size)
            for draft, one in zip(group, made, strict=True):
                if one.image is None:
                    draft.reconstruction_problem = "not-reconstructed", one.note
                elif problem := broken(one.image, size):
                    draft.reconstruction_problem = "broken-reconstruction", problem
                else:
                    draft.reconstruction = one.image

    def _criticise(self, drafts: Sequence[Draft], seed: Seed) -> None:
        form = request_schema(Critique)
        requests = [
            VlmRequest((d.original, d.reconstruction), self._prompts.render("critique", caption=d.text), form)
            for d in drafts
            if d.reconstruction is not None
        ]
        sampling = self._recipe.captions.critique
        answers = ask(self._engines.critic, requests, reader(Critique), sampling, partial(seed, "critique"))
        for draft, answer in zip(drafts, answers, strict=True):
            draft.critique = answer

    def _refine(self, drafts: Sequence[Draft], seed: Seed) -> None:
        requests = [
            VlmRequest((d.original,), self._prompts.render("refine", caption=d.text, refinement=as_sentences(d.flaws)))
            for d in drafts
        ]
        sampling = self._recipe.captions.critique
        answers = ask(self._engines.critic, requests, read_text, sampling, partial(seed, "refine"))
        for draft, answer in zip(drafts, answers, strict=True):
            draft.refined = answer

    def _row(self, index: int, draft: Draft) -> Row:
        passport = Passport(
            task="captions",
            image_id=draft.image.image_id,
            inputs={},
            prompts={name: self._prompts.digest(name) for name in _TEMPLATES},
            models={"generator": self._engines.generator_model.digest, "critic": self._ctx.frozen.critic.digest},
            engines={"vlm": self._engines.generator.engine_id, "reconstructor": self._engines.reconstructor.engine_id},
            seeds=draft.seeds(),
            part=index,
            position=draft.image.position,
        )
        reason, detail = draft.problem()
        return {
            "sample_id": passport.sample_id,
            "image_id": draft.image.image_id,
            "caption": draft.text,
            "reconstruction": b"" if draft.reconstruction is None else encode_png(draft.reconstruction),
            "refinement": draft.flaws,
            "refined_caption": draft.refined_text,
            "attempts": sum(answer.attempts for answer in draft.answers().values()),
            "detail": detail,
            "passport": passport.text,
            "accepted": not reason,
            "reason": reason,
        }


def reconstruction_size(image: PoolImage, longer_side: int) -> tuple[int, int]:
    """(width, height) in px: the image's aspect with `longer_side`, both multiples of 32 (what diffusion models take
    and what keeps the number of different batches small), at least 32."""
    scale = longer_side / max(image.width, image.height)
    return max(32, round(image.width * scale / 32) * 32), max(32, round(image.height * scale / 32) * 32)


def as_sentences(flaws: Sequence[str]) -> str:
    """Flaws as running text: each ends like a sentence."""
    return " ".join(flaw if flaw.endswith((".", "!", "?")) else f"{flaw}." for flaw in flaws)
