"""What the operator imports is what its image has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / "images" / "operator" / "requirements.lock"
#: Imports every module of the operator where nothing is installed but what is named: the rest cannot be imported.
PROGRAM = """
import importlib, pkgutil, sys
from importlib.metadata import packages_distributions
there = {"viper", *sys.argv[1:]}
lacking = {m for m, names in packages_distributions().items()
           if m not in ("viper", "viper_operator") and not there & {n.lower().replace("_", "-") for n in names}}

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"the image lacks {name}", name=name)

sys.meta_path.insert(0, Lacking())
import viper_operator
for module in pkgutil.walk_packages(viper_operator.__path__, "viper_operator."):
    importlib.import_module(module.name)
"""


@pytest.mark.process
def test_the_operator_imports_nothing_that_its_image_lacks() -> None:
    there = [found[1].lower() for found in re.finditer(r"^([\w.-]+)==", LOCK.read_text("utf-8"), re.M)]
    assert "kopf" in there
    done = subprocess.run([sys.executable, "-c", PROGRAM, *there], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
