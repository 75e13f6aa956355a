"""What may pass is tried again: how often, how long and after which waits, in one table; tenacity carries it out.

What is tried again is said where it is known which errors pass (`again`); all others are raised at once, as is the last
one of those that pass. A server's Retry-After comes as the attribute `after` of the error.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3
    from tenacity import AsyncRetrying, RetryCallState, Retrying

#: Errors that pass: their classes, or a function that knows them.
Again = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
#: Is told before each wait: the error, the seconds that are waited, and which try it was (from 1).
Told = Callable[[BaseException, float, int], object]
#: Of the system, so that waiting takes nothing from a stream that results come from.
_chance = random.SystemRandom()


class PassingError(Exception):
    """What may be well the next time. `after`: seconds that a server asked for until then."""

    def __init__(self, problem: str = "", after: float = 0.0) -> None:
        super().__init__(problem)
        self.after = after


@dataclass(frozen=True)
class Policy:
    """How something is tried again.

    waits: seconds before the second try, the third, …; the last one before every further one.
    tries: at most, the first one included; None: as many as there is time for.
    seconds: from the beginning; what would begin later is not tried. None: as long as the tries take.
    spread: each wait is multiplied by a random number between these.
    most_asked: longest wait in seconds that a server may ask for and get.
    """

    waits: tuple[float, ...] = (0.0,)
    tries: int | None = None
    seconds: float | None = None
    spread: tuple[float, float] = (1.0, 1.0)
    most_asked: float = float("inf")

    def wait(self, failures: int) -> float:
        """Seconds after so many failures (from 1), before the spread."""
        return self.waits[min(failures, len(self.waits)) - 1]


def doubling(first: float, longest: float) -> tuple[float, ...]:
    """Waits from `first` on, each twice the one before, up to `longest`."""
    waits = [first]
    while waits[-1] < longest:
        waits.append(min(2 * waits[-1], longest))
    return tuple(waits)


ONCE = Policy(tries=1)
#: A request to the object store that fails on the way, and a write that another one was in the way of: a restart of the
#: server is survived, one that stays away is reported within about half a minute.
STORE = Policy(doubling(0.25, 8.0), tries=9, spread=(0.5, 1.0))
#: A body that breaks off is read on from there; each request has `STORE` of its own.
STORE_BODY = Policy(tries=5)
#: A folder that is removed, empty, by `delete` between being made and taking its file.
STORE_FOLDER = Policy(tries=10)
#: A lock in a store that others hold, or keep taking.
STORE_LOCK = Policy(doubling(0.05, 2.0), seconds=1200.0, spread=(0.5, 1.0))
#: MLflow's server. Its client's own numbers wait four minutes before one that is down is reported, these half a minute.
MLFLOW = Policy(doubling(1.0, 16.0), tries=6)
#: MLflow's SQLite database while another process holds it.
DATABASE = Policy((0.2, 0.8, 3.0), tries=4)
#: A chat endpoint that is busy or away; in all `spec.engines.generation.timeoutSeconds`.
ENDPOINT = Policy(doubling(0.5, 30.0), spread=(0.5, 1.0))
#: A server of edits.
EDITS = Policy(doubling(1.0, 120.0), tries=6)
#: The reward service while it is full, restarting or not reachable.
REWARD = Policy(doubling(0.1, 10.0), seconds=300.0, spread=(0.75, 1.25))
#: The address of node 0 of a stage on several, which a Service takes a moment to know; as long as nodes may take.
NODE = Policy((1.0,))
#: The API server, for the operator: a key that waits longer gives its worker to another.
API_SERVER = Policy((0.2, 0.5, 1.0, 2.0, 4.0), tries=6, spread=(0.5, 1.5), most_asked=10.0)
#: The API server, for commands that go on for hours.
API_SERVER_AWAY = Policy((5.0,), tries=60)
#: An iteration or loop that could not be reconciled.
RECONCILE = Policy(doubling(1.0, 60.0))


def retrying(
    policy: Policy,
    again: Again = PassingError,
    *,
    told: Told | None = None,
    stopped: Event | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Retrying:
    """`retrying(...)(work, *arguments)` is what `work` returns in the end, or raises the last time.

    Args:
        again: which errors pass.
        stopped: nothing is tried again once it is set.
        sleep, clock: replaceable in tests, in seconds.
    """
    from tenacity import Retrying

    return Retrying(sleep=sleep, **_how(policy, again, told, stopped, clock))


def retrying_async(
    policy: Policy, again: Again = PassingError, *, sleep: Callable[[float], Awaitable[None]] | None = None
) -> AsyncRetrying:
    """As `retrying`, of coroutines: `await retrying_async(...)(work)`."""
    import asyncio

    from tenacity import AsyncRetrying

    return AsyncRetrying(sleep=sleep or asyncio.sleep, **_how(policy, again, None, None, time.monotonic))


def _how(
    policy: Policy, again: Again, told: Told | None, stopped: Event | None, clock: Callable[[], float]
) -> dict[str, Any]:
    from tenacity import retry_if_exception, retry_if_exception_type

    begun = clock()

    def wait(state: RetryCallState) -> float:
        asked = min(float(getattr(_error(state), "after", 0.0)), policy.most_asked)
        return max(asked, policy.wait(state.attempt_number) * _chance.uniform(*policy.spread))

    def stop(state: RetryCallState) -> bool:
        return (
            (policy.tries is not None and state.attempt_number >= policy.tries)
            or (policy.seconds is not None and clock() - begun + state.upcoming_sleep >= policy.seconds)
            or (stopped is not None and stopped.is_set())
        )

    def tell(state: RetryCallState) -> None:
        if told is not None:
            told(_error(state), state.upcoming_sleep, state.attempt_number)

    retry = retry_if_exception_type(again) if isinstance(again, type | tuple) else retry_if_exception(again)
    return {"retry": retry, "wait": wait, "stop": stop, "before_sleep": tell, "reraise": True}


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    return PassingError() if error is None else error  # only errors are tried again


def of_requests(policy: Policy, kind: type[urllib3.Retry] | None = None, **settings: Any) -> urllib3.Retry:
    """The policy as urllib3's, which repeats requests by itself; there the first wait is none.

    Args:
        kind: a subclass of `urllib3.Retry`.
        settings: what else `urllib3.Retry` takes.
    """
    import urllib3

    return (kind or urllib3.Retry)(
        total=(policy.tries or 1) - 1,
        backoff_factor=policy.waits[0],
        backoff_max=policy.waits[-1],
        allowed_methods=None,  # POST too: what is asked may be asked twice
        raise_on_status=False,  # what the server says in its last answer tells more
        **settings,
    )
