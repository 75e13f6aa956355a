"""`viper render` and whatever is given to it: a clear refusal or the right result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from support.bad_resources import BAD, GOOD, TEXT
from support.refusals import refused
from viper.cli import main


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_resource_is_refused_with_its_place(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD[case]
    file = tmp_path / "it.yaml"
    file.write_bytes(content)
    assert str(file) in refused(main, ["render", str(file)], words, capsys)


@pytest.mark.parametrize("case", GOOD)
def test_what_looks_odd_and_is_right_is_rendered(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, value = GOOD[case]
    (tmp_path / "it.yaml").write_bytes(content)
    assert main(["render", str(tmp_path / "it.yaml")]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["spec"]["recipe"]["reward"]["tau"] == value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is a folder"),
        ("none.yaml", "there is no such file"),
        ("none/none.yaml", "there is no such file"),
        ("file/it.yaml", "cannot be read: Not a directory"),
        ("folder", "is a folder"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("n" * 300, "cannot be read: File name too long"),
        ("nul\0", "cannot be read: embedded null byte"),
        ("closed", "cannot be read: Permission denied"),
    ],
)
def test_what_is_no_file_is_refused(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text(TEXT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    if name == "closed":
        shut = tmp_path / "closed"
        shut.write_text(TEXT)
        shut.chmod(0)
        if os.access(shut, os.R_OK):  # root may read everything: the system call's answer is given instead
            monkeypatch.setattr(Path, "open", _denied)
    refused(main, ["render", str(tmp_path / name)], words, capsys)


def _denied(path: Path, *_args: object, **_options: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_two_resources_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "it.yaml").write_text(f"{TEXT}---\n{TEXT}")
    refused(main, ["render", str(tmp_path / "it.yaml")], "holds 2 documents, and one is wanted", capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: FILE"),
        (["it.yaml", "--dir"], "expected one argument"),
        (["it.yaml", "--store"], "expected one argument"),
        (["it.yaml", "--shards", "3"], "unrecognized arguments"),
        (["it.yaml", "it.yaml"], "unrecognized arguments"),
        (["it.yaml", "--store", "http://x"], "not a store URI"),
        (["it.yaml", "--store", ""], "not a store URI"),
        (["it.yaml", "--store", "s3://"], "s3://"),
        (["it.yaml", "--store", "s3://[x"], "s3://[x"),
        (["it.yaml", "--store", "file://host/x"], "a file URI needs an absolute path"),
        (["it.yaml", "--store", "~nobody-of-that-name/x"], "its home directory is not known"),
        (["it.yaml", "--dir", "it.yaml"], "is a file"),
        (["it.yaml", "--dir", "it.yaml/x"], "is a file"),
        (["it.yaml", "--dir", "nul\0"], "null byte"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    refused(main, ["render", *argv], words, capsys)
