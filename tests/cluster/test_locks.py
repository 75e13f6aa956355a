"""What the images install is what the project is tested with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(lock: Path) -> dict[str, set[str]]:
    """Versions by name; a name may have several, for several Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("image", ["operator", "cpu"])
def test_an_image_installs_the_versions_of_the_lock_file(image: str) -> None:
    known = pins(ROOT / "requirements.lock")
    installed = pins(ROOT / "images" / image / "requirements.lock")
    assert installed
    assert {name: versions for name, versions in installed.items() if known.get(name) != versions} == {}


def test_the_operator_image_has_no_deep_learning_library_and_no_mlflow() -> None:
    installed = pins(ROOT / "images" / "operator" / "requirements.lock")
    assert not installed.keys() & {"torch", "transformers", "mlflow", "numpy", "pyarrow", "pillow"}
