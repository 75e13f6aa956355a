"""The one door out of the command line: whatever happens inside is an exit status and a line for a person."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.bad_resources import TEXT, spec
from viper.cli import door
from viper.errors import InputError, SpecError, StoreError

VIPER = [sys.executable, "-m", "viper"]


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def chained() -> int:
    """An error while another one is handled: neither is shown as a traceback."""
    try:
        raise KeyError("inner")
    except KeyError:
        raise InputError("cannot be used", where="row 3", fix="correct it") from None


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SpecError("is wrong", where="it.yaml", fix="write it anew"), 2, "error: it.yaml: is wrong\n  → write it anew"),
        (StoreError("is full"), 4, "error: is full"),
        (FileNotFoundError(errno.ENOENT, "x", "a.txt"), 1, "error: a.txt: No such file or directory"),
        (PermissionError(errno.EACCES, "x", b"a\xff"), 1, "Permission denied"),
        (OSError(errno.ENOSPC, "x"), 1, "error: No space left on device"),
        (OSError(errno.EXDEV, "x", "a", None, "b"), 1, "error: a and b: Invalid cross-device link"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "the library torch is not installed"),
        (MemoryError(), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (KeyError("x"), 70, "viper has a defect: KeyError: 'x'"),
        (ValueError("many\nlines"), 70, "viper has a defect: ValueError: many lines"),
        (RecursionError("deep"), 70, "viper has a defect: RecursionError: deep"),
        (ModuleNotFoundError("No module named 'viper.x'", name="viper.x"), 70, "viper has a defect"),
        (OSError("without a number"), 70, "viper has a defect: OSError: without a number"),
        (UnicodeEncodeError("ascii", "→", 0, 1, "x"), 70, "viper has a defect"),
        (AssertionError(), 70, "viper has a defect: AssertionError"),
        (RuntimeError("x" * 10_000), 70, "x…\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_whatever_happens_is_a_status_and_a_line(
    error: BaseException,
    status: int,
    said: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert door.through_the_door("viper", raising(error)) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert len(list(tmp_path.iterdir())) == (1 if status == door.DEFECT else 0)


def test_a_defect_names_the_file_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert door.through_the_door("kubectl viper", raising(KeyError("x\udc80"))) == 70
    error = capsys.readouterr().err
    (kept,) = tmp_path.iterdir()
    assert f"please report it with {kept}" in error
    content = kept.read_text("utf-8")
    assert content.startswith("kubectl viper ")
    assert "Traceback (most recent call last)" in content
    assert "in work\n    raise error" in content


def test_a_defect_without_a_place_for_its_traceback_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/none/at/all")
    assert door.through_the_door("viper", raising(KeyError("x"))) == 70
    assert "set TMPDIR to a folder that can be written" in capsys.readouterr().err


def test_what_was_being_handled_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.through_the_door("viper", chained) == 3
    assert capsys.readouterr().err == "error: row 3: cannot be used\n  → correct it\n"


class Full(io.StringIO):
    """An output that a full disk takes nothing of."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "x")


class Gone(io.StringIO):
    """An output that nobody reads."""

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "x")


@pytest.mark.parametrize(("output", "status"), [(Full, 1), (Gone, 141)])
@pytest.mark.parametrize("leaves", [False, True])
def test_what_could_not_be_written_is_no_success(
    output: type[io.StringIO], status: int, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        print("much")
        if leaves:  # as argparse does after --help
            raise SystemExit(0)
        return 0

    monkeypatch.setattr(sys, "stdout", output())
    assert door.through_the_door("viper", work) == status


def test_argparse_keeps_its_status() -> None:
    with pytest.raises(SystemExit) as stop:
        door.through_the_door("viper", raising(SystemExit(2)))
    assert stop.value.code == 2


def shell(command: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in a folder with `it.yaml`; `$VIPER` is the command."""
    (tmp_path / "it.yaml").write_text(TEXT)
    env = {
        **os.environ,
        "VIPER": f"{sys.executable} -m viper",
        "PYTHONIOENCODING": "",
        "PYTHONUNBUFFERED": "",
        **environment,
    }
    return subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, check=False)


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "status", "said", "environment"),
    [
        ("$VIPER explain > /dev/full", 1, "error: No space left on device", {}),
        ("$VIPER --help > /dev/full", 1, "error: No space left on device", {}),
        ("$VIPER render it.yaml >&-", 1, "the standard output is closed", {}),
        ("$VIPER render it.yaml 2>&-", 0, "", {}),
        ("$VIPER render none.yaml 2>/dev/full", 2, "", {}),
        ("$VIPER explain | cat > /dev/null; exit ${PIPESTATUS[0]}", 0, "", {"PYTHONIOENCODING": "ascii"}),
        ("$VIPER explain nothing", 2, "error: ", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("$VIPER render it.yaml --dir runs/$'\\xff'", 0, "", {}),
        ("$VIPER render $'no\\xff.yaml'", 2, "there is no such file", {}),
    ],
)
def test_outputs_of_a_real_process(
    command: str, status: int, said: str, environment: dict[str, Any], tmp_path: Path
) -> None:
    done = shell(command, tmp_path, **environment)
    error = done.stderr.decode("utf-8", "replace")
    assert done.returncode == status, error
    assert said in error
    assert not re.search(r"Traceback|Exception ignored", error)


@pytest.mark.process
def test_nobody_reads_any_further(tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_bytes(spec(promotion={"policy": "Manual"}))  # of which nothing is warned
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*VIPER, "render", "it.yaml"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
