"""The report: one JSON, written anew after every figure, and a table for a person. Needs nothing but Python."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KIND = "viper-device-report"
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class Results:
    """What has been measured so far, in a file that is whole at every moment."""

    def __init__(self, path: Path, *, tiny: bool) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "kind": KIND,
            "schemaVersion": 1,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "tiny": tiny,
            "finished": False,
            "seconds": 0.0,
            # Until a part has said what it runs on.
            "device": {"backend": "cpu", "name": "unknown", "memory": 0},
            "versions": {},
            "parts": [],
            "figures": [],
        }
        self._began = time.monotonic()
        self.save()

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What became of each part."""
        found: list[dict[str, Any]] = self.data["parts"]
        return found

    def part(self, name: str, state: str, seconds: float, problem: str = "") -> None:
        """Notes what became of a part."""
        known = next((p for p in self.parts if p["name"] == name), None)
        if known is None:
            known = {"name": name, "leftOut": []}
            self.parts.append(known)
        known |= {"state": state, "seconds": round(seconds, 2), "problem": problem}
        self.save()

    def take(self, part: str, message: Mapping[str, Any]) -> None:
        """Takes what a part says: a `figure`, the `device` and `versions`, or what it has `leftOut`."""
        if "figure" in message:
            self.data["figures"].append({"part": part, **message["figure"]})
        if "device" in message:
            self.data["device"], self.data["versions"] = message["device"], message["versions"]
        if "leftOut" in message:
            next(p for p in self.parts if p["name"] == part)["leftOut"].append(message["leftOut"])
        self.save()

    def finish(self, seconds: float) -> None:
        """Says that no part is missing."""
        self.data |= {"finished": True, "seconds": round(seconds, 2)}
        self.save()

    def save(self) -> None:
        """Replaces the file at once: a reader sees the old or the new one."""
        if not self.data["finished"]:
            self.data["seconds"] = round(time.monotonic() - self._began, 2)
        writing = self.path.with_name(f".{self.path.name}.writing")
        with writing.open("w", encoding="utf-8") as file:
            json.dump(self.data, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        writing.replace(self.path)


def table(data: Mapping[str, Any]) -> Iterator[str]:
    """The report for a person."""
    device = data["device"]
    where = f"{device['name']}, {size(device['memory'])}" if device["memory"] else device["name"]
    yield f"{where}; {data['started']}; {data['seconds']:.0f} s" + ("; TINY SHAPES" if data["tiny"] else "")
    yield ", ".join(f"{name} {version}" for name, version in sorted(data["versions"].items()))
    yield ""
    rows = [("figure", "value", "from – to", "n", "sure")]
    rows += [
        (f["name"], shown(f, "value"), f"{shown(f, 'low')} – {shown(f, 'high')}", str(f["repetitions"]), f["sure"])
        for f in data["figures"]
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        yield "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
    yield ""
    for part in data["parts"]:
        yield f"{part['name']}: {part['state']} after {part['seconds']:.1f} s"
        for line in [*part["problem"].splitlines()[:3], *part["leftOut"]]:
            yield f"    {line}"


def shown(figure: Mapping[str, Any], field: str) -> str:
    """A value with its unit."""
    value = figure[field]
    return size(value) if figure["unit"] == "B" else f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def size(amount: float) -> str:
    """Bytes for a person."""
    unit, name = next(((u, n) for u, n in _BYTES if amount >= u), (1, "B"))
    return f"{amount / unit:.1f} {name}"
