"""What a stage says of how far it is: records for a status, lines for a log, no guesses."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from viper.stage.progress import LINE_SECONDS, Progress, ProgressRecord, over_shards, time_left


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


class Told:
    """A progress with what it writes."""

    def __init__(self, interval: float = 1.0, terminal: io.StringIO | None = None) -> None:
        self.clock, self.records, self.lines = Clock(), list[ProgressRecord](), list[str]()
        self.terminal = terminal or io.StringIO()
        self.progress = Progress(
            self.records.append, tell=self.lines.append, interval=interval, terminal=self.terminal, clock=self.clock
        )

    def steps(self, number: int, seconds: float, items: int = 1) -> None:
        """Advances so often, with so many seconds before each."""
        for _ in range(number):
            self.clock.now += seconds
            self.progress.advance(items)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize(
    ("left", "done", "seconds", "steps", "expected"),
    [
        (319, 0, 0.0, 0, None),
        (319, 0, 384.0, 0, None),  # "34 h left", from the first item alone
        (318, 1, 6.0, 1, None),
        (317, 2, 2.0, 2, None),
        (317, 2, 6.0, 2, 951.0),
        (160, 160, 40.0, 1, None),  # half of it in one go is one observation
        (20, 300, 100.0, 9, 20 / 3),
        (0, 320, 0.0, 0, 0.0),
        (5, 0, 60.0, 4, None),
    ],
    ids=["nothing", "first-only", "one-more", "too-soon", "enough", "one-batch", "batches", "complete", "no-items"],
)
def test_a_time_left_is_told_from_enough_steps_and_seconds(
    left: int, done: int, seconds: float, steps: int, expected: float | None
) -> None:
    assert time_left(left, done, seconds, steps) == expected


def test_rate_and_time_left_count_only_this_phase_and_attempt(told: Told) -> None:
    told.progress.begin("train", 100, already=40)
    told.clock.now = 20.0  # the first step is slow
    told.progress.advance()
    told.steps(2, 5.0)
    assert told.records[-1].done == 43
    assert told.records[-1].eta_seconds == 57 * 5.0
    told.progress.begin("evaluate", 10)
    assert (told.records[-1].rate, told.records[-1].eta_seconds) == (0.0, None)


def test_loading_and_waiting_say_nothing_of_the_pace(told: Told) -> None:
    told.progress.begin("caption", 320, step=1, steps=3)
    with told.progress.waits("loading the generator"):
        assert told.records[-1].waiting == "loading the generator"
        told.clock.now += 40.0
        assert told.progress.record.line() == "caption (1 of 3) 0/320, loading the generator"
    told.steps(3, 4.0, items=32)
    told.progress.wait("https://host: it answers 503; again in 30 s")
    assert told.progress.record.waiting.startswith("https://host")
    told.steps(1, 4.0, items=32)
    last = told.progress.record
    assert (last.rate, last.eta_seconds, last.waiting) == (8.0, 24.0, "")
    assert last.line() == "caption (1 of 3) 128/320 (8/s, 24 s left)"


def test_what_an_earlier_attempt_made_is_no_speed(told: Told) -> None:
    told.progress.begin("caption", 320)
    told.progress.reuse(300)
    told.steps(1, 2.0, items=10)
    assert (told.progress.record.done, told.progress.record.rate) == (310, 5.0)
    told.steps(1, 2.0, items=10)
    assert told.lines[-1] == "caption ends after 4.0 s: 320 items, 300 of them from an earlier attempt, 5/s"


def test_a_log_has_a_line_when_a_phase_begins_and_ends_and_now_and_then_between(told: Told) -> None:
    told.progress.begin("caption", 400, step=1, steps=3, unit="image")
    told.steps(400, 0.5)
    assert told.lines[0] == "caption (1 of 3) begins: 400 images"
    assert told.lines[-1] == "caption (1 of 3) ends after 3 min 20 s: 400 images, 2/s"
    assert len(told.lines) == 2 + int(200 / LINE_SECONDS)
    assert told.lines[1] == "caption (1 of 3) 60/400 (2/s, 2 min 50 s left)"


def test_steps_of_a_training_come_with_their_figures(told: Told) -> None:
    told.progress.begin("train", 6, already=2, unit="step")
    for step in range(4):
        told.clock.now += 6.0
        told.progress.advance(1, loss=0.5 / (step + 1), reward=0.25 * step)
    assert told.lines == [
        "train begins: 6 steps, 2 of them from an earlier attempt",
        "train 4/6 (0.167/s), loss 0.25, reward 0.25",
        "train ends after 24.0 s: 6 steps, 2 of them from an earlier attempt, 0.167/s, loss 0.125, reward 0.75",
    ]


def test_a_phase_that_is_left_early_says_how_far_it_was(told: Told) -> None:
    told.progress.begin("judge", 8, unit="edit")
    told.steps(3, 1.0)
    told.progress.begin("check", 0)
    told.progress.end()
    told.progress.end()
    assert told.lines[1:] == [
        "judge ends after 3.0 s: 3 edits of 8, 1/s",
        "check begins",
        "check ends after 0.0 s",
    ]


def test_what_goes_wrong_while_it_is_loaded_is_not_called_done(told: Told) -> None:
    def load() -> None:
        with told.progress.waits("loading the judge"):
            told.clock.now = 3.0
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        load()
    assert told.lines == ["loading the judge", "loading the judge: given up after 3.0 s"]


def test_a_phase_in_which_nothing_is_done_says_so_now_and_then(told: Told) -> None:
    told.progress.pulse()
    told.progress.begin("critique", 320, step=3, steps=3)
    for _ in range(12):
        told.clock.now += 10.0
        told.progress.pulse()
    told.progress.wait("https://host: it answers 503; again in 30 s")
    told.clock.now += 10.0
    told.steps(1, 0.0)
    told.clock.now += 35.0
    told.progress.pulse()
    assert told.lines[1:] == [
        "critique (3 of 3) 0/320, for 30 s now",
        "critique (3 of 3) 0/320, for 1 min 00 s now",
        "critique (3 of 3) 0/320, for 1 min 30 s now",
        "critique (3 of 3) 0/320, for 2 min 00 s now",
        "critique (3 of 3) 1/320 (one in 2 min 45 s), for 35 s now",
    ]


def test_a_terminal_has_a_live_line_in_place_of_those_between() -> None:
    told = Told(terminal=Terminal())
    told.progress.begin("train", 200)
    told.steps(200, 1.0)
    assert told.lines == ["train begins: 200 items", "train ends after 3 min 20 s: 200 items, 1/s"]
    assert "train 200/200 (1/s)\n" in told.terminal.getvalue()


def test_a_live_line_ends_where_the_terminal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    told = Told(terminal=Terminal())
    told.progress.begin("数据集" * 10, 2)
    told.steps(2, 1.0)
    lines = told.terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(lines) == 3
    assert all(cell_len(line.rstrip("\n")) in (28, 29) for line in lines)
    assert all(line.rstrip("\n").endswith("…") for line in lines)


def test_a_log_that_is_no_terminal_has_no_control_codes(told: Told) -> None:
    told.progress.begin("train", 2)
    told.steps(2, 1.0)
    assert told.terminal.getvalue() == ""


def test_progress_is_reported_at_most_once_an_interval_but_always_at_the_end(told: Told) -> None:
    told.progress.begin("x", 100)
    told.steps(100, 0.1)
    assert len(told.records) <= 12
    assert told.records[-1].done == 100


def test_waiting_is_reported_when_it_begins_and_changes(told: Told) -> None:
    told.progress.begin("caption", 10)
    before = len(told.records)
    for second, text in ((1.0, "503"), (2.5, "503"), (4.0, "429")):
        told.clock.now = second
        told.progress.wait(text)
    assert [r.waiting for r in told.records[before:]] == ["503", "429"]


def record(
    phase: str, step: int, done: int, total: int, *, eta: float | None = None, waiting: str = ""
) -> ProgressRecord:
    return ProgressRecord(
        phase=phase, step=step, steps=3 if step else 0, done=done, total=total, rate=1.0, eta_seconds=eta,
        waiting=waiting, updated=100.0,
    )  # fmt: skip


ONE, TWO, THREE = "caption", "reconstruct", "critique"


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], None),
        ([record(ONE, 1, 5, 10, eta=5.0)], (ONE, 5, 10, 5.0, "")),
        ([record(ONE, 1, 5, 10, eta=5.0), record(ONE, 1, 2, 10, eta=8.0)], (ONE, 7, 20, 8.0, "")),
        ([record(TWO, 2, 5, 10, eta=5.0), record(ONE, 1, 2, 10, eta=8.0)], (ONE, 12, 20, 8.0, "")),
        ([record(THREE, 3, 10, 10), record(TWO, 2, 2, 10)], (TWO, 12, 20, None, "")),
        ([record(ONE, 1, 10, 10, eta=0.0), record(TWO, 2, 2, 10, eta=8.0)], (TWO, 2, 10, 8.0, "")),
        ([record(ONE, 1, 0, 10, waiting="loads"), record(ONE, 1, 0, 10, waiting="loads")], (ONE, 0, 20, None, "loads")),
        ([record(ONE, 1, 0, 10, waiting="loads"), record(ONE, 1, 3, 10, eta=7.0)], (ONE, 3, 20, None, "")),
        ([record("old", 0, 3, 10), record("old", 0, 3, 10)], ("old", 6, 20, None, "")),
        ([record(THREE, 3, 10, 10, eta=0.0), record(THREE, 3, 10, 10, eta=0.0)], (THREE, 20, 20, 0.0, "")),
    ],
    ids=["none", "one", "side by side", "one ahead", "one through", "first done", "all wait", "one waits",
         "0.1.0", "all"],
)  # fmt: skip
def test_shards_in_different_phases_are_not_added_up(records: list[ProgressRecord], expected: object) -> None:
    for order in (records, records[::-1]):
        made = over_shards(order)
        assert (
            None if made is None else (made.phase, made.done, made.total, made.eta_seconds, made.waiting)
        ) == expected
