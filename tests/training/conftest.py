"""The tiny model, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_qwen


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random Qwen2.5-VL of a few thousand weights."""
    return tiny_qwen.build(tmp_path_factory.mktemp("models") / "tiny")
