"""The tiny model, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_qwen
from hypothesis import settings

# A busy machine is no finding: properties are judged by what they say, not by how long they take.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random Qwen2.5-VL of a few thousand weights."""
    return tiny_qwen.build(tmp_path_factory.mktemp("models") / "tiny")
