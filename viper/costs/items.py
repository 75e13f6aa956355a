"""How many items each stage works on, from what it makes of what: quotas, pool, items of an image, acceptance. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from viper.costs.ranges import ZERO, Range, total
from viper.methods.stages import Makes, StageNode
from viper.spec import IterationSpec
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.forms import COUNTED
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
_UNKNOWN = "nothing says how many items it works on"
#: What rows are made from, and what of them is judged: the first kind that the stage needs.
_FOR_ROWS: tuple[Makes, ...] = ("images", "rows", "samples")
_FOR_SAMPLES: tuple[Makes, ...] = ("rows", "images", "samples")


@dataclass(frozen=True)
class Items:
    """What a stage works on, what it keeps, and what a person should know of it."""

    worked: Range
    kept: Range = ZERO
    notes: tuple[str, ...] = ()


class Goal(NamedTuple):
    """What rows are made for. `candidates`: with which synthesis stops; `setting`: what decides them."""

    samples: int
    candidates: int
    setting: str


def items_of(
    spec: IterationSpec, graph: Sequence[StageNode], acceptance: Mapping[str, Range], questions: int | None = None
) -> dict[str, Items]:
    """Items by stage, in the order of the stages.

    Synthesis goes through the pool part by part until it has `samples / expectedAcceptance` candidates; validation that
    several shards share until it has `samples`. `acceptance`: share of each stage's rows that it accepts, of those that
    it has to judge. `questions`: how many the evaluation asks, where that is known.
    """
    least = LEAST_ACCEPTANCE
    share = {name: Range(max(least, a.low), max(least, a.high)) for name, a in acceptance.items()}
    counted = _Counted(spec, {node.name: node for node in graph}, share, questions)
    for node in graph:
        counted.found[node.name] = counted.items(node)
    return counted.found


@dataclass(frozen=True)
class _Counted:
    """The items of the stages before the next one."""

    spec: IterationSpec
    graph: Mapping[str, StageNode]
    share: Mapping[str, Range]
    questions: int | None
    found: dict[str, Items] = field(default_factory=dict)

    def items(self, node: StageNode) -> Items:
        makes = node.stage.makes
        match makes:
            case "images":
                found = self._pool(node)
            case "rows":
                found = self._synthesis(node)
            case "samples":
                found = self._validation(node) if node.needs else self._supplied(node)
            case "model":
                found = self._training(node)
            case "maps":
                maps = Range.of(self.spec.recipe.analysis.attention_images * (self._models(node) + 1))
                found = Items(maps, maps)
            case "scores":
                found = _answers(self.spec, self.questions, self._models(node))
            case "decision" | "iteration":
                found = Items(ZERO)
            case _:
                assert_never(makes)
        return Items(ZERO, notes=(_UNKNOWN,)) if math.isinf(found.worked.high) else found

    def _pool(self, node: StageNode) -> Items:
        size, accepted = pool_size(self.spec), self.share[node.name]
        if size is not None:
            return Items(Range.of(size), accepted * size)
        asked = [self._asked(n, goal) for n in self.graph.values() if node.name in n.needs and (goal := self._goal(n))]
        if not asked:
            return Items(Range.of(math.inf))
        wanted = Range(max(n.low for n in asked), max(n.high for n in asked))
        needed = math.ceil(wanted.high / accepted.low)
        note = f"images.limit is not set: reckoned with as many images as are needed, up to {needed:,}"
        return Items(wanted / accepted, wanted, (note,))

    def _supplied(self, node: StageNode) -> Items:
        external = self.spec.recipe.external
        if external is not None and external.samples is not None:
            return Items(Range.of(external.samples), Range.of(external.samples))
        note = f"the rows of external.uri are not read: reckoned with {EXTERNAL_SAMPLES:,}, as in ViRL39K"
        return Items(Range.of(EXTERNAL_SAMPLES), self.share[node.name] * EXTERNAL_SAMPLES, (note,))

    def _synthesis(self, node: StageNode) -> Items:
        pool, goal = self._given(node, _FOR_ROWS), self._goal(node)
        given = pool * self._per_image(node) * self.share[node.name]
        if goal is None:
            return Items(pool * self._per_image(node), given)
        worked = self._asked(node, goal).at_most(pool) * self._per_image(node)
        return Items(worked, given.at_most(goal.candidates), tuple(_short_pool(goal, given)))

    def _validation(self, node: StageNode) -> Items:
        made, good, goal = self._given(node, _FOR_SAMPLES), self.share[node.name], self._goal(node)
        if goal is None:
            return Items(made, made * good)
        # Where shards share the parts they stop with the quota; a single process goes through them all.
        judged = made.at_most(Range.of(goal.samples) / good) if node.stage.splittable else made
        return Items(judged, (made * good).at_most(goal.samples), tuple(_short_yield(goal, good)))

    def _training(self, node: StageNode) -> Items:
        samples = total(self.found[name].kept for name in node.data) * (1 - self.spec.recipe.validation.held_out_share)
        if node.stage.training:
            return Items(_steps(self.spec.value_at(node.stage.training), samples))
        if node.data:
            return Items(samples)
        note = (
            f"the samples of coldStart.samplesUri are not read: reckoned with {COLD_START_SAMPLES:,}, as in the paper"
        )
        epochs = self.spec.value_at("recipe.coldStart.epochs") or 1.0
        return Items(Range.of(COLD_START_SAMPLES) * epochs, notes=(note,))

    def _given(self, node: StageNode, kinds: Sequence[Makes]) -> Range:
        """What is kept of what a stage works on; without end where it needs nothing of the kind."""
        needed = [self.graph[name] for name in node.needs]
        made = next((found for kind in kinds if (found := [n for n in needed if n.stage.makes == kind])), [])
        return total(self.found[n.name].kept for n in made) if made else Range.of(math.inf)

    def _models(self, node: StageNode) -> int:
        """Trained models that a stage looks at beside θ0."""
        return sum(self.graph[name].stage.makes == "model" for name in node.needs)

    def _per_image(self, node: StageNode) -> int:
        several: int | None = self.spec.value_at(node.stage.per_image) if node.stage.per_image else None
        return several or 1

    def _goal(self, node: StageNode) -> Goal | None:
        """The quota of a stage, or of the one that judges its rows; None where there is none."""
        near = (node, *(n for n in self.graph.values() if node.name in n.needs))
        judge = next((n.stage for n in near if n.stage.quota), None)
        if judge is None:
            return None
        samples = self.spec.value_at(judge.quota)
        expected = self.spec.value_at(judge.expected_acceptance) if judge.expected_acceptance else 1.0
        return Goal(samples, candidates(samples, expected), judge.expected_acceptance or judge.quota)

    def _asked(self, node: StageNode, goal: Goal) -> Range:
        """Images that the candidates are made from, in whole parts."""
        images = Range.of(goal.candidates) / self.share[node.name] / self._per_image(node)
        return images.rounded_up(self.spec.recipe.part_size)


def pool_size(spec: IterationSpec) -> int | None:
    """Images of the pool, as far as the specification tells."""
    drawn = _COUNT.match(spec.images.uri)
    there = None if drawn is None else max(0, int(drawn[1]) - spec.images.offset)
    known = [n for n in (there, spec.images.limit) if n is not None]
    return min(known) if known else None


def _short_pool(goal: Goal, given: Range) -> Iterator[str]:
    of = f"of the {plural(goal.candidates, 'candidate', ',')} that synthesis aims at"
    if given.high < goal.candidates:
        yield f"the pool gives at most {given.high:,.0f} {of}"
    elif given.low < goal.candidates:
        yield f"if little is accepted, the pool gives only {given.low:,.0f} {of}"


def _short_yield(goal: Goal, good: Range) -> Iterator[str]:
    worst, best = (goal.candidates * end for end in (good.low, good.high))
    if best < goal.samples:
        yield f"gives at most {best:,.0f} of {plural(goal.samples, 'sample', ',')}: {goal.setting} is too high"
    elif worst < goal.samples:
        yield (
            f"if only {100 * good.low:.0f} % are accepted, {worst:,.0f} of {plural(goal.samples, 'sample', ',')} come "
            f"out: {goal.setting} decides how many candidates are paid for"
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
        return Items(ZERO, notes=spec.warnings() or ("evaluation.questions is empty: nothing is asked",))
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
