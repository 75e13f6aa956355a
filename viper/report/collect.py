"""Reads iterations from the object store into plain values; nothing here is computed that a manifest already states.

Whatever is not there yet (a stage, a curve, an evaluation) is None or empty: an unfinished iteration has a report too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import TypeAdapter, ValidationError

from viper.errors import NewerFormError, NotFoundError, StageError
from viper.evaluation.stage import BASE, THETA0
from viper.evaluation.statistics import OVERALL, Comparison, Score
from viper.iteration.observe import StoreObserver
from viper.methods.stages import DECLARED, Makes, Stage, StageNode, making
from viper.plan import Plan, StageStatus, State, plan
from viper.report.guarded import guarded, why
from viper.stage import FrozenIteration, Manifest, ProgressRecord, load_frozen, load_manifest
from viper.store import ObjectStore

#: Curve names, the trainer's (`viper.training.settings.StepMetrics`).
REWARD, HELD_OUT_REWARD, RECALL = "reward/mean", "held_out/reward", "shadow/recall"
#: Tasks that have a place in tables of several iterations, also where an iteration has no rows of them.
TASKS = tuple(stage.task for stage in DECLARED.values() if stage.makes == "rows")


@dataclass(frozen=True)
class StageState:
    """A stage of the graph: what the brain says of it, its manifest once it is done, progress until then."""

    status: StageStatus
    manifest: Manifest | None
    progress: ProgressRecord | None = None

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.status.name

    @property
    def words(self) -> str:
        """`done`, `held: …`, `failed: …`, `begun (caption 10/64)` or `not begun`."""
        state = self.status.state
        if state in (State.HELD, State.FAILED):
            return f"{state.value.lower()}: {self.status.message}"
        if self.manifest is not None:
            return "done"
        if self.progress is None:
            return "not begun"
        p = self.progress
        return f"begun ({p.phase + ' ' if p.phase else ''}{p.done}{f'/{p.total}' if p.total else ''})"


@dataclass(frozen=True)
class Funnel:
    """What became of the rows of one task. `made` is what synthesis wrote, `accepted` what validation let through.

    `synthesis` names the stages that made the rows (none: they were supplied), `validation` the one that judged them.
    Rejected rows are counted by the stage that rejected them, then by reason. `accepted`, `train` and `held_out` are
    None before validation (or training) has finished.
    """

    task: str
    title: str
    synthesis: tuple[str, ...]
    validation: str
    made: int
    synthesis_rejected: dict[str, int]
    validation_rejected: dict[str, int]
    accepted: int | None
    train: int | None = None
    held_out: int | None = None

    @property
    def rejected(self) -> dict[str, int]:
        """Rows by reason over both stages, most frequent first."""
        total = dict(self.synthesis_rejected)
        for reason, count in self.validation_rejected.items():
            total[reason] = total.get(reason, 0) + count
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    @property
    def rate(self) -> float | None:
        """Accepted rows as a share of those made; None while unknown."""
        return None if self.accepted is None or not self.made else self.accepted / self.made


@dataclass(frozen=True)
class Training:
    """One RL stage. `curves` has one mapping per logged step; `best_step` is the checkpoint that was kept."""

    stage: str
    task: str
    title: str
    curves: tuple[dict[str, float], ...]
    steps: int | None = None
    best_step: int | None = None

    def series(self, name: str) -> list[tuple[float, float]]:
        """(step, value) wherever the curve has that value."""
        return [(row["step"], row[name]) for row in self.curves if "step" in row and name in row]

    def ends(self, name: str) -> tuple[float, float] | None:
        """First and last value of a curve; None when there is none."""
        points = self.series(name)
        return (points[0][1], points[-1][1]) if points else None


Scores = dict[str, dict[str, Score]]
Comparisons = dict[str, dict[str, Comparison]]
_SCORES = TypeAdapter(Scores)
_COMPARISONS = TypeAdapter(Comparisons)


@dataclass(frozen=True)
class Outcome:
    """What promotion did."""

    decision: str
    reason: str
    version: int | None
    alias: str
    previous_version: int | None


@dataclass(frozen=True)
class IterationReport:
    """One iteration as far as it got. `scores` by model then domain, `comparisons` by `theta2-theta0` then domain."""

    frozen: FrozenIteration
    plan: Plan
    stages: tuple[StageState, ...]
    images: Manifest | None
    funnels: tuple[Funnel, ...]
    trainings: tuple[Training, ...]
    scores: Scores
    comparisons: Comparisons
    outcome: Outcome | None
    problems: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The iteration's name."""
        return self.frozen.name

    @property
    def final(self) -> str:
        """The last checkpoint that was scored: `theta2`, or `theta1` where only captions are learnt."""
        return next(reversed(self.called(self.scores)), THETA0)

    def called(self, scored: Iterable[str]) -> dict[str, str]:
        """How models that were scored are written for people, in the order of training."""
        there = dict.fromkeys(scored)
        known = {BASE: "starter", THETA0: "θ0"}
        trained = {node.score: node.label for node in making(self.frozen.nodes, "model")}
        order = {**known, **{m: m for m in there if m not in known}, **trained}
        return {m: trained.get(m, name) for m, name in order.items() if m in there}

    @property
    def learnt(self) -> list[str]:
        """What the checkpoints after each stage of learning from samples are called in scores."""
        return [node.score for node in self.frozen.nodes if node.data]

    def pairs(self, final: str, compared: Collection[str]) -> list[tuple[str, str, str]]:
        """Comparisons worth a table, the most telling first: the name, the later and the earlier model."""
        wanted = dict.fromkeys(((final, THETA0), (final, BASE), *((m, THETA0) for m in self.learnt)))
        return [(name, a, b) for a, b in wanted if (name := f"{a}-{b}") in compared]

    @property
    def seconds(self) -> float:
        """Wall-clock time of all finished stages."""
        return sum(s.manifest.seconds for s in self.stages if s.manifest is not None)

    @property
    def state(self) -> str:
        """`promoted`, `registered`, `held`, `failed` or `unfinished`."""
        return "unfinished" if self.plan.outcome in ("running", "suspended") else self.plan.outcome

    @property
    def pending(self) -> list[StageState]:
        """Stages that are not done."""
        return [s for s in self.stages if s.manifest is None]

    def stage(self, name: str) -> Manifest | None:
        """The manifest of a stage; None when it is not done or not part of this iteration."""
        return next((s.manifest for s in self.stages if s.name == name), None)

    def made(self, what: Makes) -> list[Manifest]:
        """The manifests of the stages that make it, as far as they are done."""
        return [m for node in making(self.frozen.nodes, what) if (m := self.stage(node.name)) is not None]

    @property
    def evaluation(self) -> Manifest | None:
        """The manifest of the last stage that made scores."""
        return next(reversed(self.made("scores")), None)

    def comparison(self, name: str, domain: str) -> Comparison | None:
        """A comparison such as `theta2-theta0` in one domain."""
        return self.comparisons.get(name, {}).get(domain)

    @property
    def domains(self) -> list[str]:
        """Domains that were scored, the overall score last."""
        found = dict.fromkeys(d for scores in self.scores.values() for d in scores)
        return [*sorted(d for d in found if d != OVERALL), *([OVERALL] if OVERALL in found else [])]


