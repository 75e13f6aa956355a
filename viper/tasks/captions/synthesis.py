"""Task 1, caption self-refining: caption with θ0 → reconstruct from the caption alone → critique → refined caption."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from viper.engines.base import VlmRequest
from viper.images import decode, encode_png
from viper.methods.stages import INGEST, SYNTHESIZE_CAPTIONS
from viper.modelcache.engines import StageEngines
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.stage import Manifest, StageContext
from viper.stage.phases import Draft, Drafts, Gathered, Phase, PhasedStage, Piece, bytes_of
from viper.stage.quota import USABLE, Quota, candidates
from viper.stage.rows import Int32, schema_of
from viper.stored import known
from viper.tasks.passport import Passport
from viper.tasks.pictures import broken
from viper.tasks.pool import Pool, PoolImage, batches
from viper.tasks.structured import Critique, Reply, ask, read_text, reader, request_schema, restored, stored

#: Images that are drawn between two commits: what a killed shard draws again at most, twice over.
CHUNK = 8
Seed = Callable[..., int]
_TEMPLATES = ("caption", "critique", "refine")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRow:
    """A candidate; `reconstruction` is PNG, `passport` canonical JSON."""

    sample_id: str
    image_id: str
    caption: str
    reconstruction: bytes
    refinement: list[str]
    refined_caption: str
    attempts: Int32
    detail: str
    passport: str
    accepted: bool
    reason: str


def synthesize_captions(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage: parts until the quota is reached, then the manifest when all that it needs are there."""
    pool = Pool(ctx)
    engines = engines or StageEngines(ctx)
    recipe = ctx.frozen.iteration.spec.recipe.captions
    sizes = [pool.size(i) for i in range(pool.parts)]
    work = CaptionSynthesis(ctx, engines, pool)
    stage = PhasedStage(
        ctx,
        engines,
        work.drafts,
        work.phases,
        sizes,
        Quota(candidates(recipe.samples, recipe.expected_acceptance), sizes),
        work.assemble,
        schema_of(CaptionRow),
    )
    parts = stage.run()
    return None if parts is None else ctx.finish((INGEST, *engines.inputs), parts=parts)


@dataclass
class Sample:
    """One image on its way to a sample (I, C_g, R)."""

    image: PoolImage
    caption: Reply[str]
    reconstruction: bytes = b""
    reconstruction_seed: int | None = None
    reconstruction_problem: tuple[str, str] = ("", "")
    critique: Reply[Critique] | None = None
    refined: Reply[str] | None = None
    engines: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """C_g; empty when there is none."""
        return self.caption.value or ""

    @property
    def flaws(self) -> list[str]:
        """R; empty for a perfect caption and when there is no critique."""
        return flaws_of(self.critique)

    @property
    def refined_text(self) -> str:
        """The caption with its flaws repaired: itself when it is perfect; empty when nobody could tell."""
        if self.critique is None or self.critique.value is None:
            return ""
        return (self.refined.value or "" if self.refined else "") if self.flaws else self.text

    def answers(self) -> dict[str, Reply[Any]]:
        """Answers by step."""
        steps = {"caption": self.caption, "critique": self.critique, "refine": self.refined}
        return {name: answer for name, answer in steps.items() if answer is not None}

    def seeds(self) -> dict[str, int]:
        """Seeds of the steps taken."""
        drawn = {} if self.reconstruction_seed is None else {"reconstruct": self.reconstruction_seed}
        return {name: answer.seed for name, answer in self.answers().items()} | drawn

    def problem(self) -> tuple[str, str]:
        """Reason and detail of the rejection; empty for a sample."""
        if self.caption.value is None:
            return ("empty-caption" if self.caption.problem == "empty" else "unfinished-caption"), self.caption.problem
        if self.reconstruction_problem[0]:
            return self.reconstruction_problem
        if self.critique is None or self.critique.value is None:
            return "invalid-json", self.critique.problem if self.critique else ""
        return "", self.refined.problem if self.refined else ""

    def counters(self) -> dict[str, int]:
        """Requests, attempts and failures of each step, flaws, and whether it counts towards the quota."""
        counts = {"flaws": len(self.flaws), USABLE: int(bool(self.flaws) and not self.problem()[0])}
        for name, answer in self.answers().items():
            counts[f"{name}.requests"] = 1
            counts[f"{name}.attempts"] = answer.attempts
            counts[f"{name}.failed"] = int(answer.value is None)
        return counts


@dataclass(frozen=True)
class Captioned:
    """Images of a chunk with what is known of them; the critic also gets the reconstructions."""

    number: int
    images: Sequence[PoolImage]
    originals: Sequence[Image.Image] = ()
    texts: Sequence[str] = ()
    reconstructions: Sequence[Image.Image] = ()


