"""What tidies up in a store ends: always by itself, and within seconds where the program was told to stop."""

from __future__ import annotations

import threading

import pytest

from viper.store.leaving import tidied


@pytest.mark.parametrize("leaves", [SystemExit(143), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_one_who_was_told_to_stop_does_not_wait_for_a_silent_store(leaves: BaseException) -> None:
    answer, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        answer.wait(60)

    def program() -> None:
        try:
            raise leaves
        finally:
            tidied(work, 0.05)

    with pytest.raises(type(leaves)):
        program()
    assert begun.wait(60)
    (tidying,) = [thread for thread in threading.enumerate() if thread.name == "tidying"]
    assert tidying.daemon
    answer.set()
    tidying.join(60)


@pytest.mark.parametrize("leaves", [SystemExit(143), KeyboardInterrupt(), ValueError(), None], ids=repr)
def test_what_is_tidied_is_tidy_afterwards(leaves: BaseException | None) -> None:
    done: list[str] = []

    def program() -> None:
        try:
            if leaves is not None:
                raise leaves
        finally:
            tidied(lambda: done.append(threading.current_thread().name))

    if leaves is None:
        program()
    else:
        with pytest.raises(type(leaves)):
            program()
    assert done == ["tidying" if isinstance(leaves, SystemExit | KeyboardInterrupt) else "MainThread"]
