"""How many items each stage works on, from the recipe: quotas, pool, edits for each image, acceptance. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from viper.costs.ranges import ZERO, Range, total
from viper.methods.stages import (
    COLD_START,
    EVALUATE,
    INGEST,
    INGEST_SAMPLES,
    MAP_ATTENTION,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
    stage_graph,
)
from viper.spec import IterationSpec
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.forms import COUNTED
from viper.spec.options import ExternalData
from viper.spec.recipe import TrainingSettings
from viper.stage.quota import candidates
from viper.words import plural

#: Less is not reckoned with: nothing would ever be done.
LEAST_ACCEPTANCE = 0.01
#: Samples of the paper's cold start, where the file of samples is not read.
COLD_START_SAMPLES = 1000
#: Rows of ViRL39K, the paper's external data, where the file of samples is not read.
EXTERNAL_SAMPLES = 38_870
_COUNT = re.compile(rf"{COUNTED}(\d+)")


@dataclass(frozen=True)
class Items:
    """What a stage works on, what it keeps, and what a person should know of it."""

    worked: Range
    kept: Range = ZERO
    notes: tuple[str, ...] = ()


class Task(NamedTuple):
    """One of the two kinds of data. `samples`: wanted; `candidates`: with which synthesis stops; `per_image`: rows."""

    synthesis: str
    validation: str
    field: str
    samples: int
    candidates: int
    per_image: int = 1


def items_of(spec: IterationSpec, acceptance: Mapping[str, Range], questions: int | None = None) -> dict[str, Items]:
    """Items by stage, in the order of the stages.

    Synthesis goes through the pool part by part until it has `samples / expectedAcceptance` candidates; validation of
    operations until it has `samples`. `acceptance`: share of each stage's rows that it accepts, of those that it has to
    judge. `questions`: how many the evaluation asks, where that is known.
    """
    recipe = spec.recipe
    share = {name: _possible(a) for name, a in acceptance.items()}
    stages = [node.name for node in stage_graph(recipe)]
    found: dict[str, Items] = {}
    tasks = [task for task in _tasks(spec) if task.synthesis in stages]
    images = [_images(task, share, recipe.part_size) for task in tasks]
    if images:
        wanted = Range(max(n.low for n in images), max(n.high for n in images))
        found[INGEST] = _pool(spec, wanted, share[INGEST])
    if recipe.external is not None:
        found[INGEST_SAMPLES] = _supplied(recipe.external, share[INGEST_SAMPLES])
    if COLD_START in stages:
        note = (
            f"the samples of coldStart.samplesUri are not read: reckoned with {COLD_START_SAMPLES:,}, as in the paper"
        )
        epochs = recipe.cold_start.epochs if recipe.cold_start else 1.0
        found[COLD_START] = Items(Range.of(COLD_START_SAMPLES) * epochs, notes=(note,))
    for task, needed in zip(tasks, images, strict=True):
        found |= _task(task, needed, found[INGEST].kept, share)
    held_out = recipe.validation.held_out_share

    def train(*names: str) -> Range:
        return total(found[name].kept for name in names) * (1 - held_out)

    settings = {
        TRAIN_CAPTIONS: recipe.captions.training,
        TRAIN_OPERATIONS: recipe.operations.training,
        TRAIN_MIXED: recipe.captions.training,
    }
    trainings = [node for node in stage_graph(recipe) if node.name in settings]
    for node in trainings:
        found[node.name] = Items(_steps(settings[node.name], train(*node.data)))
    trained = len(trainings)
    watched = recipe.analysis.attention_images * (trained + 1 + (COLD_START in stages))
    found[MAP_ATTENTION] = Items(Range.of(watched), Range.of(watched))
    found[EVALUATE] = _answers(spec, questions, trained)
    return {name: found.get(name, Items(ZERO)) for name in stages}


def _tasks(spec: IterationSpec) -> tuple[Task, Task]:
    captions, operations = spec.recipe.captions, spec.recipe.operations
    return (
        Task(
            SYNTHESIZE_CAPTIONS,
            VALIDATE_CAPTIONS,
            "captions",
            captions.samples,
            candidates(captions.samples, captions.expected_acceptance),
        ),
        Task(
            SYNTHESIZE_OPERATIONS,
            VALIDATE_OPERATIONS,
            "operations",
            operations.samples,
            candidates(operations.samples, operations.expected_acceptance),
            operations.edits_per_image,
        ),
    )


def _images(task: Task, share: Mapping[str, Range], part_size: int) -> Range:
    """Images that the candidates of a task are made from, in whole parts."""
    return (Range.of(task.candidates) / share[task.synthesis] / task.per_image).rounded_up(part_size)


def pool_size(spec: IterationSpec) -> int | None:
    """Images of the pool, as far as the specification tells."""
    drawn = _COUNT.match(spec.images.uri)
    there = None if drawn is None else max(0, int(drawn[1]) - spec.images.offset)
    known = [n for n in (there, spec.images.limit) if n is not None]
    return min(known) if known else None


def _supplied(external: ExternalData, accepted: Range) -> Items:
    if external.samples is not None:
        return Items(Range.of(external.samples), Range.of(external.samples))
    note = f"the rows of external.uri are not read: reckoned with {EXTERNAL_SAMPLES:,}, as in ViRL39K"
    return Items(Range.of(EXTERNAL_SAMPLES), accepted * EXTERNAL_SAMPLES, (note,))


def _pool(spec: IterationSpec, wanted: Range, accepted: Range) -> Items:
    size = pool_size(spec)
    if size is not None:
        return Items(Range.of(size), accepted * size)
    needed = math.ceil(wanted.high / accepted.low)
    note = f"images.limit is not set: reckoned with as many images as are needed, up to {needed:,}"
    return Items(wanted / accepted, wanted, (note,))


def _task(task: Task, images: Range, pool: Range, share: Mapping[str, Range]) -> dict[str, Items]:
    """A synthesis and its validation."""
    worked = images.at_most(pool) * task.per_image
    given = pool * task.per_image * share[task.synthesis]
    made = given.at_most(task.candidates)
    good = share[task.validation]
    kept = (made * good).at_most(task.samples)
    judged = made.at_most(Range.of(task.samples) / good) if task.validation == VALIDATE_OPERATIONS else made
    return {
        task.synthesis: Items(worked, made, tuple(_short_pool(task, given))),
        task.validation: Items(judged, kept, tuple(_short_yield(task, good))),
    }


def _short_pool(task: Task, given: Range) -> Iterator[str]:
    of = f"of the {plural(task.candidates, 'candidate', ',')} that synthesis aims at"
    if given.high < task.candidates:
        yield f"the pool gives at most {given.high:,.0f} {of}"
    elif given.low < task.candidates:
        yield f"if little is accepted, the pool gives only {given.low:,.0f} {of}"


def _short_yield(task: Task, good: Range) -> Iterator[str]:
    setting = f"recipe.{task.field}.expectedAcceptance"
    worst, best = (task.candidates * end for end in (good.low, good.high))
    if best < task.samples:
        yield f"gives at most {best:,.0f} of {plural(task.samples, 'sample', ',')}: {setting} is too high"
    elif worst < task.samples:
        yield (
            f"if only {100 * good.low:.0f} % are accepted, {worst:,.0f} of {plural(task.samples, 'sample', ',')} come "
            f"out: {setting} decides how many candidates are paid for"
        )


def _steps(settings: TrainingSettings, samples: Range) -> Range:
    if settings.steps is not None:
        return Range.of(settings.steps)
    low, high = (max(1, math.ceil(settings.epochs * n / settings.batch_prompts)) for n in (samples.low, samples.high))
    return Range(low, high)


def _answers(spec: IterationSpec, questions: int | None, trained: int) -> Items:
    """θ0, each trained checkpoint and, unless it is θ0, the base answer every question."""
    evaluation = spec.evaluation
    tasks = evaluation.benchmarks.tasks
    if not evaluation.questions and not tasks:
        return Items(ZERO, notes=("evaluation.questions is empty: nothing is asked",))
    known = questions if evaluation.limit is None or questions is None else min(questions, evaluation.limit)
    known = known if known is not None else evaluation.limit
    notes = []
    if evaluation.questions and known is None:
        notes.append("the number of questions is not known: give --questions N")
    own = known or 0 if evaluation.questions else 0
    sizes = {name: BENCHMARKS[name].size for name in tasks}
    asked = own + sum(min(size, tasks[name].limit or size) for name, size in sizes.items())
    if asked == 0:
        return Items(ZERO, notes=tuple(notes))
    answers = Range(asked * (trained + 1), asked * (trained + 1 + evaluation.base))
    return Items(answers, answers, notes=tuple(notes))


def _possible(acceptance: Range) -> Range:
    return Range(max(LEAST_ACCEPTANCE, acceptance.low), max(LEAST_ACCEPTANCE, acceptance.high))
