"""What was seen from outside, with times, and values as functions of time.

A timeline is a list of plain entries, each with the second `at` (since the epoch) at which it was seen and its kind:

- `object`: an object of the API server as a watch brought it; `gone`: its deletion.
- `registry`: `aliases`, by `<model>@<alias>`, and the numbers of all `versions`, by model, as MLflow answered.
- `store`: what the object store said of a stage (`of`: `<iteration>/<stage>`): `progress`, and `manifest` or null.
- `picture`: what `kubectl viper status` printed, until the next one replaced it.
- `followed`: from here on, what commands print about a `loop` is here; `logs`: so are all lines of its logs.
- `line`: a line that `kubectl viper logs` printed; `stream`: `out` or `err`.
- `end`: the last look.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

Object = dict[str, Any]
T = TypeVar("T")
U = TypeVar("U")

#: Seconds for which something may be shown that is not so any more, and by which one watch may be ahead of another.
LATE, EARLY = 15.0, 2.0
#: Seconds between two looks at what the store says of a stage, at most.
LOOKS = 6.0


class Span(NamedTuple):
    """A value and when it was there: from `start` until before `end`, seconds since the epoch."""

    start: float
    end: float
    value: Any


class Track(Generic[T]):
    """A value as a function of time; `nothing` before the first step."""

    def __init__(self, nothing: T, steps: Iterable[tuple[float, T]] = ()) -> None:
        self._steps: list[tuple[float, T]] = [(float("-inf"), nothing)]
        for at, value in steps:
            self.put(at, value)

    def put(self, at: float, value: T) -> None:
        """From now on it is this; times never go back."""
        if value != self._steps[-1][1]:
            self._steps.append((at, value))

    @property
    def now(self) -> T:
        """The last value."""
        return self._steps[-1][1]

    def at(self, when: float) -> T:
        """The value at a moment."""
        return next(value for at, value in reversed(self._steps) if at <= when)

    def spans(self, end: float = float("inf")) -> Iterator[Span]:
        """Every value with its time, the last until `end`."""
        for (start, value), (after, _) in pairwise([*self._steps, (end, None)]):
            yield Span(start, after, value)

    def map(self, look: Callable[[T], U]) -> Track[U]:
        """What a function makes of it; what stays the same is one step."""
        (_, nothing), *steps = self._steps
        return Track(look(nothing), ((at, look(value)) for at, value in steps))

    def beside(self, other: Track[U]) -> Track[tuple[T, U]]:
        """Both at a time."""
        times = sorted({at for at, _ in (*self._steps[1:], *other._steps[1:])})
        made = Track((self._steps[0][1], other._steps[0][1]))
        for at in times:
            made.put(at, (self.at(at), other.at(at)))
        return made


def untrue(
    shown: Span, fact: Track[T], holds: Callable[[T], object], *, end: float, late: float = LATE, early: float = EARLY
) -> float | None:
    """The first moment at which something that was shown was not so, nor had been `late` seconds before, nor became so
    `early` seconds later; None when there is none. A `shown` of no length was said once. `end`: of what is known."""
    for span in fact.map(lambda value: bool(holds(value))).spans(end):
        first = max(shown.start, span.start + late)
        if not span.value and first < span.end - early and (first < shown.end or first == shown.start):
            return first
    return None


def untold(so: Span, shown: Track[T], tells: Callable[[T], object], *, end: float, late: float = LATE) -> float | None:
    """The first moment at which something had been so for `late` seconds without being shown; None: it was told."""
    if so.start + late >= so.end:
        return None
    return untrue(Span(so.start + late, so.end, so.value), shown, tells, end=end, late=late, early=0.0)


class Timeline:
    """Collects entries from several threads; with a file, each is on disk at once."""

    def __init__(self, file: Path | None = None) -> None:
        self.entries: list[Object] = []
        self._lock = threading.Lock()
        self._file = None if file is None else file.open("w", encoding="utf-8")

    def add(self, kind: str, **fields: Any) -> None:
        """Something that was seen just now."""
        with self._lock:  # times are those of the order
            entry = {"at": time.time(), "kind": kind, **fields}
            self.entries.append(entry)
            if self._file is not None and not self._file.closed:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()

    def close(self) -> None:
        """No more will be written."""
        self.add("end")
        if self._file is not None:
            self._file.close()


def read(file: Path) -> list[Object]:
    """A timeline that was written."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
