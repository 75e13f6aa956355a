"""The stage `evaluate`: the same questions and benchmarks for every checkpoint of an iteration, paired."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from viper.engines.base import VisionLanguageModel
from viper.errors import StageError
from viper.evaluation.questions import load_questions
from viper.evaluation.statistics import OVERALL, Verdicts, comparisons, scores
from viper.evaluation.suites import QUESTIONS, AnswerRow, BenchmarkSuite, QuestionSuite, Result, Suite
from viper.evaluation.summary import Answered, benchmark_comparisons, benchmark_scores, counts, in_order
from viper.methods.stages import making
from viper.modelcache.resolve import trained_model
from viper.prompts import PromptSet
from viper.spec.benchmarks import BENCHMARKS
from viper.stage import Manifest, Progress, ResolvedModel, StageContext
from viper.stage.rows import schema_of
from viper.stored import enveloped, read_content

BASE, THETA0 = "base", "theta0"
#: Folder of what is said of a benchmark's answers, beside the parts that hold them.
_ABOUT = "benchmarks"


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate; `stage` made it (None: it was there before the iteration)."""

    name: str
    model: ResolvedModel
    stage: str | None = None


def checkpoints(ctx: StageContext) -> list[Checkpoint]:
    """Base (where it differs from θ0 and is wanted), θ0, then every trained model, in the order of training."""
    frozen = ctx.frozen
    spec = frozen.iteration.spec
    found = [Checkpoint(THETA0, frozen.generator)]
    if spec.evaluation.base and frozen.base.digest != frozen.generator.digest:
        found.insert(0, Checkpoint(BASE, frozen.base))
    return [*found, *trained(ctx)]


def trained(ctx: StageContext) -> list[Checkpoint]:
    """Every model that the iteration trains, in the order of training."""
    nodes = making(ctx.frozen.nodes, "model")
    return [Checkpoint(node.score, trained_model(ctx, node.name), node.name) for node in nodes]


def evaluate(ctx: StageContext, load_vlm: Callable[[Checkpoint], VisionLanguageModel]) -> Manifest | None:
    """Runs the stage: one part per checkpoint and suite, answers reused where they were given before.

    Args:
        ctx: the stage.
        load_vlm: opens a checkpoint; called only for those whose answers are not known yet.

    Raises:
        InputError: questions, lmms-eval or a data set cannot be used.
        StageError: a data set or lmms-eval changed while the stage ran.
    """
    settings = ctx.frozen.iteration.spec.evaluation
    models = checkpoints(ctx)
    inputs = [c.stage for c in models if c.stage is not None]
    tasks = in_order(settings.benchmarks.tasks, BENCHMARKS)
    nothing: dict[str, Any] = {"scores": {}, "comparisons": {}, "final": models[-1].name}
    if not settings.questions and not tasks:
        return ctx.finish(inputs, outputs=nothing)
    own = _questions(ctx)
    names = [*([QUESTIONS] if own is not None else []), *tasks]
    units = [(checkpoint, name) for checkpoint in models for name in names]
    _ask(ctx, units, own, load_vlm)
    if any(ctx.part(index) is None for index in range(len(units))):
        return None
    outputs = {**nothing, "checkpoints": {c.name: c.model.digest for c in models}}
    if own is not None:
        verdicts = {c.name: _verdicts(ctx, units.index((c, QUESTIONS))) for c in models}
        outputs |= {
            "questions": {"uri": settings.questions, "digest": own.digest, "n": len(own.questions)},
            "scores": {name: scores(v) for name, v in verdicts.items()},
            "comparisons": {
                pair: comparisons(verdicts[earlier], verdicts[later]) for pair, earlier, later in _pairs(models)
            },
        }
    if tasks:
        outputs["benchmarks"] = _benchmarks(ctx, units, models, tasks)
    return ctx.finish(inputs, parts=len(units), outputs=outputs)


Unit = tuple[Checkpoint, str]


def _questions(ctx: StageContext) -> QuestionSuite | None:
    spec = ctx.frozen.iteration.spec
    if not spec.evaluation.questions:
        return None
    questions = load_questions(spec.evaluation.questions, "test", spec.evaluation.limit)
    return QuestionSuite(questions, PromptSet.load(spec.recipe.prompts), spec)


