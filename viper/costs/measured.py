"""What finished stages took: one small immutable object each in the store, and what all of them together say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from viper.costs.demand import acceptance_key, speed_key
from viper.costs.ranges import Range
from viper.costs.table import LARGEST, default_table
from viper.digests import digest_of
from viper.errors import AlreadyExistsError, NewerFormError, NotFoundError, StageError
from viper.methods.stages import Stage
from viper.spec.base import setting
from viper.stage import FrozenIteration, Manifest, PartRecord
from viper.stage.quota import usable
from viper.store import ObjectStore
from viper.stored import StoredForm

PREFIX = "rates"
#: Rejections that took no work and say nothing of quality: there was enough already.
_ENOUGH = "over-quota"
#: Captions that nothing is wrong with are no candidates (`viper.stage.quota.USABLE`), and not validated.
_NO_CANDIDATE = "perfect-caption"
#: One measurement says this much about the next: speeds differ with what else runs, acceptance with the images.
_SPREAD = 0.1


class Measurement(StoredForm):
    """`rates/<stage>/<iteration>.json`."""

    WHAT: ClassVar[str] = "a measurement"

    stage: str = setting(description="Stage.")
    iteration: str = setting(description="Iteration.")
    identity: str = setting(description="`FrozenIteration.identity`.")
    when: float = setting(unit="s since the epoch", ge=0, description="When the stage was complete.")
    items: float = setting(ge=0, description="Items worked on.")
    rows: int = setting(ge=0, description="Rows that were judged.")
    accepted: int = setting(ge=0, description="Rows that were accepted; of captions, those with flaws.")
    seconds: float = setting(unit="s", ge=0, description="Time of all pods together, without starting up.")
    startup: float | None = setting(
        None, unit="s", ge=0, description="Time of one pod outside parts; null where nothing tells."
    )
    shards: int = setting(ge=1, description="Pods.")
    gpus: int = setting(ge=0, description="GPUs of each pod; of all of them, where they work as one.")
    speed: dict[str, Any] = setting(description="`speed_key`: what decides the time of an item.")
    quality: dict[str, Any] = setting(description="`acceptance_key`: what decides which rows are accepted.")

    @property
    def key(self) -> str:
        """Its key in the store."""
        return f"{PREFIX}/{self.stage}/{self.iteration}.json"

    @property
    def seconds_per_item(self) -> float:
        """Seconds of a pod for each item; of a GPU, times `gpus`."""
        return self.seconds / self.items


def measurement(frozen: FrozenIteration, manifest: Manifest, when: float) -> Measurement | None:
    """What a complete manifest tells; None of a stage that did no work to speak of.

    The manifest has the time of every part, by whichever pod, and the time that the last pod spent outside parts: what
    loading models takes. A stage without parts has spent all its time there, and its startup is not known apart.
    """
    spec, node = frozen.iteration.spec, frozen.node(manifest.stage)
    parts = _worked(node.stage, manifest)
    items = _items(node.stage, manifest, parts)
    in_parts = sum(part.seconds for part in manifest.parts)
    outside = max(0.0, manifest.seconds - in_parts)
    startup = round(outside, 3) if parts and outside else None
    resources = spec.profile.of(node.name)
    shards = min(resources.shards, max(1, len(manifest.parts))) if node.stage.splittable else 1
    seconds = sum(part.seconds for part in parts) if parts else outside
    if items <= 0 or seconds <= 0:
        return None
    apart = sum(manifest.rejected.get(reason, 0) for reason in (_ENOUGH, _NO_CANDIDATE))
    return Measurement(
        stage=node.name,
        iteration=manifest.iteration,
        identity=manifest.identity,
        when=when,
        items=items,
        rows=sum(part.rows for part in manifest.parts) - apart,
        accepted=sum(usable(part) for part in manifest.parts),
        seconds=round(seconds, 3),
        startup=startup,
        shards=shards,
        gpus=resources.gpus * resources.nodes,
        speed=speed_key(spec, node, default_table()),
        quality=acceptance_key(spec, node, frozen.nodes),
    )


def _worked(stage: Stage, manifest: Manifest) -> Sequence[PartRecord]:
    """The parts that took work: an evaluation that was done before is only read again."""
    if stage.makes != "scores":
        return manifest.parts
    rates = [part.seconds / part.rows if part.rows else 0.0 for part in manifest.parts]
    return [part for part, rate in zip(manifest.parts, rates, strict=True) if rate >= 0.1 * max(rates)]


def _items(stage: Stage, manifest: Manifest, parts: Sequence[PartRecord]) -> float:
    if stage.unit == "steps":
        steps = manifest.outputs.get("steps", 0)
        return float(steps) if isinstance(steps, int | float) else 0.0
    return float(sum(part.rows - part.rejected.get(_ENOUGH, 0) for part in parts))


def remember(
    store: ObjectStore, frozen: FrozenIteration, manifest: Manifest, clock: Callable[[], float] = time.time
) -> Measurement | None:
    """Stores what a manifest tells, unless an earlier attempt has; raises `StoreError`."""
    found = measurement(frozen, manifest, clock())
    if found is not None:
        try:
            store.put(found.key, found.to_bytes(), if_absent=True)
        except AlreadyExistsError:
            return found
    return found


def load_measurements(store: ObjectStore) -> Measurements:
    """Everything that the stages of a store measured; objects of another format are left aside. Raises `StoreError`."""
    found = []
    for info in store.list(f"{PREFIX}/"):
        try:
            one = Measurement.read(store.get(info.key), where=info.key, error=StageError)
        except (StageError, NewerFormError, NotFoundError):
            continue
        if _understood(one):
            found.append(one)
    return Measurements(tuple(found))


def _understood(one: Measurement) -> bool:
    """Whether its figures are of this world and its circumstances are written as `speed_key` writes them."""
    demands = one.speed.get("demands", [])
    written = isinstance(demands, list) and all(isinstance(d, dict) for d in demands)
    figures = (one.items, one.seconds, one.startup or 0.0, one.rows, one.accepted, one.when, one.gpus, one.shards)
    return written and max(figures) <= LARGEST and (not one.items or one.seconds_per_item <= LARGEST)


@dataclass(frozen=True)
class Measured:
    """What several measurements say together. `n`: their items; `iterations`: where from, the newest first."""

    value: Range
    n: float
    iterations: tuple[str, ...]
    like: Mapping[str, Any]

    def source(self) -> str:
        """For a person."""
        first, *others = self.iterations
        return f"measured in {first}" + (f" and {len(others)} before" if others else "") + f" (n={self.n:,.0f})"


@dataclass(frozen=True)
class Measurements:
    """The measurements of a store."""

    all: tuple[Measurement, ...] = ()

    def speed(self, stage: str, key: Mapping[str, Any]) -> Measured | None:
        """Seconds of a pod for each item, under just these circumstances."""
        fit = [m for m in self.all if m.stage == stage and digest_of(m.speed) == digest_of(key) and m.items]
        return _together(fit, [m.seconds_per_item for m in fit], key)

    def startup(self, stage: str, key: Mapping[str, Any]) -> Range | None:
        """Seconds that a pod takes besides its items; 0 where they are within what its items took."""
        fit = [m for m in self.all if m.stage == stage and digest_of(m.speed) == digest_of(key) and m.items]
        apart = [m for m in fit if m.startup is not None]
        if fit and not apart and all(m.rows == 0 for m in fit):
            return Range(0, 0)
        found = _together(apart, [m.startup or 0.0 for m in apart], key)
        return None if found is None else found.value

    def like(self, stage: str, key: Mapping[str, Any]) -> Measured | None:
        """The same with these engines on this kind of GPU, whatever their settings: the newest, and its own key."""
        wanted = _engines(key)
        fit = [m for m in self.all if m.stage == stage and _engines(m.speed) == wanted and m.items]
        if not fit:
            return None
        newest = max(fit, key=lambda m: m.when)
        return self.speed(stage, newest.speed)

    def acceptance(self, stage: str, key: Mapping[str, Any]) -> Measured | None:
        """Share of rows that was accepted, with the same engines and thresholds."""
        fit = [m for m in self.all if m.stage == stage and digest_of(m.quality) == digest_of(key) and m.rows > 0]
        found = _together(fit, [min(1.0, m.accepted / m.rows) for m in fit], key)
        if found is None or found.value.high <= 0:
            return None
        return Measured(found.value.at_most(1.0), found.n, found.iterations, found.like)


def _engines(key: Mapping[str, Any]) -> tuple[Any, ...]:
    return (key.get("gpu"), key.get("gpus"), *((d.get("work"), d.get("engine")) for d in key.get("demands", ())))


def _together(fit: Sequence[Measurement], values: Sequence[float], like: Mapping[str, Any]) -> Measured | None:
    """The mean, each measurement counting half of the next newer one; spread by their scatter, at least a tenth."""
    if not fit:
        return None
    order = sorted(range(len(fit)), key=lambda i: (-fit[i].when, fit[i].iteration))
    weights = [0.5**rank for rank in range(len(order))]
    mean = sum(w * values[i] for w, i in zip(weights, order, strict=True)) / sum(weights)
    variance = sum(w * (values[i] - mean) ** 2 for w, i in zip(weights, order, strict=True)) / sum(weights)
    spread = max(_SPREAD * mean, math.sqrt(variance))
    names = tuple(fit[i].iteration for i in order)
    return Measured(Range(max(0.0, mean - spread), mean + spread), sum(m.items for m in fit), names, like)
