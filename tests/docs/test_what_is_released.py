"""A release: one version everywhere, and a wheel that has all that the programs need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import viper
from viper.stored import FIRST, release

ROOT = Path(__file__).parents[2]
FOLDERS = ("viper", "jobs/viper_jobs", "operator/viper_operator")


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml.safe_load((ROOT / "charts" / "viper" / "Chart.yaml").read_text("utf-8"))
    install = set(
        re.findall(r"(?:viper-\w+:|\.tag=)(\d+\.\d+\.\d+)", (ROOT / "docs" / "install.md").read_text("utf-8"))
    )
    assert {project["version"], chart["version"], chart["appVersion"], *install} == {viper.__version__}


def test_the_newest_changes_are_those_of_this_version_and_versions_go_down() -> None:
    found = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert found[0] == viper.__version__
    assert sorted(found, key=release, reverse=True) == found


def test_forms_need_no_release_that_is_not_there_yet() -> None:
    assert release(FIRST) <= release(viper.__version__)


@pytest.mark.slow
def test_the_wheel_has_every_file_and_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"viper-{viper.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        names = set(archive.namelist())
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {re.sub(r"^(?:jobs|operator)/", "", name) for name in listed.splitlines()}
    assert wanted - names == set()
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]
    about = next(n for n in names if n.endswith("entry_points.txt"))
    programs = (tmp_path / "installed" / about).read_text("utf-8")
    for program in ("viper", "viper-job", "viper-freeze", "viper-registry", "viper-operator", "kubectl-viper"):
        assert f"{program} = " in programs
    ran = subprocess.run(
        [sys.executable, "-m", "viper", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"viper {viper.__version__}\n"
