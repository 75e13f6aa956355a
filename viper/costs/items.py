"""How many items each stage works on, from the recipe: quotas, pool, edits for each image, acceptance. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from viper.costs.ranges import ZERO, Range
from viper.spec import IterationSpec
from viper.spec.recipe import TrainingSettings
from viper.spec.stages import (
    COLD_START,
    EVALUATE,
    INGEST,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
    stage_graph,
)

#: Less is not reckoned with: nothing would ever be done.
LEAST_ACCEPTANCE = 0.01
#: Samples of the paper's cold start, where the file of samples is not read.
COLD_START_SAMPLES = 1000
_COUNT = re.compile(r"^smallworld:scenes\?.*\bcount=(\d+)")


@dataclass(frozen=True)
class Items:
    """What a stage works on, what it keeps, and what a person should know of it."""

    worked: Range
    kept: Range = ZERO
    notes: tuple[str, ...] = ()


def items_of(spec: IterationSpec, acceptance: Mapping[str, Range], questions: int | None = None) -> dict[str, Items]:
    """Items by stage, in the order of the stages.

    Synthesis goes through the pool until the quota is reached, part by part. `acceptance`: share of each stage's rows
    that it accepts. `questions`: how many the evaluation asks, where that is known.
    """
    recipe = spec.recipe
    share = {name: _possible(a) for name, a in acceptance.items()}
    stages = [node.name for node in stage_graph(recipe)]
    found: dict[str, Items] = {}
    captions = Range.of(recipe.captions.samples) / share[SYNTHESIZE_CAPTIONS] / share[VALIDATE_CAPTIONS]
    edits = Range.of(recipe.operations.samples) / share[SYNTHESIZE_OPERATIONS] / share[VALIDATE_OPERATIONS]
    per_image = recipe.operations.edits_per_image
    needed = [
        *([captions] if SYNTHESIZE_CAPTIONS in stages else []),
        *([edits / per_image] if SYNTHESIZE_OPERATIONS in stages else []),
    ]
    wanted = Range(max(n.low for n in needed), max(n.high for n in needed)).rounded_up(recipe.part_size)
    found[INGEST] = _pool(spec, wanted, share[INGEST])
    pool = found[INGEST].kept
    if COLD_START in stages:
        note = (
            f"the samples of coldStart.samplesUri are not read: reckoned with {COLD_START_SAMPLES:,}, as in the paper"
        )
        epochs = recipe.cold_start.epochs if recipe.cold_start else 1.0
        found[COLD_START] = Items(Range.of(COLD_START_SAMPLES) * epochs, notes=(note,))
    if SYNTHESIZE_CAPTIONS in stages:
        images = captions.rounded_up(recipe.part_size).at_most(pool)
        found |= _task(images, recipe.captions.samples, (SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS), share, pool)
    if SYNTHESIZE_OPERATIONS in stages:
        tried = ((edits / per_image).rounded_up(recipe.part_size).at_most(pool)) * per_image
        stages_of = (SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS)
        found |= _task(tried, recipe.operations.samples, stages_of, share, pool * per_image)
    held_out = recipe.validation.held_out_share

    def kept(*names: str) -> Range:
        low, high = (sum(getattr(found[n].kept, end) for n in names) for end in ("low", "high"))
        return Range(low, high) * (1 - held_out)

    data = {
        TRAIN_CAPTIONS: (recipe.captions.training, (VALIDATE_CAPTIONS,)),
        TRAIN_OPERATIONS: (recipe.operations.training, (VALIDATE_OPERATIONS,)),
        TRAIN_MIXED: (recipe.captions.training, (VALIDATE_CAPTIONS, VALIDATE_OPERATIONS)),
    }
    for name, (settings, sources) in data.items():
        if name in stages:
            found[name] = Items(_steps(settings, kept(*sources)))
    trained = sum(name in stages for name in data)
    found[EVALUATE] = _answers(spec, questions, trained)
    return {name: found.get(name, Items(ZERO)) for name in stages}


def pool_size(spec: IterationSpec) -> int | None:
    """Images of the pool, as far as the specification tells."""
    drawn = _COUNT.match(spec.images.uri)
    there = None if drawn is None else max(0, int(drawn[1]) - spec.images.offset)
    known = [n for n in (there, spec.images.limit) if n is not None]
    return min(known) if known else None


def _pool(spec: IterationSpec, wanted: Range, accepted: Range) -> Items:
    size = pool_size(spec)
    if size is not None:
        return Items(Range.of(size), accepted * size)
    needed = math.ceil(wanted.high / accepted.low)
    note = f"images.limit is not set: reckoned with as many images as are needed, up to {needed:,}"
    return Items(wanted / accepted, wanted, (note,))


def _task(
    worked: Range, quota: int, stages: tuple[str, str], share: Mapping[str, Range], most: Range
) -> dict[str, Items]:
    """A synthesis and its validation. Where more is worked on because less is accepted, what is kept is the same."""
    synthesis, validation = stages
    both = share[synthesis] * share[validation]
    notes = []
    # The pool can be short when acceptance is bad, or always.
    least, best = most.low * both.low, most.high * both.high
    if best < quota:
        notes.append(f"the pool gives at most {best:,.0f} of the quota of {quota:,} samples")
    elif least < quota:
        notes.append(f"if little is accepted, the pool gives only {least:,.0f} of the quota of {quota:,} samples")
    judged = sorted((worked.low * share[synthesis].high, worked.high * share[synthesis].low))
    kept = Range(min(quota, least), min(quota, best))
    return {
        synthesis: Items(worked, Range(*judged), tuple(notes)),
        validation: Items(Range(*judged), kept),
    }


def _steps(settings: TrainingSettings, samples: Range) -> Range:
    if settings.steps is not None:
        return Range.of(settings.steps)
    low, high = (max(1, math.ceil(settings.epochs * n / settings.batch_prompts)) for n in (samples.low, samples.high))
    return Range(low, high)


def _answers(spec: IterationSpec, questions: int | None, trained: int) -> Items:
    """θ0, each trained checkpoint and, unless it is θ0, the base answer every question."""
    evaluation = spec.evaluation
    if not evaluation.questions:
        return Items(ZERO, notes=("evaluation.questions is empty: nothing is asked",))
    asked = questions if evaluation.limit is None or questions is None else min(questions, evaluation.limit)
    asked = asked if asked is not None else evaluation.limit
    if asked is None:
        return Items(ZERO, notes=("the number of questions is not known: give --questions N",))
    answers = Range(asked * (trained + 1), asked * (trained + 1 + evaluation.base))
    return Items(answers, answers)


def _possible(acceptance: Range) -> Range:
    return Range(max(LEAST_ACCEPTANCE, acceptance.low), max(LEAST_ACCEPTANCE, acceptance.high))
