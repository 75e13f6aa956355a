"""The stage `evaluate`: the same held-out questions for every checkpoint of an iteration, paired, with intervals."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viper.engines.base import VisionLanguageModel
from viper.errors import NotFoundError
from viper.evaluation.questions import Question, load_questions, set_digest
from viper.evaluation.runner import ask
from viper.evaluation.statistics import OVERALL, Verdicts, comparisons, scores
from viper.models import trained_model
from viper.prompts import PromptSet
from viper.spec.recipe import Recipe
from viper.spec.stages import COLD_START, EVALUATE, TRAIN_CAPTIONS, TRAIN_MIXED, TRAIN_OPERATIONS, stage_graph
from viper.stage import Manifest, ResolvedModel, StageContext

if TYPE_CHECKING:
    import pyarrow as pa

BASE, THETA0, THETA1, THETA2 = "base", "theta0", "theta1", "theta2"
NAMES = {COLD_START: "coldStart", TRAIN_CAPTIONS: THETA1, TRAIN_OPERATIONS: THETA2, TRAIN_MIXED: THETA2}
"""How the outputs of training stages are called in scores."""


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate; `stage` made it (None: it was there before the iteration)."""

    name: str
    model: ResolvedModel
    stage: str | None = None


def final_stage(recipe: Recipe) -> str:
    """The training stage whose model the iteration ends in."""
    last = stage_graph(recipe)[-1].model
    assert last is not None  # noqa: S101 - the promotion always has a model
    return last


def checkpoints(ctx: StageContext) -> list[Checkpoint]:
    """Base (where it differs from θ0 and is wanted), θ0, then every trained model, in the order of training."""
    frozen = ctx.frozen
    spec = frozen.iteration.spec
    found = [Checkpoint(THETA0, frozen.generator)]
    if spec.evaluation.base and frozen.base.digest != frozen.generator.digest:
        found.insert(0, Checkpoint(BASE, frozen.base))
    for node in stage_graph(spec.recipe):
        if node.name in NAMES:
            found.append(Checkpoint(NAMES[node.name], trained_model(ctx, node.name), node.name))
    return found


def evaluate(ctx: StageContext, load_vlm: Callable[[Checkpoint], VisionLanguageModel]) -> Manifest | None:
    """Runs the stage: one part per checkpoint, answers reused where this very evaluation was done before.

    Args:
        ctx: the stage.
        load_vlm: opens a checkpoint; called only for those whose answers are not known yet.
    """
    settings, recipe = ctx.frozen.iteration.spec.evaluation, ctx.frozen.iteration.spec.recipe
    models = checkpoints(ctx)
    inputs = [c.stage for c in models if c.stage is not None]
    if not settings.questions:
        return ctx.finish(inputs, outputs={"scores": {}, "comparisons": {}, "final": models[-1].name})
    questions = load_questions(settings.questions, "test", settings.limit)
    prompts = PromptSet.load(recipe.prompts)
    digest = evaluation_digest(questions, prompts, settings.max_tokens, ctx.frozen.iteration.spec.engines.vlm)
    pending = ctx.pending(len(models))
    total = len(models) * len(questions)
    ctx.progress.begin("evaluate", total, total - len(pending) * len(questions))
    for index in pending:
        begin, checkpoint = time.monotonic(), models[index]
        key = f"evaluations/{digest}/{checkpoint.model.digest.rpartition(':')[2]}.parquet"
        rows = _recall(ctx, key, questions)
        if rows is None:
            vlm = load_vlm(checkpoint)
            answered = ask(
                vlm,
                questions,
                prompts,
                max_tokens=settings.max_tokens,
                batch=settings.batch,
                on_batch=ctx.progress.advance,
            )
            rows = [
                {
                    "question_id": a.question.question_id,
                    "domain": a.question.domain,
                    "kind": a.question.kind,
                    "expected": a.question.answer,
                    "prediction": a.prediction,
                    "correct": a.correct,
                }
                for a in answered
            ]
            ctx.store.put(key, _parquet(rows))
        else:
            ctx.progress.advance(len(questions))
        named = {"model": checkpoint.name, "model_digest": checkpoint.model.digest, "accepted": True, "reason": ""}
        ctx.write_part(index, [{**named, **row} for row in rows], _schema(), seconds=time.monotonic() - begin)
    if any(ctx.part(index) is None for index in range(len(models))):
        return None
    verdicts = {c.name: _verdicts(ctx, index) for index, c in enumerate(models)}
    return ctx.finish(
        inputs,
        parts=len(models),
        outputs={
            "questions": {"uri": settings.questions, "digest": digest, "n": len(questions)},
            "checkpoints": {c.name: c.model.digest for c in models},
            "final": models[-1].name,
            "scores": {name: scores(v) for name, v in verdicts.items()},
            "comparisons": {
                f"{later.name}-{earlier.name}": comparisons(verdicts[earlier.name], verdicts[later.name])
                for i, earlier in enumerate(models)
                for later in models[i + 1 :]
            },
        },
    )


def evaluation_digest(questions: Sequence[Question], prompts: PromptSet, max_tokens: int, engine: str) -> str:
    """sha256 of what decides the answers beside the model: questions, images, prompt, longest answer, engine."""
    decides = [set_digest(questions), prompts.digest("question"), max_tokens, engine]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _recall(ctx: StageContext, key: str, questions: Sequence[Question]) -> list[dict[str, Any]] | None:
    """The answers of an earlier evaluation; None when there is none, or it does not hold these questions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(ctx.store.get(key))).to_pylist()
    except (NotFoundError, pa.ArrowInvalid):
        return None
    expected = [(q.question_id, q.answer) for q in questions]
    same = bool(rows) and set(_ANSWERS) <= set(rows[0])
    return rows if same and [(r["question_id"], r["expected"]) for r in rows] == expected else None


def _verdicts(ctx: StageContext, index: int) -> Verdicts:
    part = ctx.part(index)
    assert part is not None  # noqa: S101 - the caller has looked
    rows = ctx.table(EVALUATE, part, ["question_id", "domain", "correct"]).to_pylist()
    return {r["question_id"]: (r["domain"], r["correct"]) for r in rows}


_ANSWERS = ("question_id", "domain", "kind", "expected", "prediction")


def _schema(named: bool = True) -> pa.Schema:
    import pyarrow as pa

    answers = [*((name, pa.string()) for name in _ANSWERS), ("correct", pa.bool_())]
    if not named:
        return pa.schema(answers)
    outer = [("model", pa.string()), ("model_digest", pa.string())]
    return pa.schema([*outer, *answers, ("accepted", pa.bool_()), ("reason", pa.string())])


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=_schema(named=False)), buffer, compression="zstd")
    return buffer.getvalue()


def overall(scores_of_model: dict[str, dict[str, float]] | None) -> float:
    """The overall accuracy in a manifest's scores; 0 when nothing was asked."""
    return scores_of_model[OVERALL]["accuracy"] if scores_of_model else 0.0
