"""One run of the whole kit with tiny shapes, for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import broken_parts
import pytest

from benchmarks.gpu import runner
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.runner import Options, Part

BROKEN = tuple(
    Part(name, f"{broken_parts.__name__}:{name}", limit, 1)
    for name, limit in (("raises", 60), ("killed", 60), ("hangs", 2))
)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """The kit is a command, and makes the environment of its process its own; the tests after it have theirs back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def report(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all parts, with some between them that do not end well."""
    out = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "GRACE_S", 1.0)
        # The limits are for a machine that does nothing else.
        first, *others = (replace(part, limit=20 * part.limit) for part in PARTS)
        parts = [
            first,
            *BROKEN,
            *others,
            Part("well", f"{broken_parts.__name__}:well", 60, 1),
            Part("late", "none:at_all", 9, 1e6),
        ]
        runner.run(
            parts, Options(out, tiny=True, device="cpu", budget=36_000, attention=f"{broken_parts.__name__}:attend")
        )
    return out / "report.json"
