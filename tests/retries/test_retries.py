"""The table of what is tried again, carried out with a clock that only the waits move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event

import pytest

from viper import retries
from viper.retries import PassingError, Policy, doubling, retrying, retrying_async


class Time:
    """A clock, and the waits that moved it."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Work:
    """Fails in turn with these errors, the last one for ever; an int is what it returns."""

    def __init__(self, *answers: BaseException | int) -> None:
        self.answers, self.calls = list(answers), 0

    def __call__(self) -> int:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return answer
        raise answer


#: What the documentation says of each: waits before the spread, tries in all (None: as long as there is time).
WAITS = {
    "STORE": ((0.25, 0.5, 1, 2, 4, 8, 8, 8), 9),
    "STORE_BODY": ((0, 0, 0, 0), 5),
    "STORE_FOLDER": ((0,) * 9, 10),
    "STORE_LOCK": ((0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2), None),
    "MLFLOW": ((1, 2, 4, 8, 16), 6),
    "DATABASE": ((0.2, 0.8, 3), 4),
    "ENDPOINT": ((0.5, 1, 2, 4, 8, 16, 30, 30), None),
    "EDITS": ((1, 2, 4, 8, 16), 6),
    "REWARD": ((0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10), None),
    "NODE": ((1, 1, 1), None),
    "API_SERVER": ((0.2, 0.5, 1, 2, 4), 6),
    "API_SERVER_AWAY": ((5,) * 59, 60),
    "RECONCILE": ((1, 2, 4, 8, 16, 32, 60, 60), None),
    "ONCE": ((), 1),
}


def test_every_policy_is_in_the_table_of_this_test() -> None:
    assert {name for name, value in vars(retries).items() if isinstance(value, Policy)} == WAITS.keys()


@pytest.mark.parametrize("name", WAITS)
def test_tries_and_waits_of_each_policy(name: str) -> None:
    policy, (waits, tries) = getattr(retries, name), WAITS[name]
    time, work = Time(), Work(*[PassingError("busy")] * len(waits), *([1] if tries is None else [PassingError("busy")]))
    carried_out = retrying(policy, sleep=time.sleep, clock=lambda: time.now)
    if tries is None:
        assert carried_out(work) == 1
    else:
        with pytest.raises(PassingError, match="busy"):
            carried_out(work)
        assert work.calls == tries
    least, most = policy.spread
    assert all(w * least <= found <= w * most for w, found in zip(waits, time.waits, strict=True))


@pytest.mark.parametrize(
    ("policy", "asked", "waits"),
    [
        (Policy((1.0,), tries=2), 0.0, [1.0]),
        (Policy((1.0,), tries=2), 7.0, [7.0]),
        (Policy((1.0,), tries=2, most_asked=5.0), 600.0, [5.0]),
        (Policy((9.0,), tries=2), 7.0, [9.0]),
        (Policy((4.0,), seconds=10.0), 0.0, [4.0, 4.0]),
        (Policy((4.0,), seconds=10.0), 3600.0, []),
        (Policy((4.0,), tries=2, seconds=10.0), 0.0, [4.0]),
    ],
)
def test_a_server_says_when_and_time_ends(policy: Policy, asked: float, waits: list[float]) -> None:
    time = Time()
    with pytest.raises(PassingError):
        retrying(policy, sleep=time.sleep, clock=lambda: time.now)(Work(PassingError("busy", asked)))
    assert time.waits == waits


@pytest.mark.parametrize(
    ("again", "error", "calls"),
    [
        (OSError, OSError("x"), 3),
        (OSError, ConnectionError("x"), 3),
        (OSError, ValueError("x"), 1),
        ((OSError, ValueError), ValueError("x"), 3),
        (lambda error: "locked" in str(error), ValueError("is locked"), 3),
        (lambda error: "locked" in str(error), ValueError("is damaged"), 1),
        (Exception, KeyboardInterrupt(), 1),
        (Exception, SystemExit(75), 1),
    ],
)
def test_what_passes_is_tried_again_and_the_last_error_is_raised_itself(
    again: retries.Again, error: BaseException, calls: int
) -> None:
    for run in (_plainly, _as_coroutine):
        work = Work(error)
        with pytest.raises(type(error)) as raised:
            run(Policy(tries=3), again, work)
        assert (raised.value, work.calls) == (error, calls)


def _plainly(policy: Policy, again: retries.Again, work: Callable[[], int]) -> int:
    return retrying(policy, again)(work)


def _as_coroutine(policy: Policy, again: retries.Again, work: Callable[[], int]) -> int:
    async def once() -> int:
        return work()

    async def run() -> int:
        return await retrying_async(policy, again)(once)

    return asyncio.run(run())


def test_who_waits_is_told_why_how_long_and_after_which_try() -> None:
    told: list[tuple[str, float, int]] = []
    policy = Policy(doubling(1.0, 2.0), tries=4)
    work = Work(PassingError("a"), PassingError("b"), PassingError("c"), 5)
    tell = retrying(policy, told=lambda *said: told.append((str(said[0]), *said[1:])), sleep=lambda _: None)
    assert tell(work) == 5
    assert told == [("a", 1.0, 1), ("b", 2.0, 2), ("c", 2.0, 3)]


def test_nothing_is_tried_again_once_others_have_stopped() -> None:
    stopped, work = Event(), Work(PassingError("busy"))
    stopped.set()
    with pytest.raises(PassingError):
        retrying(Policy(tries=9), stopped=stopped)(work)
    assert work.calls == 1
