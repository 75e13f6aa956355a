"""The reward function that verl is given (`reward.custom_reward_function`): it asks the reward service.

verl scores one output at a time; the service makes batches of what concurrent calls bring. A reward that cannot be had
is an error, never a 0.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp

from viper import retries
from viper.errors import EngineError, InputError
from viper.retries import PassingError, retrying_async
from viper.text import clean
from viper.words import plural

#: Connections of one process at most; the other calls wait for one. It is as many as the service puts into a batch.
_CONNECTIONS = 256
#: Answers after which it makes sense to ask again: the queue is full, or something in between has no connection.
_PASSING = (502, 503, 504)


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    patience_s: float = retries.REWARD.seconds or 0.0,
    timeout_s: float = 120.0,
    **_: Any,
) -> dict[str, float]:
    """The reward of one output, with verl's parameters first.

    Args:
        data_source: not used.
        solution_str: the output as text, think block included.
        ground_truth: JSON: `{"sentences": […]}`, with or without other keys, or the list alone.
        extra_info: `finished`, where known, says whether the output ended by itself.
        url: of the reward service.
        patience_s: seconds for which it is asked again while it is full, restarting or not reachable.
        timeout_s: seconds for one answer.

    Returns:
        `score` (equation 7), `format`, `correctness` (equations 5, 6), `recall`, `items`, `duplicates` (never
        rewarded) and `finished`, all as floats.

    Raises:
        InputError: there is no ground truth to compare with.
        EngineError: the service fails, refuses, or is not there for `patience_s`.
    """
    body = {
        "output": clean(solution_str),
        "ground_truth": sentences_of(ground_truth),
        "finished": bool((extra_info or {}).get("finished", True)),
        "detail": False,
    }
    async with _connections() as session:

        async def once() -> dict[str, float]:
            try:
                timeout = aiohttp.ClientTimeout(total=timeout_s)
                async with session.post(f"{url}/score", json=body, timeout=timeout) as response:
                    if response.status == 200:
                        return _measures(await response.json(), body["finished"], url)
                    problem = f"answered {response.status}: {(await response.text())[:500]}"
                    if response.status not in _PASSING:
                        raise EngineError(f"the reward service {problem}", where=url)
                    # Spread as well: many calls are asked to come back at the same moment.
                    asked = float(response.headers.get("Retry-After", 0)) * random.uniform(*retries.REWARD.spread)
                    raise PassingError(problem, asked)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
                raise PassingError(f"cannot be reached: {error or type(error).__name__}") from error

        start, tries = time.monotonic(), retrying_async(replace(retries.REWARD, seconds=patience_s))
        try:
            return await tries(once)
        except PassingError as problem:
            made = plural(tries.statistics["attempt_number"], "attempt")
            raise EngineError(
                f"the reward service {problem} ({made} in {time.monotonic() - start:.0f} s)",
                where=url,
                fix="see reward-service.log of the training stage; no output is scored without the service",
            ) from problem.__cause__


class _Shared:
    """Connections of the calls that are under way in one event loop."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_CONNECTIONS))
        self.users = 0


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


@asynccontextmanager
async def _connections() -> AsyncIterator[aiohttp.ClientSession]:
    """Calls at the same time share connections; the last one closes them, so that none is left open or grows stale."""
    loop = asyncio.get_running_loop()
    shared = _shared.get(loop)
    if shared is None:
        shared = _shared[loop] = _Shared()
    shared.users += 1
    try:
        yield shared.session
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[loop]
            await shared.session.close()


def sentences_of(ground_truth: str) -> list[str]:
    """The sentences of a row's ground truth; raises `InputError` when there are none."""
    try:
        found = json.loads(ground_truth)
    except (TypeError, ValueError):
        found = None
    if isinstance(found, Mapping):
        found = found.get("sentences")
    if not isinstance(found, list) or not found or not all(isinstance(s, str) for s in found):
        raise InputError(
            'expected JSON with sentences, {"sentences": ["…"]}; there is nothing to compare an output with',
            where=f"reward_model.ground_truth: {str(ground_truth)[:200]}",
            fix="write the training data with `viper`; a sample without ground truth teaches nothing",
        )
    return found


def _measures(reward: Mapping[str, Any], finished: object, url: str) -> dict[str, float]:
    names = {
        "score": "reward",
        "format": "format",
        "correctness": "correctness",
        "recall": "recall",
        "items": "items",
        "duplicates": "duplicate_share",
    }
    try:
        measures = {name: float(reward[key]) for name, key in names.items()} | {"finished": float(bool(finished))}
    except (KeyError, TypeError, ValueError):
        raise EngineError(f"the answer is no reward: {str(reward)[:200]}", where=url) from None
    if not all(map(math.isfinite, measures.values())):
        raise EngineError(f"the reward is not finite: {measures}", where=url)
    return measures
