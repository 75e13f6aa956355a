"""How concurrent items become batches, without HTTP; and what is remembered of ground truths."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from fake_similarity import FakeSimilarity
from numpy.typing import NDArray

from engines.contracts import SimilarityContract
from viper.engines.base import SimilarityModel
from viper.reward.equations import RewardParameters, score_batch
from viper.reward.service.batching import BatchLimits, MicroBatcher, Observer, QueueFullError
from viper.reward.service.scorer import Remembering, ScoreItem, Scorer


class TestFakeSimilarity(SimilarityContract):
    @pytest.fixture
    def engine(self) -> SimilarityModel:
        return FakeSimilarity()


class TestRemembering(SimilarityContract):
    """Also when all or some of the sentences are remembered."""

    @pytest.fixture
    def engine(self) -> SimilarityModel:
        model = Remembering(FakeSimilarity())
        model.expect(self.sentences[:2])
        model.embed(self.sentences)
        return model


class Held:
    """Work that notes its batches and waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.begun.set()
        self.go.wait()
        return [item * 10 for item in items]


async def begun(work: Held) -> None:
    await asyncio.to_thread(work.begun.wait)


def test_what_arrives_while_a_batch_is_in_work_is_the_next_batch() -> None:
    async def scenario() -> list[int]:
        batcher = MicroBatcher(work, BatchLimits(batch=8, linger_s=0))
        running = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.submit(0))
        await begun(work)
        others = [asyncio.create_task(batcher.submit(i)) for i in range(1, 12)]
        while batcher.waiting < 11:
            await asyncio.sleep(0)
        assert batcher.busy_s > 0
        work.go.set()
        results = await asyncio.gather(first, *others)
        assert (batcher.waiting, batcher.busy_s) == (0, 0.0)
        batcher.close()
        await running
        return results

    work = Held()
    assert asyncio.run(scenario()) == [i * 10 for i in range(12)]
    assert work.batches == [[0], list(range(1, 9)), [9, 10, 11]]


def test_one_too_many_is_refused_and_the_others_are_served() -> None:
    async def scenario() -> list[int]:
        batcher = MicroBatcher(work, BatchLimits(batch=1, waiting=2, linger_s=0))
        running = asyncio.create_task(batcher.run())
        tasks = [asyncio.create_task(batcher.submit(0))]
        await begun(work)
        tasks += [asyncio.create_task(batcher.submit(i)) for i in (1, 2)]
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.submit(3)
        assert refused.value.retry_after_s >= 1
        work.go.set()
        results = await asyncio.gather(*tasks)
        batcher.close()
        await running
        return results

    work = Held()
    assert asyncio.run(scenario()) == [0, 10, 20]


def test_a_caller_that_has_gone_costs_no_work() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(work, BatchLimits(linger_s=0))
        running = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.submit(0))
        await begun(work)
        gone, stays = (asyncio.create_task(batcher.submit(i)) for i in (1, 2))
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        work.go.set()
        assert await asyncio.gather(first, stays) == [0, 20]
        batcher.close()
        await running

    work = Held()
    asyncio.run(scenario())
    assert work.batches == [[0], [2]]


def test_what_waits_is_done_before_it_closes_and_what_comes_later_is_refused() -> None:
    async def scenario() -> None:
        batcher = MicroBatcher(work, BatchLimits(batch=1, linger_s=0))
        running = asyncio.create_task(batcher.run())
        tasks = [asyncio.create_task(batcher.submit(i)) for i in range(3)]
        await begun(work)
        batcher.close()
        with pytest.raises(QueueFullError):
            await batcher.submit(3)
        work.go.set()
        await running
        assert await asyncio.gather(*tasks) == [0, 10, 20]

    work = Held()
    asyncio.run(scenario())


def test_a_failure_reaches_every_caller_of_its_batch_and_the_next_batch_is_served() -> None:
    def fails_once(items: Sequence[int]) -> list[int]:
        if 0 in items:
            raise RuntimeError("out of memory")
        return list(items)

    async def scenario() -> None:
        batcher = MicroBatcher(fails_once, BatchLimits(linger_s=0))
        running = asyncio.create_task(batcher.run())
        failed = await asyncio.gather(batcher.submit(0), batcher.submit(1), return_exceptions=True)
        assert [str(error) for error in failed] == ["out of memory"] * 2
        assert await batcher.submit(2) == 2
        batcher.close()
        await running

    asyncio.run(scenario())


def test_an_observer_learns_of_every_item() -> None:
    class Counting(Observer):
        items = waited = 0

        def batch(self, items: int, queue_s: Sequence[float], work_s: float) -> None:
            self.items, self.waited = self.items + items, self.waited + len(queue_s)

    async def scenario() -> None:
        batcher = MicroBatcher(list, BatchLimits(batch=2, linger_s=0), seen)
        running = asyncio.create_task(batcher.run())
        await asyncio.gather(*map(batcher.submit, range(5)))
        batcher.close()
        await running

    seen = Counting()
    asyncio.run(scenario())
    assert (seen.items, seen.waited) == (5, 5)


class Counted(FakeSimilarity):
    """Notes what it is asked to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        self.asked += sentences
        return super().embed(sentences)


def test_what_was_embedded_lately_is_not_embedded_again() -> None:
    model = Counted()
    scorer = Scorer(model, RewardParameters())
    items = [ScoreItem("<think>x</think>A red ring. A cross.", ("A red  ring.", "A blue star."))]
    first, again = scorer(items), scorer(items)
    assert first == again == score_batch([items[0].output], [items[0].ground_truth], FakeSimilarity())
    assert sorted(model.asked) == ["A blue star.", "A cross.", "A red ring."]
    assert (scorer.similarity.embedded, scorer.similarity.found, len(scorer.similarity)) == (3, 3, 3)


def test_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    model = Counted()
    memory = Remembering(model, truths=2, others=0)
    for truth in ("One.", "Two.", "One.", "Three.", "One."):
        memory.expect([truth])
        memory.embed([truth, "Said."])
    assert len(memory) == 2
    assert [model.asked.count(s) for s in ("One.", "Two.", "Three.", "Said.")] == [1, 1, 1, 5]
    memory.expect(["Two."])
    memory.embed(["Two."])
    assert model.asked.count("Two.") == 2


def test_sentences_of_outputs_do_not_crowd_out_ground_truths() -> None:
    model = Counted()
    memory = Remembering(model, truths=1, others=1)
    memory.expect(["Truth."])
    memory.embed(["Truth.", *(f"Said {i}." for i in range(5))])
    memory.embed(["Truth.", "Said 4.", "Said 0."])
    assert [model.asked.count(s) for s in ("Truth.", "Said 4.", "Said 0.")] == [1, 1, 2]
