"""What `viper run` prints while it runs."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from fakes import world
from viper.cli.console import Console
from viper.plan import Done, Exit, Observed, Shard, Stage, plan
from viper.stage import ProgressRecord

FROZEN = world.frozen("demo-1", profile={"defaults": {"backoffSeconds": 5}})


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def seconds(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def show(console: Console, stages: dict[str, Stage], progress: dict[str, ProgressRecord] | None = None) -> None:
    console.update(FROZEN, plan(FROZEN.iteration.spec, Observed(stages), 100.0), progress or {})


RUNNING = {"ingest-images": Stage(shards={0: Shard(running_since=1.0)})}
DONE = {"ingest-images": Stage(done=Done(accepted=97, headline="97 of 100 accepted (near-duplicate 3)"))}
HALF = {"ingest-images": ProgressRecord(phase="ingest", done=50, total=100, rate=10.0, eta_seconds=5.0)}


def test_elsewhere_than_on_a_terminal_every_event_is_one_line() -> None:
    out, clock = io.StringIO(), seconds(10)
    console = Console(out, lambda: next(clock))
    for stages in ({}, RUNNING, RUNNING, DONE):
        show(console, stages)
    lines = [line.partition("] ")[2] for line in out.getvalue().splitlines()]
    assert lines[0] == "demo-1 ingest-images started"
    assert lines[1].startswith("demo-1 ingest-images done in ")
    assert lines[1].endswith(": 97 of 100 accepted (near-duplicate 3)")
    assert len(lines) == 2


def test_progress_comes_with_rate_and_time_left_and_not_too_often() -> None:
    out, clock = io.StringIO(), seconds(1)
    console = Console(out, lambda: next(clock))
    for _ in range(60):
        show(console, RUNNING, HALF)
    lines = [line for line in out.getvalue().splitlines() if "50/100" in line]
    assert lines[0].endswith("demo-1 ingest-images ingest 50/100 (10/s, 5 s left)")
    assert 1 <= len(lines) <= 4


def test_another_phase_is_told_at_once() -> None:
    out, clock = io.StringIO(), seconds(1)
    console = Console(out, lambda: next(clock))
    for phase in ("caption", "caption", "reconstruct", "reconstruct", "critique"):
        loading = ProgressRecord(phase=phase, step=1, steps=3, total=100, waiting="loading the model")
        show(console, RUNNING, {"ingest-images": loading})
    lines = [line.partition("] ")[2] for line in out.getvalue().splitlines()]
    assert [line.partition(" (1 of 3) ")[0] for line in lines[1:]] == [
        f"demo-1 ingest-images {phase}" for phase in ("caption", "reconstruct", "critique")
    ]
    assert lines[1].endswith(" 0/100, loading the model")


def test_the_time_of_a_stage_and_of_its_work_are_both_told() -> None:
    out, clock = io.StringIO(), seconds(25)
    console = Console(out, lambda: next(clock))
    trained = {"ingest-images": Stage(done=Done(accepted=1, seconds=15.6, headline="24 steps"))}
    for stages in ({}, RUNNING, RUNNING, trained):
        show(console, stages)
    assert out.getvalue().splitlines()[-1].endswith(", of which 15.6 s in the work itself: 24 steps")


def test_on_a_terminal_progress_is_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    console = Console(out)
    for _ in range(5):
        show(console, RUNNING, HALF)
    console.finish()
    assert out.getvalue().count("50/100") == 5
    assert out.getvalue().count("\n") == 1
    assert all(len(line.rpartition("\x1b[K")[2]) < 60 for line in out.getvalue().split("\r"))


def test_what_an_earlier_run_did_is_told_apart() -> None:
    out = io.StringIO()
    show(Console(out), DONE)
    assert "demo-1 ingest-images was done before: 97 of 100 accepted" in out.getvalue()


def test_failures_are_printed_with_their_reason() -> None:
    out = io.StringIO()
    failed = Exit(99.0, 1, "E", "no space left")
    show(Console(out), {"ingest-images": Stage(shards={0: Shard(ended=1, last=failed)})})
    assert "demo-1 ingest-images retrying: attempt 1 failed, no space left" in out.getvalue()
