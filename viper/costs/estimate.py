"""What every stage of an iteration, and a loop, will take. Pure: from specification, table and measurements alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from viper.costs.demand import (
    TRAININGS,
    UNITS,
    Demand,
    acceptance_key,
    demands,
    engine_name,
    generator_size,
    gpu_of,
    speed_key,
)
from viper.costs.items import Items, items_of
from viper.costs.measured import Measurements
from viper.costs.ranges import ZERO, Range, total
from viper.costs.storage import stage_bytes
from viper.costs.table import CPU, DEFAULT_GPU, Rate, RateTable, Work
from viper.methods.stages import STAGES, stage_graph
from viper.spec import IterationSpec, LoopSpec

#: Assumed where no name tells the model's size, in billions of parameters: the paper's larger one.
DEFAULT_SIZE = 7.0
#: A measurement under other settings is scaled by the table; that is off by as much again.
_SCALED = 0.25


@dataclass(frozen=True)
class StageCost:
    """One stage. `seconds_per_item`: of one GPU (of one pod where there is none); `wall`: of the stage, s."""

    name: str
    unit: str
    items: Range
    acceptance: Range | None
    seconds_per_item: Range
    shards: int
    gpus: int
    wall: Range
    gpu_hours: Range
    storage: Range
    money: Range | None
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class IterationCost:
    """An iteration: its stages, and what is assumed of all of them."""

    stages: tuple[StageCost, ...]
    gpu: str
    assumptions: tuple[str, ...] = ()

    @property
    def wall(self) -> Range:
        """Seconds, one stage after the other."""
        return total(s.wall for s in self.stages)

    @property
    def gpu_hours(self) -> Range:
        """GPU-hours."""
        return total(s.gpu_hours for s in self.stages)

    @property
    def storage(self) -> Range:
        """Bytes in the object store."""
        return total(s.storage for s in self.stages)

    @property
    def money(self) -> Range | None:
        """US$; None without a price."""
        amounts = [s.money for s in self.stages if s.money is not None]
        return total(amounts) if amounts else None


@dataclass(frozen=True)
class LoopCost:
    """A loop. `affordable`: iterations that its budget is good for, at worst and at best; None without a budget."""

    iteration: IterationCost
    iterations: int
    budget: float | None
    affordable: tuple[int, int] | None

    @property
    def gpu_hours(self) -> Range:
        """GPU-hours of all iterations."""
        return self.iteration.gpu_hours * self.iterations


@dataclass(frozen=True)
class Circumstances:
    """What is known beside the specification. `gpu`, `price`: instead of what the profile and the table say."""

    table: RateTable
    measurements: Measurements = field(default_factory=Measurements)
    gpu: str | None = None
    price: float | None = None
    questions: int | None = None


def iteration_cost(spec: IterationSpec, known: Circumstances) -> IterationCost:
    """The cost of one iteration."""
    acceptance, sources = _acceptance(spec, known)
    counted = items_of(spec, acceptance, known.questions)
    gpus = {n.name: known.gpu or gpu_of(spec, n.name, known.table) or DEFAULT_GPU for n in stage_graph(spec.recipe)}
    stages = tuple(
        _stage(spec, _Expected(name, items, gpus[name], acceptance.get(name), sources.get(name)), known)
        for name, items in counted.items()
    )
    kinds = sorted({gpus[s.name] for s in stages if s.gpus}) or [CPU]
    return IterationCost(stages, ", ".join(kinds), tuple(_assumptions(spec, known)))


def loop_cost(spec: LoopSpec, known: Circumstances) -> LoopCost:
    """The cost of a loop: every iteration works on as many images with as large a model."""
    one = iteration_cost(spec.template, known)
    budget = spec.budget.gpu_hours
    affordable = None
    if budget is not None and one.gpu_hours.low > 0:
        worst, best = (
            min(spec.iterations, math.floor(budget / h + 1e-9)) for h in (one.gpu_hours.high, one.gpu_hours.low)
        )
        affordable = (worst, best)
    return LoopCost(one, spec.iterations, budget, affordable)


def _assumptions(spec: IterationSpec, known: Circumstances) -> Sequence[str]:
    found = []
    uses = any(spec.profile.of(n.name).gpus for n in stage_graph(spec.recipe))
    if uses and known.gpu is None and all(gpu_of(spec, s, known.table) in (None, CPU) for s in STAGES):
        found.append(
            f"no nodeSelector (nvidia.com/gpu.product) names a known GPU: reckoned with {DEFAULT_GPU}; --gpu NAME"
        )
    if uses and generator_size(spec) is None:
        found.append(f"no name tells the size of the model: reckoned with {DEFAULT_SIZE:g} billion parameters")
    return [*found, *known.table.notes]


def _acceptance(spec: IterationSpec, known: Circumstances) -> tuple[dict[str, Range], dict[str, str]]:
    values = {name: figure.range for name, figure in known.table.acceptance.items()}
    sources = {name: f"acceptance {figure.kind}" for name, figure in known.table.acceptance.items()}
    for name in values:
        measured = known.measurements.acceptance(name, acceptance_key(spec, name))
        if measured is not None:
            values[name], sources[name] = measured.value, f"acceptance {measured.source()}"
    return values, sources


class _Expected(NamedTuple):
    """What a stage works on, on which GPU, and what share it accepts."""

    name: str
    counted: Items
    gpu: str
    acceptance: Range | None
    accepted_by: str | None


def _stage(spec: IterationSpec, expected: _Expected, known: Circumstances) -> StageCost:
    name, counted, gpu, acceptance, accepted_by = expected
    resources = spec.profile.of(name)
    each, sources = _seconds(spec, name, gpu, known) if counted.worked.high else (ZERO, ())
    work = each * counted.worked
    devices = max(1, resources.gpus) * resources.nodes
    # Shards take parts in turn, so that one of them has up to a part more than its share.
    parts = max(1.0, counted.worked.high / spec.recipe.part_size)
    shards = min(resources.shards, math.ceil(parts))
    uneven = math.ceil(parts / shards) * shards / parts
    startup = _startup(spec, name, gpu, known) if counted.worked.high else ZERO
    wall = Range(work.low / devices / shards, work.high / devices / shards * uneven) + startup
    hours = (work + startup * (devices * shards)) / 3600 if resources.gpus else ZERO
    price = None
    if resources.gpus:
        price = Range.of(known.price) if known.price is not None else Range(*known.table.gpus[gpu].price)
    return StageCost(
        name=name,
        unit=UNITS.get(name, ""),
        items=counted.worked,
        acceptance=acceptance if counted.worked.high else None,
        seconds_per_item=each,
        shards=resources.shards * resources.nodes,
        gpus=resources.gpus,
        wall=wall,
        gpu_hours=hours,
        storage=stage_bytes(spec, name, counted, known.table),
        money=None if price is None else hours * price,
        sources=tuple(dict.fromkeys((*sources, *((accepted_by,) if accepted_by and counted.worked.high else ())))),
        notes=(*counted.notes, *(_within_a_step(spec, name, gpu, known.table) if counted.worked.high else ())),
    )


def _startup(spec: IterationSpec, stage: str, gpu: str, known: Circumstances) -> Range:
    """Seconds of each pod before its first item."""
    key = speed_key(spec, stage, known.table) | {"gpu": gpu}
    measured = known.measurements.startup(stage, key)
    return known.table.startup["gpu" if spec.profile.of(stage).gpus else "cpu"].range if measured is None else measured


def _seconds(spec: IterationSpec, stage: str, gpu: str, known: Circumstances) -> tuple[Range, tuple[str, ...]]:
    """Seconds of one GPU for each item, and how anybody knows: measured, scaled from a measurement, or by the table."""
    key = speed_key(spec, stage, known.table) | {"gpu": gpu}
    devices = max(1, spec.profile.of(stage).gpus) * spec.profile.of(stage).nodes
    if (same := known.measurements.speed(stage, key)) is not None:
        return same.value * devices, (same.source(),)
    reckoned, sources = _reckoned(list(demands(spec, stage, known.table)), gpu, known.table)
    if (like := known.measurements.like(stage, key)) is not None and reckoned.middle > 0:
        try:
            wanted = [_demand(d) for d in like.like["demands"]]
            before = _reckoned(wanted, gpu, known.table, _calls(spec, stage, known))[0]
        except (KeyError, TypeError, ValueError):  # somebody else's record, or of another version
            before = ZERO
        if before.middle > 0:
            scaled = like.value * devices * (reckoned.middle / before.middle)
            wider = Range(scaled.low * (1 - _SCALED), scaled.high * (1 + _SCALED))
            return wider, (f"scaled from what was {like.source()} under other settings",)
    return reckoned, sources


def _calls(spec: IterationSpec, stage: str, known: Circumstances) -> list[Range]:
    return [d.calls for d in demands(spec, stage, known.table)]


def _demand(key: dict[str, object]) -> Demand:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in key.items()}
    return Demand(**{"engine": "", "calls": Range(1, 1), **fields})  # type: ignore[arg-type]


def _reckoned(
    wanted: Sequence[Demand], gpu: str, table: RateTable, calls: Sequence[Range] | None = None
) -> tuple[Range, tuple[str, ...]]:
    """GPU-seconds of one item by the table."""
    seconds, sources = [], []
    for number, demand in enumerate(wanted):
        times = demand.calls if calls is None or len(calls) <= number else calls[number]
        one, kind = call_seconds(demand, gpu, table)
        seconds.append(one * times)
        sources.append(f"{demand.work} {kind}")
    return total(seconds), tuple(sources)


def call_seconds(demand: Demand, gpu: str, table: RateTable) -> tuple[Range, str]:
    """GPU-seconds of one call, and how they are known; 0 and `unknown` where the table has nothing.

    Of several rates the one whose settings are nearest counts; as many as are equally near span the range.
    """
    rates = table.fitting(demand.work, demand.engine, gpu)
    if not rates:
        return ZERO, "unknown"
    distances = [_distance(demand, rate) for rate in rates]
    nearest = [r for r, d in zip(rates, distances, strict=True) if d <= min(distances) + 1e-9]
    found = [_scaled(demand, rate, gpu, table) for rate in nearest]
    known = {_known(rate, gpu): None for rate in nearest}
    return Range(min(f.low for f in found), max(f.high for f in found)), "; ".join(known)


#: Seconds are in proportion to these settings …
_PROPORTIONAL = ("steps", "passes", "megapixels", "billions", "rollouts")
#: … and these only tell which rate is nearest; a call with other images is another kind of call.
_LIKENESS = {"batch": 1.0, "images": 4.0, "tokens": 1.0}


def _wanted(demand: Demand, name: str) -> float | None:
    return (demand.billions or DEFAULT_SIZE) if name == "billions" else getattr(demand, name)


def _distance(demand: Demand, rate: Rate) -> float:
    """How unlike two settings are: the sum of the logarithms of their ratios, and 1 for every factor that differs."""
    apart = 0.0
    for name in (*_PROPORTIONAL, *_LIKENESS):
        wanted, at = _wanted(demand, name), getattr(rate, name)
        if wanted is not None and at is not None:
            apart += _LIKENESS.get(name, 1.0) * abs(math.log(wanted / at))
    return apart + len(set(demand.factors) ^ set(rate.factors))


def _scaled(demand: Demand, rate: Rate, gpu: str, table: RateTable) -> Range:
    seconds = Range(*rate.seconds) * rate.gpus
    for name in _PROPORTIONAL:
        wanted, at = _wanted(demand, name), getattr(rate, name)
        if wanted is not None and at is not None:
            seconds = seconds * (wanted / at)
    if rate.gpu != gpu:
        seconds = seconds / table.relative(rate.gpu, gpu)
    for name in demand.factors:
        if name not in rate.factors:
            seconds = seconds * table.factors[name].range
    for name in rate.factors:
        if name not in demand.factors:
            seconds = seconds / table.factors[name].range
    return seconds


def _known(rate: Rate, gpu: str) -> str:
    kind = f"{rate.kind}: {rate.source}" if rate.kind == "measured" else rate.kind
    return kind if rate.gpu == gpu else f"{kind}, for {gpu}" if rate.kind == "measured" else f"{kind} for {rate.gpu}"


#: What a training step is made of, where the kit has measured it: work, and what one call of it is.
_WITHIN_A_STEP: tuple[tuple[Work, str], ...] = (
    ("score", "log-probabilities of an answer"),
    ("finetune", "forward and backward of an answer"),
    ("embed", "the embedding of a sentence"),
)


def _within_a_step(spec: IterationSpec, stage: str, gpu: str, table: RateTable) -> Iterator[str]:
    """What is measured of a training step's work, for one GPU: it is within the step's own time."""
    if stage not in TRAININGS:
        return
    engines = {"embed": engine_name(spec.engines.similarity)}
    for work, what in _WITHIN_A_STEP:
        demand = Demand(
            work, engines.get(work, engine_name(spec.engines.trainer)), Range(1, 1), billions=generator_size(spec)
        )
        if any(rate.kind == "measured" for rate in table.fitting(work, demand.engine, gpu)):
            seconds, known = call_seconds(demand, gpu, table)
            yield f"within a step: {what}, {seconds.low:.3g} to {seconds.high:.3g} s of a GPU ({known})"
