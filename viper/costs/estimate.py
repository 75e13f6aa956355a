"""What every stage of an iteration, and a loop, will take. Pure: from specification, table and measurements alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from viper.costs.demand import Demand, acceptance_key, demands, engine_name, generator_size, gpu_of, speed_key
from viper.costs.items import Items, items_of
from viper.costs.measured import Measurements
from viper.costs.ranges import ZERO, Range, total
from viper.costs.storage import stage_bytes
from viper.costs.table import CPU, DEFAULT_GPU, Rate, RateTable, Work
from viper.methods.stages import StageNode, stage_graph
from viper.spec import IterationSpec, LoopSpec, StageResources

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


@dataclass(frozen=True)
class _Place:
    """A stage and where it runs."""

    spec: IterationSpec
    node: StageNode
    known: Circumstances

    @property
    def resources(self) -> StageResources:
        return self.spec.profile.of(self.node.name)

    @property
    def gpu(self) -> str:
        return self.known.gpu or gpu_of(self.spec, self.node.name, self.known.table) or DEFAULT_GPU

    @property
    def devices(self) -> int:
        """GPUs of a shard; pods where there is none."""
        return max(1, self.resources.gpus) * self.resources.nodes

    @property
    def demands(self) -> list[Demand]:
        return list(demands(self.spec, self.node, self.known.table))

    @property
    def key(self) -> dict[str, Any]:
        return speed_key(self.spec, self.node, self.known.table) | {"gpu": self.gpu}


def iteration_cost(spec: IterationSpec, known: Circumstances, graph: Sequence[StageNode] = ()) -> IterationCost:
    """The cost of one iteration. `graph`: its stages; none: those of its recipe."""
    nodes = graph or stage_graph(spec.recipe)
    judged = [n for n in nodes if n.stage.makes in ("images", "rows", "samples")]
    accepted = {n.name: _acceptance(spec, n, nodes, known) for n in judged}
    counted = items_of(spec, nodes, {name: share for name, (share, _) in accepted.items()}, known.questions)
    places = [_Place(spec, node, known) for node in nodes]
    stages = []
    for place in places:
        items = counted[place.node.name]
        stored = stage_bytes(spec, place.node, nodes, items, known.table)
        stages.append(_stage(place, items, stored, accepted.get(place.node.name) if items.worked.high else None))
    kinds = sorted({place.gpu for place in places if place.resources.gpus}) or [CPU]
    return IterationCost(tuple(stages), ", ".join(kinds), tuple(_assumptions(spec, nodes, known)))


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


def _assumptions(spec: IterationSpec, graph: Sequence[StageNode], known: Circumstances) -> Iterator[str]:
    if any(spec.profile.of(n.name).gpus for n in graph):
        if known.gpu is None and all(gpu_of(spec, n.name, known.table) in (None, CPU) for n in graph):
            yield f"no nodeSelector (nvidia.com/gpu.product) names a known GPU: reckoned with {DEFAULT_GPU}; --gpu NAME"
        if generator_size(spec) is None:
            yield f"no name tells the size of the model: reckoned with {DEFAULT_SIZE:g} billion parameters"
    yield from known.table.notes


def _acceptance(
    spec: IterationSpec, node: StageNode, graph: Sequence[StageNode], known: Circumstances
) -> tuple[Range, str]:
    """Which share of its rows a stage accepts, and how anybody knows."""
    measured = known.measurements.acceptance(node.name, acceptance_key(spec, node, graph))
    if measured is not None:
        return measured.value, f"acceptance {measured.source()}"
    figure = known.table.acceptance.get(node.name)
    return (Range(0, 1), "acceptance unknown") if figure is None else (figure.range, f"acceptance {figure.kind}")


def _stage(place: _Place, counted: Items, stored: Range, accepted: tuple[Range, str] | None) -> StageCost:
    spec, resources, table = place.spec, place.resources, place.known.table
    works = bool(counted.worked.high)
    each, sources = _seconds(place) if works else (ZERO, ())
    startup = _startup(place) if works else ZERO
    work, devices = each * counted.worked, place.devices
    # Shards take parts in turn, so that one of them has up to a part more than its share.
    parts = max(1.0, counted.worked.high / spec.recipe.part_size)
    shards = min(resources.shards, math.ceil(parts))
    uneven = math.ceil(parts / shards) * shards / parts
    hours, money = ZERO, None
    if resources.gpus:
        price = place.known.price
        hours = (work + startup * (devices * shards)) / 3600
        money = hours * (Range(*table.gpus[place.gpu].price) if price is None else Range.of(price))
    return StageCost(
        name=place.node.name,
        unit=place.node.stage.unit,
        items=counted.worked,
        acceptance=accepted[0] if accepted else None,
        seconds_per_item=each,
        shards=resources.shards * resources.nodes,
        gpus=resources.gpus,
        wall=Range(work.low / devices / shards, work.high / devices / shards * uneven) + startup,
        gpu_hours=hours,
        storage=stored,
        money=money,
        sources=tuple(dict.fromkeys((*sources, *(accepted[1:] if accepted else ())))),
        notes=(*counted.notes, *(_within_a_step(place) if works else ())),
    )


def _startup(place: _Place) -> Range:
    """Seconds of each pod before its first item."""
    measured = place.known.measurements.startup(place.node.name, place.key)
    return place.known.table.startup["gpu" if place.resources.gpus else "cpu"].range if measured is None else measured


def _seconds(place: _Place) -> tuple[Range, tuple[str, ...]]:
    """Seconds of one GPU for each item, and how anybody knows: measured, scaled from a measurement, or by the table."""
    key, wanted, gpu, table = place.key, place.demands, place.gpu, place.known.table
    if (same := place.known.measurements.speed(place.node.name, key)) is not None:
        return same.value * place.devices, (same.source(),)
    reckoned, sources = _reckoned(wanted, gpu, table)
    if (like := place.known.measurements.like(place.node.name, key)) is not None and reckoned.middle > 0:
        try:
            then = [_demand(d) for d in like.like["demands"]]
            before = _reckoned(then, gpu, table, [d.calls for d in wanted])[0]
        except (KeyError, TypeError, ValueError):  # somebody else's record, or of another version
            before = ZERO
        if before.middle > 0:
            scaled = like.value * place.devices * (reckoned.middle / before.middle)
            wider = Range(scaled.low * (1 - _SCALED), scaled.high * (1 + _SCALED))
            return wider, (f"scaled from what was {like.source()} under other settings",)
    return reckoned, sources


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


def _within_a_step(place: _Place) -> Iterator[str]:
    """What is measured of a training step's work, for one GPU: it is within the step's own time."""
    if not place.node.stage.training:
        return
    engines, size, table = place.spec.engines, generator_size(place.spec), place.known.table
    for work, what in _WITHIN_A_STEP:
        engine = engine_name(engines.similarity if work == "embed" else engines.trainer)
        if any(rate.kind == "measured" for rate in table.fitting(work, engine, place.gpu)):
            demand = Demand(work, engine, Range(1, 1), billions=size)
            seconds, known = call_seconds(demand, place.gpu, table)
            yield f"within a step: {what}, {seconds.low:.3g} to {seconds.high:.3g} s of a GPU ({known})"
