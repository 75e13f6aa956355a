"""Several requests at once: order, width, the first error; and an end that waits for no answer."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from viper.engines.at_once import at_once
from viper.stage.termination import stoppable


@pytest.mark.parametrize("width", [1, 2, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 200])
def test_results_are_in_the_order_of_the_items_and_no_more_than_the_width_run(width: int, count: int) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return item * item

    assert at_once(work, range(count), width) == [n * n for n in range(count)]
    assert most <= width


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(5, "bad"), KeyError("bad")])
def test_the_first_error_ends_it_when_what_was_begun_is_done(error: Exception) -> None:
    begun, done, stopped = list[int](), list[int](), threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise error
        assert stopped.wait(60)
        done.append(item)
        return item

    with pytest.raises(type(error)):
        at_once(work, range(100), 3, stop=stopped.set)
    assert sorted(done) == [item for item in sorted(begun) if item != 1]
    assert len(begun) <= 3


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background, which a shell starts with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def told(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("tell", "leaves"),
    [(told(signal.SIGTERM), SystemExit), (told(signal.SIGINT), KeyboardInterrupt)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_signal_waits_for_no_answer(
    tell: Callable[[], None], leaves: type[BaseException], interruptible: None
) -> None:
    """One that never comes."""
    answer, left, both = threading.Event(), threading.Event(), threading.Barrier(2)

    def work(item: int) -> int:
        if both.wait(60) == 0:
            tell()
        answer.wait(60)
        left.set()
        return item

    with stoppable(), pytest.raises(leaves):
        at_once(work, range(9), 2)
    assert not left.is_set()
    waiting = [thread for thread in threading.enumerate() if thread.name.startswith("at-once")]
    assert len(waiting) == 2
    assert all(thread.daemon for thread in waiting)  # or the interpreter would wait for them at its end
    answer.set()
    for thread in waiting:
        thread.join(60)
    assert not any(thread.is_alive() for thread in waiting)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_between_two_starts_ends_it_too(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads that were started take no further item."""
    started, begun, answer, start = list[threading.Thread](), list[int](), threading.Event(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        if len(started) == at:
            raise KeyboardInterrupt

    def work(item: int) -> None:
        begun.append(item)
        assert answer.wait(60)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        at_once(work, range(100), 3)
    answer.set()
    for thread in started:
        thread.join(60)
    assert len(started) == at
    assert len(begun) <= at
