"""verl's metrics, one JSON object a line in the file of its `file` logger: {"step": …, "data": {name: number}}."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: verl's names of what `StepMetrics` has a name for.
_NAMES = {
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/entropy": "output/entropy",
    "actor/pg_clipfrac": "clip/share",
    "actor/pg_clipfrac_lower": "clip/dual",
}
#: Without these a step says nothing about the policy; verl writes a number that is not finite as null.
NEEDED = ("loss", "grad_norm")
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")


class Tail:
    """Reads the whole lines that were appended to a file since it was asked last."""

    def __init__(self, path: Path) -> None:
        self._path, self._position, self._rest = path, 0, b""

    def rows(self) -> Iterator[dict[str, Any]]:
        """New lines as objects; nothing while the file is not there."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def step_of(row: Mapping[str, Any]) -> int | None:
    """The training step that a line is about; None for a line with nothing but a validation."""
    number = row["data"].get("training/global_step")
    return None if number is None else int(number)


def step_values(data: Mapping[str, Any]) -> dict[str, float]:
    """verl's numbers under our names, the others as `verl/<name>`; what is not finite is NaN."""
    values: dict[str, float] = {}
    for name, value in data.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            continue
        number = float("nan") if value is None else float(value)
        values[_NAMES.get(name) or "verl/" + _NOT_IN_NAMES.sub("_", name)] = number
    return values


def diverged(values: Mapping[str, float]) -> str:
    """Which needed numbers are missing or not finite; empty when all is well."""
    found = {name: values.get(name, float("nan")) for name in NEEDED}
    return ", ".join(f"{name} {value}" for name, value in found.items() if not math.isfinite(value))


def recorded(values: Mapping[str, float]) -> dict[str, float]:
    """What goes into the curves: JSON has no NaN."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