@dataclass(frozen=True)
class LoopReport:
    """Iterations in order; `not_started` are names without a frozen iteration in the store, `unreadable` those whose
    frozen iteration cannot be read, with the reason."""

    iterations: tuple[IterationReport, ...]
    not_started: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all finished stages."""
        return sum(i.seconds for i in self.iterations)

    @property
    def tasks(self) -> list[str]:
        """Tasks that rows were made for."""
        own = dict.fromkeys(f.task for i in self.iterations for f in i.funnels if f.synthesis)
        return list(TASKS if own.keys() <= set(TASKS) else own)

    @property
    def domains(self) -> list[str]:
        """Domains of all iterations, the overall score last."""
        found = dict.fromkeys(d for i in self.iterations for d in i.domains)
        return [*sorted(d for d in found if d != OVERALL), *([OVERALL] if OVERALL in found else [])]


def collect(store: ObjectStore, names: Iterable[str]) -> LoopReport:
    """Reads the named iterations; raises `StoreError` when the store cannot be read."""
    there: list[IterationReport] = []
    missing: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for name in names:
        try:
            there.append(collect_iteration(store, name))
        except NotFoundError:
            missing.append(name)
        except (StageError, NewerFormError) as error:
            unreadable.append((name, why(error)))
    return LoopReport(tuple(there), tuple(missing), tuple(unreadable))


def collect_iteration(store: ObjectStore, name: str) -> IterationReport:
    """Reads one iteration; raises `NotFoundError` without a frozen iteration, `StageError` when that is unreadable,
    `NewerFormError`."""
    frozen = load_frozen(store, name, error=StageError)
    if frozen is None:
        raise NotFoundError("there is no such iteration", where=f"{store.uri}/iterations/{name}")
    observer = StoreObserver(store, frozen)
    made = plan(frozen.iteration.spec, observer.observe(), now=0.0)
    stages = tuple(_stage(store, frozen, observer, status) for status in made.stages)
    manifests = {s.name: s.manifest for s in stages if s.manifest is not None}
    problems: list[str] = []
    trainings = []
    for node in frozen.nodes:
        if node.data and (manifest := manifests.get(node.name)) is not None:
            read = partial(_curves, store, frozen.prefix, manifest)
            none: tuple[tuple[dict[str, float], ...], str] = ((), "")
            curves, problem = guarded(problems, f"{node.name}: its curves", read, none)
            problems += [problem] if problem else []
            ends = (_whole(manifest.outputs.get(key)) for key in ("steps", "best_step"))
            trainings.append(Training(node.name, _task(node.stage), _title(node.stage), curves, *ends))

    def last(what: Makes) -> Manifest | None:
        return next((m for n in reversed(making(frozen.nodes, what)) if (m := manifests.get(n.name))), None)

    scores, comparisons, problem = _evaluation(last("scores"))
    problems += [problem] if problem else []
    return IterationReport(
        frozen=frozen,
        plan=made,
        stages=stages,
        images=last("images"),
        funnels=tuple(_funnels(frozen.nodes, manifests)),
        trainings=tuple(trainings),
        scores=scores,
        comparisons=comparisons,
        outcome=_outcome(last("decision")),
        problems=tuple(problems),
    )


def _stage(store: ObjectStore, frozen: FrozenIteration, observer: StoreObserver, status: StageStatus) -> StageState:
    if status.done is not None:
        return StageState(status, load_manifest(store, frozen.prefix, status.name))
    shards = frozen.iteration.spec.profile.of(status.name).shards
    return StageState(status, None, observer.progress(status.name, shards))


def _task(stage: Stage) -> str:
    return stage.task or stage.name


def _title(stage: Stage) -> str:
    return stage.title or _task(stage)


def _funnels(nodes: Sequence[StageNode], manifests: Mapping[str, Manifest]) -> Iterator[Funnel]:
    """What became of the rows that were made, then of rows that nobody judges, then of supplied samples."""
    rows, samples = making(nodes, "rows"), making(nodes, "samples")
    judged = [([r for r in rows if r.name in s.needs], s) for s in samples]
    alone = [([r], None) for r in rows if not any(r.name in s.needs for s in samples)]
    for made, judge in sorted([*judged, *alone], key=lambda pair: 2 * (not pair[0]) + (pair[1] is None)):
        found = _funnel(made, judge, manifests)
        if found is not None:
            yield found


def _funnel(rows: Sequence[StageNode], judge: StageNode | None, manifests: Mapping[str, Manifest]) -> Funnel | None:
    synthesis = [manifests[node.name] for node in rows if node.name in manifests]
    validation = None if judge is None else manifests.get(judge.name)
    first = synthesis or ([] if rows or validation is None else [validation])
    if not first:
        return None
    rejected = Counter[str]()
    for manifest in synthesis:
        rejected.update(manifest.rejected)
    accepted = None if validation is None else validation.accepted
    if judge is None:  # what nobody judges is accepted as it was made
        accepted = sum(m.accepted for m in first)
    counters = {} if validation is None else validation.counters
    said = [node.stage for node in (*rows, judge) if node is not None]
    return Funnel(
        task=_task(said[0]),
        title=_title(said[0]),
        synthesis=tuple(m.stage for m in synthesis),
        validation="" if judge is None else judge.name,
        made=sum(m.accepted + sum(m.rejected.values()) for m in first),
        synthesis_rejected=dict(rejected),
        validation_rejected={} if validation is None else dict(validation.rejected),
        accepted=accepted,
        train=counters.get("train"),
        held_out=counters.get("held_out"),
    )


def _curves(store: ObjectStore, prefix: str, manifest: Manifest) -> tuple[tuple[dict[str, float], ...], str]:
    name = manifest.outputs.get("curves")
    if not isinstance(name, str):
        return (), ""
    key = f"{prefix}/stages/{manifest.stage}/{name}"
    try:
        lines = store.get(key).decode("utf-8", "replace").splitlines()
    except NotFoundError:
        return (), f"{manifest.stage}: its curves are missing ({name})"
    rows: list[dict[str, float]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return tuple(rows), f"{manifest.stage}: {name} has an unreadable line"
        if isinstance(row, dict):
            rows.append({k: float(v) for k, v in row.items() if _is_number(v)})
    return tuple(rows), ""


def _is_number(value: object) -> bool:
    """Whether it is one that can be drawn: JSON takes NaN, infinities and 400 digits too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_DRAWN < value < _DRAWN


#: Beyond it a chart's arithmetic ends.
_DRAWN = 1e100


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and _is_number(value) else None


def _evaluation(manifest: Manifest | None) -> tuple[Scores, Comparisons, str]:
    """Scores, comparisons, and what is wrong with them (empty when nothing is)."""
    if manifest is None:
        return {}, {}, ""
    try:
        return (
            _SCORES.validate_python(manifest.outputs.get("scores", {})),
            _COMPARISONS.validate_python(manifest.outputs.get("comparisons", {})),
            "",
        )
    except ValidationError as e:
        where = ".".join(str(p) for p in e.errors()[0]["loc"])
        return {}, {}, f"{manifest.stage}: unreadable scores ({where}: {e.errors()[0]['msg']})"


def _outcome(manifest: Manifest | None) -> Outcome | None:
    if manifest is None:
        return None
    o = manifest.outputs
    return Outcome(
        decision=str(o.get("decision", "unknown")),
        reason=str(o.get("reason", "")),
        version=_whole(o.get("version")),
        alias=str(o.get("alias") or ""),
        previous_version=_whole(o.get("previous_version")),
    )
