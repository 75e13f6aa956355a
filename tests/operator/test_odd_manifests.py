"""Well-formed JSON of the wrong shape: plan, status, plugin and report never raise, and the iteration ends in a
condition."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report.report_builders import Plan, build_iteration
from viper.iteration.observe import StoreObserver
from viper.plan import Done, plan
from viper.report.collect import collect
from viper.report.page import render
from viper.report.table import render as summarised
from viper.spec.status import IterationStatus
from viper.stage import FrozenIteration
from viper.store import DirectoryStore
from viper_operator.plugin.view import Iteration, iteration_data, iteration_node, table
from viper_operator.status import Facts, iteration_status

NAME = "demo-1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A complete iteration in a store, of which one manifest at a time is another one."""

    def __init__(self, folder: Path) -> None:
        self.store = DirectoryStore(folder / "store")
        self.frozen: FrozenIteration = build_iteration(self.store, folder / "work", Plan(name=NAME, benchmarks=True))
        keys = [o.key for o in self.store.list(f"iterations/{NAME}/stages")]
        self.keys = {k.split("/")[3]: k for k in keys if k.endswith("/manifest.json")}
        self.good = {stage: self.store.get(key) for stage, key in self.keys.items()}

    def manifest(self, stage: str) -> dict[str, Any]:
        return json.loads(self.good[stage])  # type: ignore[no-any-return]

    def with_(self, stage: str, data: bytes) -> None:
        for name, key in self.keys.items():
            self.store.put(key, data if name == stage else self.good[name])

    def look(self, stage: str, *, page: bool = True) -> IterationStatus:
        """Everything that reads manifests, and the status that comes of it."""
        observed = StoreObserver(self.store, self.frozen).observe()
        made = plan(self.frozen.iteration.spec, observed, 1000.0)
        status = iteration_status(made, Facts(1, 0, 1000.0, ""), IterationStatus())
        json.dumps(status.dump())
        shown = Iteration({"metadata": {"name": NAME, "uid": "u"}, "status": status.dump()})
        assert iteration_node(shown, NOW)
        assert iteration_data(shown)
        assert table((), [shown], NOW)
        report = collect(self.store, [NAME])
        assert summarised(report)
        problem = observed.stages[stage].problem
        if page and not problem:
            assert render(self.store, report)
        if problem:
            assert f"stages/{stage}/manifest.json" in problem
            summary = status.conditions[0]
            assert (status.outcome, summary.status, summary.reason) == ("Failed", "False", "ManifestInvalid")
            assert stage in summary.message
        else:
            assert status.outcome in ("Promoted", "Registered", "Held", "Failed"), "it has ended, one way or another"
        return status


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_as_it_was_made_the_iteration_is_promoted(world: World) -> None:
    world.with_("", b"")
    status = world.look("promote")
    assert status.outcome == "Promoted"
    assert status.score


