"""Batches that shrink when memory does not suffice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from viper.engines.memory import Batches
from viper.errors import EngineError


class Device:
    """Takes at most so many items at once."""

    def __init__(self, fits: int) -> None:
        self.fits, self.calls = fits, list[int]()

    def double(self, items: Sequence[int]) -> list[int]:
        self.calls.append(len(items))
        if len(items) > self.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [2 * item for item in items]


def test_a_batch_that_does_not_fit_is_halved_and_stays_small() -> None:
    device, batches = Device(3), Batches(8, "spec.engines.reconstruction.batch")
    assert batches.run(range(10), device.double) == [2 * i for i in range(10)]
    assert device.calls == [8, 4, 2, 2, 2, 2, 2]
    assert batches.run([1, 2, 3], device.double) == [2, 4, 6]
    assert device.calls[-2:] == [2, 1]


def test_one_item_that_does_not_fit_names_the_setting() -> None:
    with pytest.raises(EngineError, match=r"engines\.editing\.batch.*does not fit(.|\n)*offload"):
        Batches(2, "spec.engines.editing.batch", "set offload: model").run([1], Device(0).double)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="assert"):
        Batches(4, "x").run([1, 2], work)
