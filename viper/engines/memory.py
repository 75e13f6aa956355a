"""Memory of the device: given back between phases, and used in batches that fit."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from viper.errors import EngineError

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)


def close(engine: object) -> None:
    """Closes an engine that can be closed and gives its memory back to the device."""
    release = getattr(engine, "close", None)
    if callable(release):
        release()
    empty_cache()


def empty_cache() -> None:
    """Gives back what nothing refers to any more; torch is not imported for it."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_memory(device: str) -> int | None:
    """Bytes of memory of a torch device; None where there is no limit of its own to keep to (the CPU)."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.mem_get_info(torch.device(device))[1])


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device (or, on a CPU, the machine) has no memory left."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


class Batches:
    """Runs work in batches that shrink when memory does not suffice, and stay small from then on.

    Args:
        size: items of a batch at first.
        setting: field path of the batch size, named when not even one item fits.
        remedy: what else would help.
    """

    def __init__(self, size: int, setting: str, remedy: str = "") -> None:
        self.size, self._setting, self._remedy = size, setting, remedy

    def run(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """The results of `work` on all items, in order; raises `EngineError` when one item alone does not fit.

        An item's result must not depend on the batch it is in.
        """
        done: list[R] = []
        while len(done) < len(items):
            try:
                done += work(items[len(done) : len(done) + self.size])
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                problem = str(error).splitlines()[0]
            # Outside the handler: the traceback holds tensors.
            empty_cache()
            if self.size == 1:
                raise EngineError(
                    f"one item alone does not fit into memory: {problem}", where=self._setting, fix=self._remedy
                )
            self.size = max(1, self.size // 2)
            log.warning("%s: out of memory, going on with batches of %d", self._setting, self.size)
        return done
