"""Answers are asked for once, batch by batch, whatever is interrupted."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.evaluation.answers import Answers, Asked, Said
from viper.store import DirectoryStore


class FakeVlm:
    """Repeats its prompt after some reasoning; fails at the batch with the prompt `bad`."""

    engine_id = "fake"

    def __init__(self, bad: str = "") -> None:
        self.asked: list[str] = []
        self.bad = bad

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        if self.bad in [r.prompt for r in requests]:
            raise KeyboardInterrupt
        assert (sampling.temperature, sampling.max_tokens) == (0, 7)
        self.asked += [r.prompt for r in requests]
        return [VlmOutput(f"<think>so</think>{r.prompt}!", True, len(r.images)) for r in requests]


def questions(count: int = 5) -> list[Asked]:
    pictures = [Image.new("RGB", (8, 8))] * 3
    return [Asked(f"t/{i}", f"p{i}", lambda i=i: pictures[: i % 3]) for i in range(count)]


def ask(store: DirectoryStore, vlm: FakeVlm, asked: list[Asked], prefix: str = "e/1/m") -> list[Said]:
    return list(Answers(store, prefix, 7, 2).ask(asked, lambda: vlm, lambda _: None))


def test_answers_come_in_order_without_the_reasoning(directory_store: DirectoryStore) -> None:
    said = ask(directory_store, FakeVlm(), questions())
    assert [(s.question_id, s.prediction, s.tokens) for s in said] == [(f"t/{i}", f"p{i}!", i % 3) for i in range(5)]


def test_an_interrupted_run_goes_on_at_the_batch_that_was_lost(directory_store: DirectoryStore) -> None:
    first, second = FakeVlm(bad="p3"), FakeVlm()
    with pytest.raises(KeyboardInterrupt):
        ask(directory_store, first, questions())
    resumed = ask(directory_store, second, questions())
    assert (first.asked, second.asked) == (["p0", "p1"], ["p2", "p3", "p4"])
    assert resumed == ask(directory_store, FakeVlm(), questions(), "another")


def test_known_answers_need_no_model(directory_store: DirectoryStore) -> None:
    ask(directory_store, FakeVlm(), questions())

    def load() -> FakeVlm:
        raise AssertionError("nothing has to be asked")

    again = list(Answers(directory_store, "e/1/m", 7, 2).ask(questions(), load, lambda _: None))
    assert len(again) == 5


def test_a_torn_batch_or_another_prompt_is_asked_again(directory_store: DirectoryStore) -> None:
    ask(directory_store, FakeVlm(), questions())
    keys = sorted(info.key for info in directory_store.list("e/"))
    directory_store.put(keys[0], b"torn")
    vlm = FakeVlm()
    ask(directory_store, vlm, questions())
    assert len(vlm.asked) in (1, 2)
    changed = [Asked(q.question_id, q.prompt.upper(), q.load) for q in questions()]
    ask(directory_store, vlm, changed)
    assert vlm.asked[-5:] == [f"P{i}" for i in range(5)]


#: What another release, or nobody we know, may have kept in place of a batch; and whether it is taken as the answers.
COLUMNS: dict[str, tuple[Callable[[pa.Table], pa.Table], bool]] = {
    "as it is": (lambda table: table, True),
    "a column of a later release": (lambda table: table.append_column("logprob", [[0.5] * table.num_rows]), True),
    "a nested one": (lambda table: table.append_column("more", [[{"a": [1]}] * table.num_rows]), True),
    "other order": (lambda table: table.select(sorted(table.column_names)), True),
    "one is missing": (lambda table: table.drop_columns(["note"]), False),
    "numbers in place of text": (lambda table: table.set_column(2, "output", [[1] * table.num_rows]), False),
    "null in place of text": (lambda table: table.set_column(2, "output", [[None] * table.num_rows]), False),
    "no rows": (lambda table: table.slice(0, 0), False),
}


@pytest.mark.parametrize("what", COLUMNS)
def test_columns_of_another_release_are_left_alone(directory_store: DirectoryStore, what: str) -> None:
    change, taken = COLUMNS[what]
    before = ask(directory_store, FakeVlm(), questions(2))
    key = next(info.key for info in directory_store.list("e/"))
    buffer = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(directory_store.get(key)))), buffer)
    directory_store.put(key, buffer.getvalue())
    vlm = FakeVlm()
    assert ask(directory_store, vlm, questions(2)) == before
    assert bool(vlm.asked) != taken


def test_of_two_who_ask_at_once_the_first_answers_count_for_both(directory_store: DirectoryStore) -> None:
    class Slow(FakeVlm):
        """Says something else, and another one has answered when it does."""

        def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
            if not self.asked:
                ask(directory_store, FakeVlm(), questions())
            self.asked += [r.prompt for r in requests]
            return [VlmOutput("something else", True, 1) for _ in requests]

    slow = Slow()
    said = ask(directory_store, slow, questions())
    assert slow.asked == ["p0", "p1"]
    assert said == ask(directory_store, FakeVlm(bad="p0"), questions())
    assert [s.prediction for s in said] == [f"p{i}!" for i in range(5)]


def test_progress_counts_what_was_known_too(directory_store: DirectoryStore, tmp_path: Path) -> None:
    ask(directory_store, FakeVlm(), questions()[:2])
    counted: list[int] = []
    list(Answers(directory_store, "e/1/m", 7, 2).ask(questions(), FakeVlm, counted.append))
    assert counted == [2, 2, 1]
