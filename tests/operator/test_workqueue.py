"""The queue of keys, with time that is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from viper.retries import Policy
from viper_operator.workqueue import WorkQueue


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


class Worker:
    """Counts calls and concurrency; finishes a call when told to."""

    def __init__(self, *, hold: bool = False) -> None:
        self.calls: list[str] = []
        self.now: list[str] = []
        self.most = 0
        self.gate = asyncio.Event()
        self.called = asyncio.Event()
        if not hold:
            self.gate.set()

    async def __call__(self, key: str) -> float | None:
        assert key not in self.now
        self.now.append(key)
        self.most = max(self.most, len(self.now))
        self.calls.append(key)
        self.called.set()
        await self.gate.wait()
        self.now.remove(key)
        return None


def test_a_key_added_many_times_before_its_turn_is_worked_on_once() -> None:
    async def scenario() -> None:
        work = Worker()
        queue = WorkQueue[str](work)
        for _ in range(100):
            queue.add("a")
        task = asyncio.create_task(queue.run(4))
        await queue.idle()
        task.cancel()
        assert work.calls == ["a"]

    run(scenario)


def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more_afterwards() -> None:
    async def scenario() -> None:
        work = Worker(hold=True)
        queue = WorkQueue[str](work)
        queue.add("a")
        task = asyncio.create_task(queue.run(4))
        await work.called.wait()
        queue.add("a")
        queue.add("a")
        work.gate.set()
        await queue.idle()
        task.cancel()
        assert work.calls == ["a", "a"]
        assert work.most == 1

    run(scenario)


def test_different_keys_are_worked_on_at_the_same_time_up_to_the_number_of_workers() -> None:
    async def scenario() -> None:
        work = Worker(hold=True)
        queue = WorkQueue[str](work)
        for key in "abcdef":
            queue.add(key)
        task = asyncio.create_task(queue.run(3))
        while len(work.now) < 3:
            work.called.clear()
            await work.called.wait()
        work.gate.set()
        await queue.idle()
        task.cancel()
        assert sorted(work.calls) == list("abcdef")
        assert work.most == 3

    run(scenario)


def test_a_key_that_fails_is_tried_again_with_growing_delays_and_others_go_on() -> None:
    async def scenario() -> None:
        delays: list[float] = []
        done = asyncio.Event()

        async def work(key: str) -> float | None:
            if key == "bad" and len(delays) < 4:
                raise ValueError("no")
            if key == "bad":
                done.set()
            return None

        patience = Policy((0.001, 0.002, 0.004))
        queue = WorkQueue[str](work, failed=lambda key, error, delay: delays.append(delay), patience=patience)
        queue.add("bad")
        queue.add("good")
        task = asyncio.create_task(queue.run(1))
        await done.wait()
        task.cancel()
        assert delays == pytest.approx([0.001, 0.002, 0.004, 0.004])

    run(scenario)


def test_the_earliest_of_several_delays_counts_and_a_direct_add_replaces_them() -> None:
    async def scenario() -> None:
        work = Worker()
        queue = WorkQueue[str](work)
        queue.add_after("a", 3600)
        queue.add_after("a", 0.001)
        queue.add_after("a", 7200)
        task = asyncio.create_task(queue.run(1))
        await work.called.wait()
        await queue.idle()
        assert work.calls == ["a"]
        queue.add_after("b", 3600)
        queue.add("b")
        await queue.idle()
        task.cancel()
        assert work.calls == ["a", "b"]

    run(scenario)


def test_work_that_wants_to_be_called_again_is() -> None:
    async def scenario() -> None:
        calls: list[str] = []
        twice = asyncio.Event()

        async def work(key: str) -> float | None:
            calls.append(key)
            if len(calls) == 2:
                twice.set()
                return None
            return 0.001

        queue = WorkQueue[str](work)
        queue.add("a")
        task = asyncio.create_task(queue.run(1))
        await twice.wait()
        task.cancel()
        assert calls == ["a", "a"]

    run(scenario)


def test_an_urgent_key_comes_before_those_that_wait_and_is_worked_on_once() -> None:
    async def scenario() -> None:
        work = Worker()
        queue = WorkQueue[str](work)
        for key in ("a", "b", "c"):
            queue.add(key)
        queue.add("new", urgent=True)
        queue.add("c", urgent=True)
        queue.add("new")
        queue.add_after("new", 3600)
        assert (queue.urgent, len(queue)) == (2, 4)
        task = asyncio.create_task(queue.run(1))
        await queue.idle()
        task.cancel()
        assert work.calls == ["new", "c", "a", "b"]
        assert queue.urgent == 0

    run(scenario)
