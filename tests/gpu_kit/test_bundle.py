"""What the kit brings along: versions by the lock, only what is missing, only what runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import bundle

LOCK = bundle.LOCK.read_text("utf-8")


def wheel(folder: Path, name: str, tag: str = "py3-none-any", version: str = "1.0") -> Path:
    """A wheel with one module of the library's name."""
    module = name.replace("-", "_")
    file = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(file, "w") as written:
        written.writestr(f"{module}/__init__.py", f"VERSION = {version!r}\n")
        written.writestr(f"{module}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    return file


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_everything_that_is_brought_has_a_version_in_the_lock(python: str) -> None:
    locked = bundle.pins(LOCK, python)
    assert bundle.BROUGHT.keys() <= locked.keys()
    for name, least in bundle.BROUGHT.items():
        assert bundle._numbers(locked[name]) >= bundle._numbers(least)


def test_the_lock_is_read_for_the_python_that_is_asked_for() -> None:
    text = "a==1 ; python_full_version < '3.12' \\\n    --hash=x\na==2 ; python_full_version >= '3.12' \\\nb_c==3 \\\n"
    assert bundle.pins(text, "3.11") == {"a": "1", "b-c": "3"}
    assert bundle.pins(text, "3.12") == {"a": "2", "b-c": "3"}


@pytest.mark.parametrize(
    ("tag", "runs"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp310-abi3-manylinux_2_28_x86_64", True),
        ("cp{here}-cp{here}-manylinux_2_28_x86_64", True),
        ("py{here}-none-any", True),
        ("cp39-cp39-manylinux_2_28_x86_64", False),
        ("py39-none-any", False),
    ],
)
def test_wheels_that_do_not_run_here_are_left(tmp_path: Path, tag: str, runs: bool) -> None:
    here = "{}{}".format(*sys.version_info)
    assert bundle.runs_here(wheel(tmp_path, "something", tag.format(here=here))) is runs


@pytest.mark.process
def test_what_is_installed_is_left_and_what_is_missing_is_put_first(tmp_path: Path) -> None:
    for name in ("numpy", "not-there-yet"):
        wheel(tmp_path, name)
    wheel(tmp_path, "of-another-python", "cp39-cp39-any")
    code = (
        "import sys; from pathlib import Path; from benchmarks.gpu import bundle\n"
        "print(*bundle.activate(Path(sys.argv[1])), sep='; ')\n"
        "import not_there_yet, numpy; print(not_there_yet.VERSION, numpy.__version__ != '1.0')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=bundle.ROOT
    )
    said, found = done.stdout.splitlines()
    assert said == f"not for this Python: of-another-python; from {tmp_path}: not-there-yet"
    assert found == "1.0 True"


@pytest.mark.parametrize(
    ("name", "least", "there"), [("numpy", "", True), ("numpy", "999", False), ("not-there-at-all", "", False)]
)
def test_what_is_too_old_counts_as_missing(name: str, least: str, there: bool) -> None:
    assert bundle.installed(name, least) is there
