"""`viper run`: one iteration, or the iterations of a loop one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from viper.iteration.freeze import freeze
from viper.iteration.observe import StoreObserver
from viper.local.directory import RunDirectory, RunRecord
from viper.local.executor import STAGE_PROGRAM, Listener, LocalExecutor
from viper.local.process import warm_up
from viper.plan import Condition, LoopObserved, Plan, plan, plan_loop
from viper.registry import Registry, RunStatus
from viper.spec import ViperIteration, ViperLoop
from viper.stage.frozen import FrozenIteration, load_frozen
from viper.store import ObjectStore, open_store

#: What stages import. The order is that of use; modules that are not installed are skipped.
PRELOAD = (
    "viper_jobs.main",
    "pyarrow.parquet",
    "pandas",  # where it is installed, pyarrow imports it for its first table
    "PIL.Image",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",  # imported by its first use, as the next one
    "mlflow.store.model_registry.sqlalchemy_store",
    "torch",
    "torchvision",
    "transformers",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "open_clip",
    "imagehash",
    "scipy.stats",
    "datasets",
    "trl.trainer.grpo_trainer",
)


class RunListener(Listener, Protocol):
    """A listener that also hears about whole iterations."""

    def iteration(self, frozen: FrozenIteration, *, resumed: bool) -> None:
        """An iteration begins or goes on."""
        ...

    def notice(self, text: str) -> None:
        """Something a person should know."""
        ...


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `condition`: of the iteration, or of the loop."""

    iterations: tuple[tuple[str, Plan], ...]
    condition: Condition

    @property
    def names(self) -> list[str]:
        """The iterations that have started."""
        return [name for name, _ in self.iterations]

    @property
    def last(self) -> Plan:
        """The last iteration's plan."""
        return self.iterations[-1][1]


@dataclass
class LocalRun:
    """Runs a resource in a run directory, whose lock the caller holds.

    Args:
        entry, preload: the stage program and what its processes find imported.

    Raises `NotFoundError` when the store lacks what has run in the directory.
    """

    directory: RunDirectory
    record: RunRecord
    listener: RunListener
    parallel: int = 1
    entry: str = STAGE_PROGRAM
    preload: Sequence[str] = PRELOAD
    store: ObjectStore = field(init=False)
    registry: Registry = field(init=False)
    _warm: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.store = open_store(self.record.store)
        self.directory.check(self.store)
        self.registry = Registry(self.record.tracking)

    def run(self) -> RunResult:
        """Goes on until everything is done, held, failed or suspended; raises `Stopped`, `ViperError`."""
        resource = self.record.resource
        if isinstance(resource, ViperIteration):
            made = self._iteration(resource)
            return RunResult(((resource.metadata.name, made),), made.summary)
        return self._loop(resource)

    def _loop(self, loop: ViperLoop) -> RunResult:
        plans: list[tuple[str, Plan]] = []
        seen: list[LoopObserved] = []
        while True:
            decided = plan_loop(loop.spec, seen)
            if decided.next is None:
                return RunResult(tuple(plans), decided.condition)
            iteration = loop.iteration(decided.next)
            made = self._iteration(iteration)
            plans.append((iteration.metadata.name, made))
            if not made.finished:
                return RunResult(tuple(plans), made.summary)
            seen.append(self._seen(iteration, made))

    def _seen(self, iteration: ViperIteration, made: Plan) -> LoopObserved:
        decided = made.made("decision")
        version = None if decided is None else decided.version
        alias = None
        if made.outcome != "promoted" and version is not None:
            alias = self.registry.get_alias(iteration.spec.model, iteration.spec.promotion.alias)
        return LoopObserved(made.outcome, made.summary.message, version, alias)

    def _iteration(self, iteration: ViperIteration) -> Plan:
        before = load_frozen(self.store, iteration.metadata.name)
        if not self._warm and (before is None or not _finished(before, self.store)):
            self._warm = True
            self.listener.notice("the libraries that stages share are imported once, which takes a moment")
            warm_up(list(self.preload))
        found = freeze(iteration, self.store, self.registry)
        self.listener.iteration(found.iteration, resumed=found.resumed)
        if found.changed:
            self.listener.notice(
                f"{', '.join(found.changed)} changed since {found.iteration.name} was started; the installed versions "
                "make what is still missing"
            )
        executor = LocalExecutor(
            found.iteration,
            self.store,
            self.directory,
            self.listener,
            self.parallel,
            self.entry,
            suspend=iteration.spec.suspend,
        )
        made = executor.run()
        if made.finished and executor.started:
            status: RunStatus = "FAILED" if made.outcome == "failed" else "FINISHED"
            self.registry.finish_run(found.iteration.tracking.parent_run, status)
        return made


def _finished(frozen: FrozenIteration, store: ObjectStore) -> bool:
    return plan(frozen.iteration.spec, StoreObserver(store, frozen).observe(), 0.0).finished
