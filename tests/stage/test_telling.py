"""The log of a stage: plain lines, and what the library says by `logging`."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from viper.stage.telling import Spoken, Teller, beating, spoken


class Waiting:
    """Keeps what is waited for."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def wait(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("caption begins", "10:00:07Z  caption begins\n"),
        ("what is wrong\n  → what to do", "10:00:07Z  what is wrong → what to do\n"),
        ("x" * 5000, "10:00:07Z  " + "x" * 1999 + "…\n"),
    ],
)
def test_a_line_has_the_time_in_front_and_no_breaks(text: str, line: str) -> None:
    out = io.StringIO()
    Teller(out, clock=lambda: 36_007.0)(text)
    assert out.getvalue() == line


def test_a_log_that_is_closed_does_not_stop_the_work() -> None:
    out = io.StringIO()
    out.close()
    Teller(out)("lost")


def test_a_pulse_comes_again_and_again_and_ends_with_the_block() -> None:
    beats, three = list[int](), threading.Event()

    def pulse() -> None:
        beats.append(1)
        if len(beats) == 3:
            three.set()

    with beating(pulse, 0.001):
        assert three.wait(60)
    number = len(beats)
    assert number >= 3
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_many_requests_at_one_server_are_one_line_and_what_is_waited_for() -> None:
    lines, waiting, now = list[str](), Waiting(), [0.0]
    log = logging.getLogger("viper.engines.openai_endpoint")
    with spoken(Spoken(lines.append, waiting, lambda: now[0])):
        for second in range(32):
            now[0] = float(second)
            log.info("%s: %s; again in %.1f s", "http://h/v1", "it answers 503: busy", 2.0, extra={"viper_waits": True})
        log.debug("no matter")
        log.warning("out of memory")
    log.info("afterwards")
    said = "http://h/v1: it answers 503: busy; again in 2.0 s"
    assert lines == [
        said,
        f"{said} (and 14 messages like it before)",
        f"{said} (and 14 messages like it before)",
        "out of memory",
    ]
    assert set(waiting.said) == {said}