def _ask(
    ctx: StageContext,
    units: Sequence[Unit],
    own: QuestionSuite | None,
    load_vlm: Callable[[Checkpoint], VisionLanguageModel],
) -> None:
    """Asks what is not asked yet; one checkpoint after the other, each opened once at most."""
    pending = ctx.pending(len(units))
    if own is not None:
        asked = sum(name == QUESTIONS for _, name in units)
        left = sum(units[index][1] == QUESTIONS for index in pending)
        ctx.progress.begin("evaluate", asked * len(own.questions), (asked - left) * len(own.questions), unit="question")
    suites: dict[str, Suite] = {} if own is None else {QUESTIONS: own}
    opened = _Opened(load_vlm, ctx.progress)
    try:
        for index in pending:
            begin, (checkpoint, name) = time.monotonic(), units[index]
            if name not in suites:
                suites[name] = BenchmarkSuite(name, ctx.frozen.iteration.spec, ctx.work_dir)
            ctx.tell(f"{checkpoint.name}, {name}: {checkpoint.model.uri}")
            vlm = partial(opened, checkpoint)
            result = suites[name].result(ctx.store, checkpoint.model.digest, vlm, ctx.progress)
            _write(ctx, index, checkpoint, result, time.monotonic() - begin)
    finally:
        opened.close()


class _Opened:
    """The checkpoint that is loaded; another one takes its place."""

    def __init__(self, load: Callable[[Checkpoint], VisionLanguageModel], to: Progress) -> None:
        self._load, self._to = load, to
        self._name = ""
        self._vlm: VisionLanguageModel | None = None

    def __call__(self, checkpoint: Checkpoint) -> VisionLanguageModel:
        if self._vlm is None or self._name != checkpoint.name:
            self.close()
            with self._to.waits(f"loading {checkpoint.name}"):
                self._vlm, self._name = self._load(checkpoint), checkpoint.name
        return self._vlm

    def close(self) -> None:
        vlm, self._vlm = self._vlm, None
        if vlm is not None and callable(close := getattr(vlm, "close", None)):
            close()


def _write(ctx: StageContext, index: int, checkpoint: Checkpoint, result: Result, seconds: float) -> None:
    counted = {} if not result.about else counts(result.rows)
    about = json.dumps(enveloped({**result.about, **counted}), ensure_ascii=False, sort_keys=True).encode()
    digest = checkpoint.model.digest
    rows = [replace(r, model=checkpoint.name, model_digest=digest, accepted=True, reason="") for r in result.rows]
    ctx.write_part(
        index,
        rows,
        schema_of(AnswerRow),
        seconds=seconds,
        counters={k: n for k, n in counted.items() if n},
        beside=(_ABOUT, about) if result.about else None,
    )


def _benchmarks(
    ctx: StageContext, units: Sequence[Unit], models: Sequence[Checkpoint], tasks: Sequence[str]
) -> dict[str, Any]:
    """`outputs.benchmarks` of the manifest."""
    settings = ctx.frozen.iteration.spec.evaluation
    about: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    answered: dict[str, Answered] = {}
    notes: dict[str, dict[str, dict[str, int]]] = {}
    for c in models:
        of_model = {}
        for task in tasks:
            index = units.index((c, task))
            where = f"{ctx.store.uri}/{ctx.prefix}, {_ABOUT} of part {index}"
            said = read_content(ctx.beside(_ABOUT, index), what="about a benchmark", where=where)
            metrics.setdefault(c.name, {})[task] = said.pop("metrics")
            notes.setdefault(c.name, {})[task] = {k: said.pop(k) for k in ("truncated", "unanswered")}
            if about.setdefault(task, said) != said:
                raise StageError(
                    f"the data set or the definition of {task} changed while the stage ran",
                    where=f"{ctx.store.uri}/{ctx.prefix}",
                    fix="restore it, or start a new iteration",
                )
            part = ctx.part(index)
            assert part is not None  # noqa: S101 - the caller has looked
            of_model[task] = {row.question_id: row.verdict for row in ctx.read(ctx.stage, part, AnswerRow)}
        answered[c.name] = of_model
    return {
        "tasks": {t: {**said, "n": len(answered[models[0].name][t])} for t, said in about.items()},
        "max_tokens": settings.max_tokens,
        "instruction": settings.benchmarks.instruction,
        "scores": {name: benchmark_scores(a, notes[name]) for name, a in answered.items()},
        "metrics": metrics,
        "comparisons": {
            pair: benchmark_comparisons(answered[earlier], answered[later]) for pair, earlier, later in _pairs(models)
        },
    }


def _pairs(models: Sequence[Checkpoint]) -> list[tuple[str, str, str]]:
    """`later-earlier`, earlier, later: every two checkpoints."""
    return [
        (f"{later.name}-{earlier.name}", earlier.name, later.name)
        for i, earlier in enumerate(models)
        for later in models[i + 1 :]
    ]


def _verdicts(ctx: StageContext, index: int) -> Verdicts:
    part = ctx.part(index)
    assert part is not None  # noqa: S101 - the caller has looked
    rows = ctx.read(ctx.stage, part, AnswerRow, lambda row: (row.question_id, row.domain, row.correct))
    return {row.question_id: (row.domain, row.correct) for row in rows}


def overall(scores_of_model: dict[str, dict[str, float]] | None) -> float:
    """The overall accuracy in a manifest's scores; 0 when nothing was asked."""
    return scores_of_model[OVERALL]["accuracy"] if scores_of_model and OVERALL in scores_of_model else 0.0
