"""A fake Ray: nodes are files in $FAKE_RAY, named after the process that stands for each. Nothing is distributed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def folder() -> Path:
    return Path(os.environ["FAKE_RAY"])


def init(address: str, **_: Any) -> None:
    assert (folder() / "head").read_text() == address


def nodes() -> list[dict[str, Any]]:
    return [{"Alive": Path("/proc", file.read_text()).exists()} for file in folder().glob("node-*")]


def shutdown() -> None:
    pass
