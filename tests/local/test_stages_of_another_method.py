"""The local runner carries out stages that it never heard of: the graph is that of the frozen iteration."""

from __future__ import annotations

from pathlib import Path

from fakes import toys, world
from fakes.local import run_here
from viper.plan import Plan, State
from viper.store import open_store


def run(path: Path, *settings: str) -> Plan:
    store = open_store(path / "store")
    for name in (toys.TOYS, *settings):
        store.put(name, b"")
    world.write(store, toys.frozen(world.iteration("it")))
    return run_here(path, parallel=toys.SHARDS)


def test_an_iteration_of_another_method_ends_promoted(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert [(s.name, s.state) for s in made.stages] == [(n.name, State.SUCCEEDED) for n in toys.GRAPH]
    assert (made.outcome, made.summary.message) == ("promoted", "version 2, because")
    parts = world.made(open_store(tmp_path / "store"))
    assert {p.partition("/")[0] for p in parts} == {toys.GATHER, toys.ASK, toys.SIFT}
    assert set(parts.values()) == {1}


def test_its_validation_holds_with_the_funnel_of_what_fed_it(tmp_path: Path) -> None:
    made = run(tmp_path, f"settings/reject-{toys.SIFT}")
    assert (made.outcome, made.summary.reason) == ("held", "TooFewSamples")
    assert made.summary.message == (
        "sift-questions: 0 accepted training samples, recipe.validation.minimumSamples is 1. Acceptance: "
        "gather-pictures 12 of 12; ask-questions 9 of 12 (odd 3); sift-questions 0 of 12 (odd 12)."
    )