#: (stage, path, value): what stands there instead. `...` removes it.
WRONG: list[tuple[str, str, Any]] = [
    ("evaluate", "outputs", []),
    ("evaluate", "outputs", None),
    ("evaluate", "outputs.scores", []),
    ("evaluate", "outputs.scores", "all of them"),
    ("evaluate", "outputs.scores.theta2", [0.9]),
    ("evaluate", "outputs.scores.theta2.overall", [0.9]),
    ("evaluate", "outputs.scores.theta2.overall", 0.9),
    ("evaluate", "outputs.scores.theta2.overall.accuracy", "0.9"),
    ("evaluate", "outputs.scores.theta2.overall.accuracy", None),
    ("evaluate", "outputs.scores.theta2.overall.accuracy", 10**400),
    ("evaluate", "outputs.scores.theta2.overall.n", -1),
    ("evaluate", "outputs.scores.theta2.overall.n", 1e9),
    ("evaluate", "outputs.scores.theta0", ...),
    ("evaluate", "outputs.comparisons", [1]),
    ("evaluate", "outputs.comparisons.theta2-theta0.overall.p_worse", "small"),
    ("evaluate", "outputs.comparisons.theta2-theta0.overall.difference", ...),
    ("evaluate", "outputs.final", ["theta2"]),
    ("evaluate", "outputs.final", {}),
    ("evaluate", "outputs.final", "theta9"),
    ("evaluate", "outputs.final", ...),
    ("evaluate", "outputs.benchmarks", []),
    ("evaluate", "outputs.benchmarks", 7),
    ("evaluate", "outputs.benchmarks.scores", [1]),
    ("evaluate", "outputs.benchmarks.scores", ...),
    ("evaluate", "outputs.benchmarks.scores.theta2", {}),
    ("evaluate", "outputs.benchmarks.scores.theta2.overall", ...),
    ("evaluate", "outputs.benchmarks.scores.theta2.overall.score", "high"),
    ("evaluate", "outputs.benchmarks.tasks", {"a benchmark of a later version": {"n": 1}}),
    ("evaluate", "outputs.benchmarks.tasks", [1, 2]),
    ("evaluate", "outputs.benchmarks.comparisons", {}),
    ("evaluate", "outputs.benchmarks.max_tokens", "many"),
    ("evaluate", "outputs.questions", "all"),
    ("promote", "outputs.version", "7"),
    ("promote", "outputs.version", 7.5),
    ("promote", "outputs.version", -1),
    ("promote", "outputs.version", 10**400),
    ("promote", "outputs.version", [7]),
    ("promote", "outputs.version", True),
    ("promote", "outputs.decision", ["promoted"]),
    ("promote", "outputs.decision", {"promoted": True}),
    ("promote", "outputs.decision", "perhaps"),
    ("promote", "outputs.reason", {"because": 1}),
    ("promote", "outputs.reason", "x" * 5_000_000),
    ("promote", "outputs.previous_version", "0"),
    ("promote", "outputs.alias", 9),
    ("train-captions", "outputs.model", "file:///m"),
    ("train-captions", "outputs.model.uri", 7),
    ("train-captions", "outputs.model.uri", ""),
    ("train-captions", "outputs.model.digest", None),
    ("train-captions", "outputs.steps", "many"),
    ("train-captions", "outputs.steps", 10**400),
    ("train-captions", "outputs.steps", -3),
    ("train-captions", "outputs.steps", []),
    ("train-captions", "outputs.best_step", "last"),
    ("train-captions", "outputs.curves", 7),
    ("train-captions", "outputs.curves", "nowhere.jsonl"),
    ("train-captions", "outputs.samples", [1, 2]),
    ("train-captions", "outputs.samples.train", "all"),
    ("train-captions", "outputs.rollouts", {"a": 1}),
    ("synthesize-captions", "accepted", "many"),
    ("synthesize-captions", "accepted", 10**400),
    ("synthesize-captions", "accepted", -1),
    ("synthesize-captions", "rejected", ["too short"]),
    ("synthesize-captions", "rejected", {"too short": "three"}),
    ("synthesize-captions", "rejected", {"too short": -3}),
    ("synthesize-captions", "rejected", {"too short": 10**400}),
    ("validate-captions", "counters", {"train": "all"}),
    ("validate-captions", "counters", {"train": [7]}),
    ("validate-captions", "counters", {"train": 10**30}),
    ("validate-captions", "counters", 7),
    ("validate-captions", "seconds", "long"),
    ("validate-captions", "seconds", 1e300),
    ("validate-captions", "seconds", -5),
    ("validate-captions", "parts", {"0": {}}),
    ("validate-captions", "parts.0", None),
    ("validate-captions", "parts.0.rows", "all"),
    ("validate-captions", "parts.0.index", 2**70),
    ("ingest-images", "outputs.images", {"n": 3}),
    ("ingest-images", "inputs", ["none"]),
    ("ingest-images", "identity", 7),
    ("ingest-images", "stage", None),
]


def changed(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path."""
    found = copy.deepcopy(manifest)
    *before, last = path.split(".")
    at: Any = found
    for step in before:
        at = at[int(step)] if isinstance(at, list) else at[step]
    key = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[key]
    else:
        at[key] = value
    return found


@pytest.mark.parametrize(("stage", "path", "value"), WRONG, ids=lambda v: repr(v)[:40])
def test_a_manifest_of_the_wrong_shape_ends_the_iteration_with_a_condition(
    world: World, stage: str, path: str, value: Any
) -> None:
    world.with_(stage, json.dumps(changed(world.manifest(stage), path, value)).encode())
    world.look(stage)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"manifest"',
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe",
        b"\x00" * 100,
        b'{"stage": "\\ud83d"}',
        b'{"accepted": ' + b"9" * 5000 + b"}",
        b'{"seconds": 1e400}',
        b'{"seconds": NaN}',
    ],
    ids=repr,
)
def test_what_is_no_manifest_at_all_does_so_too(world: World, data: bytes) -> None:
    world.with_("validate-captions", data[:])
    assert world.look("validate-captions").outcome == "Failed"


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["theta2", "theta0", "overall", "promoted", "7", "../x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["overall", "theta2", "uri", "x"]) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted paths of everything in a document; keys with a dot are left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if "." not in str(key):
            here = (*path, str(key))
            yield ".".join(here)
            yield from places(inner, here)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_whatever_stands_anywhere_in_a_manifest_nothing_raises(world: World, data: st.DataObject) -> None:
    stage = data.draw(st.sampled_from(sorted(world.keys)))
    manifest = world.manifest(stage)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(places(manifest))))
        manifest = changed(manifest, path, data.draw(ODD | st.just(...)))
    world.with_(stage, json.dumps(manifest).encode())
    world.look(stage, page=False)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(outputs=st.dictionaries(st.sampled_from(["scores", "benchmarks", "final", "version", "decision", "model"]), ODD))
def test_the_summary_of_any_outputs_is_made(outputs: dict[str, Any]) -> None:
    from viper.stage import Manifest

    for stage in ("evaluate", "promote", "train-captions"):
        found = Done.of(Manifest.model_construct(stage=stage, iteration="it", identity="x", outputs=outputs))
        assert len(found.headline) <= 1000
        assert found.version is None or isinstance(found.version, int)
