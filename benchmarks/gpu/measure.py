"""What a part measures with: repetitions, spread, peak memory, and how sure the figure is."""

from __future__ import annotations

import contextlib
import gc
import math
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu.runner import Options

LIBRARIES = (
    *("torch", "transformers", "triton", "accelerate", "diffusers", "open-clip-torch", "timm", "trl", "datasets"),
    *("FlagEmbedding", "peft", "numpy", "pydantic", "tokenizers", "safetensors", "huggingface-hub"),
)
#: Spread of the repetitions, in shares of the median, up to which a figure is sure.
_HIGH, _MEDIUM = 0.05, 0.2
_LEVELS = ("low", "medium", "high")


class Kit:
    """The toolbox of one part.

    `device`: the torch device, `cuda` where there is one and none was asked for. `scratch`: a folder of its own.
    """

    def __init__(
        self, part: str, options: Options, deadline: float, scratch: Path, say: Callable[[Mapping[str, Any]], None]
    ) -> None:
        import torch

        self.part, self.options, self.scratch = part, options, scratch
        self._deadline, self._say = deadline, say
        self.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tiny, self.cuda = options.tiny, self.device.startswith("cuda")
        if self.cuda:
            torch.cuda.set_device(torch.device(self.device).index or 0)
            torch.backends.cuda.matmul.allow_tf32 = True
        elif options.tiny:
            torch.set_num_threads(1)
        self._base = 0 if self.cuda else _resident("VmRSS")
        say({"device": self._described(), "versions": _versions()})

    def _described(self) -> dict[str, Any]:
        import torch

        if self.cuda:
            found = torch.cuda.get_device_properties(torch.device(self.device))
            return {"backend": "cuda", "name": found.name, "memory": found.total_memory}
        return {"backend": "cpu", "name": platform.processor() or platform.machine() or "CPU", "memory": 0}

    # ---- time --------------------------------------------------------------------------------------------------------

    @property
    def left(self) -> float:
        """Seconds until the part is ended."""
        return self._deadline - time.monotonic()

    def chosen(self, real: Any, tiny: Any) -> Any:
        """What is measured with real and with tiny shapes."""
        return tiny if self.tiny else real

    def measure(
        self,
        name: str,
        what: str,
        work: Callable[[], object],
        *,
        rate: Mapping[str, Any] | None = None,
        memory: Mapping[str, Any] | None = None,
        calls: int = 1,
        repetitions: int = 3,
        warm: int = 1,
        most: str = "high",
        why: str = "",
    ) -> float | None:
        """Times `work`, and notes the most memory that it takes; None, and a note of it, when it cannot be done.

        Args:
            rate: settings of the figure of time (`viper.costs.table.Rate`); it counts seconds of one of `calls`.
            memory: settings of the figure of memory (`viper.costs.device.MemoryUse`).
            warm: runs before those that count.
            most: the surest that the figure can be, for the reason `why`.
        """
        if self.left < 0:
            self.leave_out(name, "no time was left")
            return None
        if self.tiny:  # a trial
            repetitions, warm = min(repetitions, 2), 0
        try:
            self.forget()
            began = time.perf_counter()
            for _ in range(warm):
                self._timed(work)
            each = (time.perf_counter() - began) / max(1, warm)
            took = [self._timed(work)]
            while len(took) < repetitions and self.left > 1.5 * max(each, took[-1]):
                took.append(self._timed(work))
        except Exception as error:
            self.leave_out(name, f"{type(error).__name__}: {error}")
            self.forget()
            return None
        if rate is not None:
            values = [t / calls for t in took]
            sure = _surest(most, values)
            of = {"sure": sure, "why": why if sure == most else "", "rate": dict(rate)}
            self._figure(name, what, "s", values, statistics.median(values), **of)
        if memory is not None:
            self.note_memory(name, what, memory)
        return statistics.median(took)

    def _timed(self, work: Callable[[], object]) -> float:
        self._synchronize()
        began = time.perf_counter()
        result = work()
        self._synchronize()
        del result
        return time.perf_counter() - began

    def _synchronize(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    # ---- memory ------------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Gives back what nothing holds, and begins to watch for the most memory anew."""
        import torch

        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):  # not every container lets a process do it
                Path("/proc/self/clear_refs").write_text("5", "ascii")

    def used(self) -> int:
        """Bytes that are taken now: of the device, or of this process beyond what it began with."""
        if self.cuda:
            import torch

            return int(torch.cuda.memory_allocated())
        return max(0, _resident("VmRSS") - self._base)

    def note_memory(self, name: str, what: str, memory: Mapping[str, Any]) -> None:
        """The most memory since `forget`: tensors, and with what the allocator keeps beside them."""
        if self.cuda:
            import torch

            values, why = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()], ""
        else:
            values, why = [max(1, _resident("VmHWM") - self._base)], "resident memory of a process, not of a device"
        of = {"sure": "low" if why else "high", "why": why, "repetitions": 1, "memory": dict(memory)}
        self._figure(f"{name}, memory", what, "B", values, values[0], **of)

    # ---- saying ------------------------------------------------------------------------------------------------------

    def leave_out(self, name: str, problem: str) -> None:
        """Says that a figure could not be had."""
        self._say({"leftOut": f"{name}: {' '.join(problem.split())}"[:600]})

    def _figure(self, name: str, what: str, unit: str, values: list[Any], value: Any, **of: Any) -> None:
        spread = {"value": value, "low": min(values), "high": max(values), "repetitions": len(values)}
        self._say({"figure": {"name": name, "what": what, "unit": unit, **spread, **of}})


def _surest(most: str, values: list[float]) -> str:
    spread = (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else math.inf
    found = "high" if len(values) >= 3 and spread <= _HIGH else "medium" if spread <= _MEDIUM else "low"
    return min(found, most, key=_LEVELS.index)


def _resident(field: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