class CaptionSynthesis:
    """The phases of the stage: caption, reconstruct, critique. A part is a function of the frozen iteration, its images
    and its index."""

    def __init__(self, ctx: StageContext, engines: StageEngines, pool: Pool) -> None:
        self._ctx, self._engines, self._pool = ctx, engines, pool
        self._recipe = ctx.frozen.iteration.spec.recipe
        self._prompts = PromptSet.load(self._recipe.prompts)
        self.drafts = Drafts(ctx)
        self.phases: tuple[Phase[Any], ...] = (
            Phase("caption", "generator", self._to_caption, self._caption),
            Phase("reconstruct", "reconstructor", self._to_reconstruct, self._reconstruct),
            Phase("critique", "critic", self._to_criticise, self._criticise),
        )

    def _seed(self, part: int, number: int) -> Seed:
        return partial(derive, self._recipe.seed, SYNTHESIZE_CAPTIONS, part, number)

    # ---- caption -------------------------------------------------------------------------------------------------

    def _to_caption(self, part: int) -> Iterator[Piece[Captioned]]:
        for number, batch in enumerate(batches(self._pool.part(part), 2)):
            yield Piece(chunk_name(number), len(batch), partial(self._opened, number, batch))

    def _opened(self, number: int, batch: Sequence[PoolImage]) -> Captioned:
        return Captioned(number, batch, [image.decode() for image in batch])

    def _caption(self, part: int, chunk: Captioned) -> list[Draft]:
        prompt = self._prompts.render("caption")
        requests = [VlmRequest((original,), prompt) for original in chunk.originals]
        seed = partial(self._seed(part, chunk.number), "caption")
        answers = ask(self._engines.generator, requests, read_text, self._recipe.captions.captioning, seed)
        engine = self._engines.generator.engine_id
        pairs = zip(chunk.images, answers, strict=True)
        return [Draft(image.position, {"caption": asdict(answer), "engine": engine}) for image, answer in pairs]

    # ---- reconstruct ---------------------------------------------------------------------------------------------

    def _to_reconstruct(self, part: int) -> Iterator[Piece[Captioned]]:
        for number, batch in enumerate(batches(self._pool.part(part), 2)):
            for start in range(0, len(batch), CHUNK):
                images = batch[start : start + CHUNK]
                name = f"{chunk_name(number)}-{start:04d}"
                yield Piece(name, len(images), partial(self._captioned, part, number, images))

    def _captioned(self, part: int, number: int, images: Sequence[PoolImage]) -> Captioned:
        """The images of which there is a caption, with it."""
        texts = {place: text for place, text in self._texts(part, number).items() if text}
        known = [image for image in images if image.position in texts]
        return Captioned(number, known, texts=[texts[image.position] for image in known])

    def _texts(self, part: int, number: int) -> dict[int, str]:
        captions, _ = self.drafts.read(part, "caption", chunk_name(number))
        return {place: draft.data["caption"]["value"] or "" for place, draft in captions.items()}

    def _reconstruct(self, part: int, chunk: Captioned) -> list[Draft]:
        made, engine = [], self._engines.reconstructor.engine_id
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, image in enumerate(chunk.images):
            by_size[reconstruction_size(image, self._recipe.captions.reconstruction_size)].append(i)
        for size, group in by_size.items():
            places = [chunk.images[i].position for i in group]
            seeds = [self._seed(part, chunk.number)("reconstruct", place) for place in places]
            results = self._engines.reconstructor.reconstruct([chunk.texts[i] for i in group], seeds, size)
            for place, seed, result in zip(places, seeds, results, strict=True):
                reason, detail = ("not-reconstructed", result.note) if result.image is None else ("", "")
                if result.image is not None and (detail := broken(result.image, size)):
                    reason = "broken-reconstruction"
                blob = b"" if reason or result.image is None else partial(encode_png, result.image)
                data = {"seed": seed, "reason": reason, "detail": detail, "engine": engine}
                made.append(Draft(place, data, blob))
        return made

    # ---- critique ------------------------------------------------------------------------------------------------

    def _to_criticise(self, part: int) -> Iterator[Piece[Captioned]]:
        for number, batch in enumerate(batches(self._pool.part(part), 2)):
            yield Piece(chunk_name(number), len(batch), partial(self._reconstructed, part, number, batch))

    def _reconstructed(self, part: int, number: int, batch: Sequence[PoolImage]) -> Captioned:
        """The images of which there is a reconstruction, with caption and reconstruction."""
        texts = self._texts(part, number)
        drawn, _ = self.drafts.read(part, "reconstruct", chunk_name(number))
        known = [image for image in batch if image.position in drawn and drawn[image.position].blob]
        return Captioned(
            number,
            known,
            [image.decode() for image in known],
            [texts[image.position] for image in known],
            [decode(bytes_of(drawn[image.position])) for image in known],
        )

    def _criticise(self, part: int, chunk: Captioned) -> list[Draft]:
        seed, sampling = self._seed(part, chunk.number), self._recipe.captions.critique
        form = request_schema(Critique)
        requests = [
            VlmRequest((original, reconstruction), self._prompts.render("critique", caption=text), form)
            for original, reconstruction, text in zip(chunk.originals, chunk.reconstructions, chunk.texts, strict=True)
        ]
        critiques = ask(self._engines.critic, requests, reader(Critique), sampling, partial(seed, "critique"))
        flawed = [i for i, critique in enumerate(critiques) if flaws_of(critique)]
        requests = [
            VlmRequest(
                (chunk.originals[i],),
                self._prompts.render("refine", caption=chunk.texts[i], refinement=as_sentences(flaws_of(critiques[i]))),
            )
            for i in flawed
        ]
        answers = ask(self._engines.critic, requests, read_text, sampling, partial(seed, "refine"))
        refined = dict(zip(flawed, answers, strict=True))
        return [
            Draft(
                image.position,
                {"critique": stored(critique), "refined": asdict(refined[i]) if i in refined else None},
            )
            for i, (image, critique) in enumerate(zip(chunk.images, critiques, strict=True))
        ]

    # ---- rows ----------------------------------------------------------------------------------------------------

    def assemble(self, part: int, drafts: Gathered) -> tuple[list[CaptionRow], Mapping[str, int]]:
        """Rows in the order of the images, and counters of model calls and failures."""
        counters: Counter[str] = Counter()
        rows = []
        for image in self._pool.part(part):
            sample = _sample(image, drafts)
            rows.append(self._row(part, sample))
            counters.update(sample.counters())
        return rows, counters

    def _row(self, index: int, sample: Sample) -> CaptionRow:
        passport = Passport(
            task="captions",
            image_id=sample.image.image_id,
            inputs={},
            prompts={name: self._prompts.digest(name) for name in _TEMPLATES},
            models={"generator": self._engines.generator_model.digest, "critic": self._ctx.frozen.critic.digest},
            engines=sample.engines,
            seeds=sample.seeds(),
            part=index,
            position=sample.image.position,
        )
        reason, detail = sample.problem()
        return CaptionRow(
            sample_id=passport.sample_id,
            image_id=sample.image.image_id,
            caption=sample.text,
            reconstruction=sample.reconstruction,
            refinement=sample.flaws,
            refined_caption=sample.refined_text,
            attempts=sum(answer.attempts for answer in sample.answers().values()),
            detail=detail,
            passport=passport.text,
            accepted=not reason,
            reason=reason,
        )


