"""Reading ahead and storing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from viper.stage.overlap import Behind, ahead


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    begun = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for i, event in enumerate(begun):
            event.set()
            yield i

    seen = []
    for item in ahead(items()):
        seen.append(item)
        if item < 2:
            assert begun[item + 1].wait(10)
    assert seen == [0, 1, 2]


def test_an_error_ahead_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("unreadable")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="unreadable"):
        next(coming)


def test_pieces_are_done_in_order_and_all_of_them_before_it_ends() -> None:
    done: list[int] = []
    with Behind() as behind:
        for i in range(20):
            behind(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == list(range(20))


def test_the_caller_waits_when_too_much_is_waiting() -> None:
    hold, done = threading.Event(), list[int]()

    def piece(i: int) -> None:
        assert hold.wait(10)
        done.append(i)

    with Behind(waiting=2) as behind:
        for i in range(3):
            behind(lambda i=i: piece(i))  # type: ignore[misc]
        assert done == []
        hold.set()
        behind(lambda: piece(3))
        assert done[0] == 0
    assert done == [0, 1, 2, 3]


def test_an_error_behind_is_raised_at_the_next_piece() -> None:
    done: list[int] = []
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise OSError("disk full")

    def work() -> None:
        with Behind(waiting=0) as behind:
            behind(fail)
            assert failed.wait(10)
            behind(lambda: done.append(1))

    with pytest.raises(OSError, match="disk full"):
        work()
    assert done == []
