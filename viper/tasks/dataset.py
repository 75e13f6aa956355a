"""What both data sets share: the split by image, duplicates, the quota, and the figures of the data card."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar

from viper.stage.rows import RowClass

Split = Literal["train", "held_out"]


class Decided(RowClass, Protocol):
    """A row that is selected."""

    @property
    def image_id(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def accepted(self) -> bool: ...

    @property
    def reason(self) -> str: ...


D = TypeVar("D", bound=Decided)


def split_of(image_id: str, held_out_share: float) -> Split:
    """The side an image is on: by hash of its id alone, so the same for both tasks and in every iteration."""
    digest = hashlib.sha256(f"split:{image_id}".encode()).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") < held_out_share * 2**64 else "train"


class Selection:
    """Decides row by row, in order: duplicates and what exceeds the quota are rejected, the others get their split.

    `limits` caps the accepted rows of a group (an edit category); `quota` caps them all.
    """

    def __init__(self, quota: int, held_out_share: float, limits: Mapping[str, int] | None = None) -> None:
        self._quota, self._share, self._limits = quota, held_out_share, dict(limits or {})
        self._keys: set[Hashable] = set()
        self._groups: Counter[str] = Counter()
        self._accepted = 0

    @property
    def missing(self) -> int:
        """Rows that still fit."""
        return max(0, self._quota - self._accepted)

    @property
    def full(self) -> bool:
        """Whether nothing will be accepted any more."""
        return not self.missing

    def decide(self, row: D, key: Hashable, group: str = "") -> D:
        """The row with `accepted`, `reason` and `split`. A row that has a reason already stays rejected.

        `key` is what a duplicate shares; `group` what the limits count.
        """
        reason = row.reason
        if not reason and key in self._keys:
            reason = "duplicate-sample"
        full = self.full or self._groups[group] >= self._limits.get(group, self._quota)
        if not reason and full:
            reason = "over-quota"
        split = "" if reason else split_of(row.image_id, self._share)
        decided = replace(row, accepted=not reason, reason=reason, split=split)
        self.recall(decided, key, group)
        return decided

    def recall(self, row: Decided, key: Hashable, group: str = "") -> None:
        """Takes note of a row that was decided already."""
        if row.accepted:
            self._keys.add(key)
            self._groups[group] += 1
            self._accepted += 1


class Figures:
    """Figures over accepted rows for the data card: the same in whatever order the rows come."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._tables: dict[str, Counter[str]] = {}
        self._images: set[str] = set()

    def measure(self, name: str, value: float) -> None:
        """One value of a distribution."""
        self._values.setdefault(name, []).append(value)

    def count(self, table: str, name: str) -> None:
        """One more of `name` in a table."""
        self._tables.setdefault(table, Counter())[name] += 1

    def image(self, image_id: str) -> None:
        """An image that has at least one sample."""
        self._images.add(image_id)

    def summary(self) -> dict[str, Any]:
        """`images`, `tables` and `distributions` (n, mean, quartiles, extremes, histogram)."""
        return {
            "images": len(self._images),
            "tables": {name: dict(sorted(table.items())) for name, table in sorted(self._tables.items())},
            "distributions": {name: distribution(values) for name, values in sorted(self._values.items())},
        }


def distribution(values: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """n, mean, min, quartiles (nearest rank), max and a histogram of `bins` equal bins, rounded to four digits."""
    ordered = sorted(values)
    n = len(ordered)
    if not n:
        return {"n": 0}
    low, high = ordered[0], ordered[-1]
    width = (high - low) / bins or 1.0
    histogram = Counter(min(bins - 1, int((v - low) / width)) for v in ordered)
    ranks = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}
    return {
        "n": n,
        "mean": round(math.fsum(ordered) / n, 4),
        **{name: round(ordered[max(0, math.ceil(share * n) - 1)], 4) for name, share in ranks.items()},
        "histogram": {
            "from": round(low, 4),
            "width": round(width, 4),
            "counts": [histogram[i] for i in range(bins if high > low else 1)],
        },
    }