def chunk_name(number: int) -> str:
    """Name of a chunk; those of its pieces begin with it."""
    return f"{number:04d}"


def flaws_of(critique: Reply[Critique] | None) -> list[str]:
    """What a critique lists; nothing when there is none."""
    found = critique.value if critique else None
    return [flaw for flaw in found.refinement if flaw] if found else []


def _sample(image: PoolImage, drafts: Gathered) -> Sample:
    """A sample out of what the phases made of its image."""
    written = drafts["caption"][image.position].data
    sample = Sample(image, Reply(**known(Reply, written["caption"])), engines={"vlm": written["engine"]})
    if drawn := drafts["reconstruct"].get(image.position):
        sample.reconstruction = bytes_of(drawn)
        sample.reconstruction_seed = drawn.data["seed"]
        sample.engines["reconstructor"] = drawn.data["engine"]
        sample.reconstruction_problem = drawn.data["reason"], drawn.data["detail"]
    if said := drafts["critique"].get(image.position):
        sample.critique = restored(said.data["critique"], Critique)
        sample.refined = Reply(**known(Reply, said.data["refined"])) if said.data["refined"] else None
    return sample


def reconstruction_size(image: PoolImage, longer_side: int) -> tuple[int, int]:
    """(width, height) in px: the image's aspect with `longer_side`, both multiples of 32 (what diffusion models take
    and what keeps the number of different batches small), at least 32."""
    scale = longer_side / max(image.width, image.height)
    return max(32, round(image.width * scale / 32) * 32), max(32, round(image.height * scale / 32) * 32)


def as_sentences(flaws: Sequence[str]) -> str:
    """Flaws as running text: each ends like a sentence."""
    return " ".join(flaw if flaw.endswith((".", "!", "?")) else f"{flaw}." for flaw in flaws)
