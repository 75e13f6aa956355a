"""Versions with their records, built once, or for a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from lineage_builders import Ancestry, ancestry


@pytest.fixture(scope="session")
def ancestors(tmp_path_factory: pytest.TempPathFactory) -> Ancestry:
    """For tests that change nothing."""
    return ancestry(tmp_path_factory.mktemp("lineage"))


@pytest.fixture
def own_ancestors(tmp_path: Path) -> Ancestry:
    """For tests that take something away."""
    return ancestry(tmp_path)
