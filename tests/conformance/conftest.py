"""The executors under test."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.executors import Executor, Local

EXECUTORS = {"local": Local}


@pytest.fixture(params=list(EXECUTORS))
def executor_kind(request: pytest.FixtureRequest) -> str:
    """Name of an executor."""
    return str(request.param)


@pytest.fixture
def executor(request: pytest.FixtureRequest, executor_kind: str, tmp_path: Path) -> Executor:
    """An executor of that kind; a test may pass options (`shards`, `deadline`) as parameter."""
    return EXECUTORS[executor_kind](tmp_path / "run", **getattr(request, "param", {}))
