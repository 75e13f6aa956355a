"""What `viper run` prints while it runs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

from fakes import world
from viper.cli.console import Console
from viper.plan import Done, Exit, Observed, ObservedStage, Shard, plan
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


def show(console: Console, stages: dict[str, ObservedStage], progress: dict[str, ProgressRecord] | None = None) -> None:
    console.update(FROZEN, plan(FROZEN.iteration.spec, Observed(stages), 100.0), progress or {})


RUNNING = {"ingest-images": ObservedStage(shards={0: Shard(running_since=1.0)})}
DONE = {"ingest-images": ObservedStage(done=Done(accepted=97, headline="97 of 100 accepted (near-duplicate 3)"))}
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
    trained = {"ingest-images": ObservedStage(done=Done(accepted=1, seconds=15.6, headline="24 steps"))}
    for stages in ({}, RUNNING, RUNNING, trained):
        show(console, stages)
    assert out.getvalue().splitlines()[-1].endswith(", of which 15.6 s in the work itself: 24 steps")


def screen(written: str) -> list[str]:
    """The lines that a terminal shows: only what rich writes, in this order, is understood."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\r\x1b":
            lines[row] += part
    return lines


def test_on_a_terminal_progress_is_a_line_a_stage_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    console = Console(out)
    wide = ProgressRecord(phase="数据" * 30, done=1, total=3, rate=1.0)
    for _ in range(5):
        show(console, RUNNING, HALF | {"synthesize-captions": wide})
    console.notice("[b] :smile:")
    told = ["[  0:00] demo-1 ingest-images started", "[  0:00] note: [b] :smile:"]
    shown = screen(out.getvalue())
    assert shown[:2] == told
    assert len(shown) == 4
    assert "demo-1 ingest-images ingest" in shown[2]
    assert "demo-1 synthesize-captions 数据" in shown[3]
    assert all(cell_len(line) <= 60 for line in shown)
    console.finish()
    assert [line for line in screen(out.getvalue()) if line] == told


def test_a_terminal_that_cannot_rewrite_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    show(Console(out), RUNNING, HALF)
    assert [line.partition("] ")[2] for line in out.getvalue().splitlines()] == [
        "demo-1 ingest-images started",
        "demo-1 ingest-images ingest 50/100 (10/s, 5 s left)",
    ]


def test_a_pipe_that_nobody_reads_is_for_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> int:
        raise BrokenPipeError

    out = io.StringIO()
    monkeypatch.setattr(out, "write", broken, raising=False)
    with pytest.raises(BrokenPipeError):
        Console(out).notice("x")


def test_what_an_earlier_run_did_is_told_apart() -> None:
    out = io.StringIO()
    show(Console(out), DONE)
    assert "demo-1 ingest-images was done before: 97 of 100 accepted" in out.getvalue()


def test_failures_are_printed_with_their_reason() -> None:
    out = io.StringIO()
    failed = Exit(99.0, 1, "E", "no space left")
    show(Console(out), {"ingest-images": ObservedStage(shards={0: Shard(ended=1, last=failed)})})
    assert "demo-1 ingest-images retrying: attempt 1 failed, no space left" in out.getvalue()
