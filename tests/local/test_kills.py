"""Stage processes and the runner are killed at any of their store operations; the run ends as if nothing had been."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes import world
from fakes.local import run_here
from viper.local import RunDirectory
from viper.methods.stages import stage_graph
from viper.stage import FrozenIteration
from viper.store import ObjectStore, open_store

KILLS = 20
#: Store operations that even an attempt with nothing left to make gets to, with and without parts.
OPERATIONS = {True: 10, False: 4}


def prepared(path: Path) -> tuple[ObjectStore, FrozenIteration]:
    store = open_store(path / "store")
    one = world.frozen("it", profile={"defaults": {"retries": 20, "backoffSeconds": 0}})
    world.write(store, one)
    return store, one


def runner(path: Path) -> int:
    """Exit status of a runner in a process of its own."""
    return subprocess.run([sys.executable, "-m", "fakes.runner", str(path)], check=False, timeout=300).returncode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_end_in_the_manifests_of_an_undisturbed_run(tmp_path: Path) -> None:
    twin, one = prepared(tmp_path / "twin")
    run_here(tmp_path / "twin")
    store, _ = prepared(tmp_path / "run")
    chance = random.Random(20)
    stages = [n.name for n in stage_graph(one.iteration.spec.recipe)]
    kills_of_the_runner = 0
    for _ in range(KILLS):
        stage = chance.choice(stages)
        act = chance.choice(["killed", "executor-killed"])
        kills_of_the_runner += act == "executor-killed"
        has_parts = not stage.startswith(("train", "evaluate", "promote"))
        world.fault(store, stage, act, chance.randint(1, OPERATIONS[has_parts]), after=chance.random() < 0.5)
    deaths = 0
    while (status := runner(tmp_path / "run")) != 0:
        assert status == -9
        deaths += 1
    # A kill right after the manifest was written ends its stage: faults behind it in that stage's queue never strike.
    spared = [json.loads(store.get(key))["act"] for key in world.pending_faults(store)]
    # And a stage that outlives its runner for a moment can strike at it twice: one death for two kills.
    assert KILLS // 4 <= deaths <= kills_of_the_runner - spared.count("executor-killed")
    assert len(spared) <= KILLS // 4, f"only {KILLS - len(spared)} of {KILLS} kills struck"
    assert world.manifests(store, one) == world.manifests(twin, one)
    # Each kill costs the part that was in flight, and nothing else is made twice.
    made = world.made(store)
    assert set(made) == set(world.made(twin))
    assert sum(made.values()) <= len(made) + KILLS


@pytest.mark.process
def test_what_an_interrupted_runner_started_is_gone_before_the_next_one_begins(tmp_path: Path) -> None:
    store, _ = prepared(tmp_path)
    world.fault(store, "ingest-images", "executor-killed-then-hang", at=2)
    assert runner(tmp_path) == -9
    with RunDirectory(tmp_path).lock():  # waits for the process that hangs; granted because it dies with its runner
        before = [(o.key, o.size) for o in store.list()]
    assert run_here(tmp_path).outcome == "promoted"
    assert len(before) < sum(1 for _ in store.list())


@pytest.mark.process
def test_ctrl_c_stops_the_stages_and_keeps_their_work(tmp_path: Path) -> None:
    store, one = prepared(tmp_path)
    world.fault(store, "validate-captions", "executor-interrupted", at=7)
    assert runner(tmp_path) == 3
    assert world.manifests(store, one)["synthesize-captions"] is not None
    assert run_here(tmp_path).outcome == "promoted"
    made = world.made(store)
    assert sum(made.values()) <= len(made) + 1


def test_a_stage_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    fast = {"retries": 2, "backoffSeconds": 0}
    world.write(
        store, world.frozen("it", profile={"defaults": fast, "stages": {"evaluate": fast | {"deadlineSeconds": 600}}})
    )
    world.fault(store, "evaluate", "stubborn")

    def clock() -> float:
        """An hour passes when the stage has begun to hang."""
        return time.time() + (0 if world.pending_faults(store) else 3600)

    assert run_here(tmp_path, grace=0.1, clock=clock, interval=0.05).outcome == "promoted"


def test_the_error_of_a_stage_and_the_place_of_its_log_reach_the_plan(tmp_path: Path) -> None:
    store, _ = prepared(tmp_path)
    world.fault(store, "evaluate", "input-error")
    made = run_here(tmp_path)
    assert made.summary.message.endswith("samples.jsonl: row 7 has no image\n  → add it")
    assert "row 7 has no image" in (tmp_path / "logs/it/evaluate-1.log").read_text("utf-8")


def test_every_attempt_has_a_log_of_its_own(tmp_path: Path) -> None:
    store, _ = prepared(tmp_path)
    world.fault(store, "evaluate", "broken")
    run_here(tmp_path)
    assert [p.name for p in sorted((tmp_path / "logs/it").glob("evaluate*.log"))] == [
        "evaluate-1.log",
        "evaluate-2.log",
    ]
    assert "RuntimeError: broken" in (tmp_path / "logs/it/evaluate-1.log").read_text("utf-8")
