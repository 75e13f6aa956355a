"""A store with three finished iterations, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_builders import build_loop

from viper.store import DirectoryStore


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[DirectoryStore, list[str]]:
    """Three promoted iterations and their names."""
    root: Path = tmp_path_factory.mktemp("report")
    store = DirectoryStore(root / "store")
    return store, build_loop(store, root / "work")
