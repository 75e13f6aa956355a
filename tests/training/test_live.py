"""Live curves: buffered, patient, never in the way."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from viper.errors import RegistryError
from viper.training.live import UNTRACKED_SECONDS, CurveRow, LiveCurves


def test_rows_that_cannot_be_sent_are_sent_later_in_order() -> None:
    sent: list[float] = []
    down = True

    def send(rows: Sequence[CurveRow]) -> None:
        if down:
            raise RegistryError("is down")
        sent.extend(row["step"] for row in rows)

    live = LiveCurves(send, interval=3600)
    live.log({"step": 1})
    assert not live.flush()
    live.log({"step": 2})
    assert not live.flush()
    down = False
    assert live.flush()
    assert sent == [1, 2]
    live.close()
    assert sent == [1, 2]


def test_a_server_that_hangs_does_not_hold_a_step_up() -> None:
    entered, release, trained = threading.Event(), threading.Event(), threading.Event()
    sent: list[float] = []

    def send(rows: Sequence[CurveRow]) -> None:
        entered.set()
        release.wait()
        sent.extend(row["step"] for row in rows)

    live = LiveCurves(send, interval=0.001)

    def train() -> None:
        for step in range(2, 100):
            live.log({"step": step})
        live.close(timeout=0.01)
        trained.set()

    live.log({"step": 1})
    assert entered.wait(30)
    threading.Thread(target=train, daemon=True).start()
    try:
        assert trained.wait(30), "a step, or the end of the run, waits for a server that hangs"
        assert sent == []
    finally:
        release.set()
    live.close()
    assert sent == list(range(1, 100))


def test_closing_sends_the_rest() -> None:
    sent: list[float] = []
    with LiveCurves(lambda rows: sent.extend(row["step"] for row in rows), interval=3600) as live:
        for step in range(5):
            live.log({"step": step})
    assert sent == [0, 1, 2, 3, 4]


def test_without_a_row_nothing_is_sent() -> None:
    def send(rows: Sequence[CurveRow]) -> None:
        raise AssertionError("nothing to send")

    with LiveCurves(send):
        pass


def test_a_run_that_nobody_has_seen_for_long_is_stopped() -> None:
    now, down = 0.0, True

    def send(_: Sequence[CurveRow]) -> None:
        if down:
            raise RegistryError("is down")

    live = LiveCurves(send, interval=UNTRACKED_SECONDS, clock=lambda: now)
    live.check()
    live.log({"step": 1})
    now = UNTRACKED_SECONDS
    live.flush()
    live.log({"step": 2})
    live.check()
    down, now = False, UNTRACKED_SECONDS + 1
    live.flush()
    live.check()
    down, now = True, 2 * UNTRACKED_SECONDS
    live.check()
    live.log({"step": 3})
    live.flush()
    now = 3 * UNTRACKED_SECONDS + 1
    with pytest.raises(RegistryError, match="has taken nothing for 3600 s"):
        live.check()
    live.close()
