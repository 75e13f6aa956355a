"""`viper status` and `viper report` on stores that are torn, garbled, foreign, closed or gone.

One bad object costs its part: an iteration that cannot be read is refused at the end, after the others; a stage, a
curve, a picture is named where it would have been. Never a traceback, never status 0 where nothing was shown.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_builders import Plan, build_iteration

from support.refusals import DEFECT, status_of
from viper.cli import main
from viper.local import RunDirectory
from viper.spec import ViperIteration
from viper.store import DirectoryStore

#: What a file may have become, whatever it was.
GARBLED: dict[str, bytes] = {
    "empty": b"",
    "zeros": b"\0" * 512,
    "not UTF-8": b"\xff\xfe\x00{",
    "half": b'{"stage": "train-capt',
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "a text": b'"x"',
    "an empty mapping": b"{}",
    "a foreign mapping": b'{"kind": "Pod", "items": [1]}',
    "deep": b"[" * 100_000,
    "thousands of digits": b'{"stage": ' + b"9" * 5000 + b"}",
    "HTML": b"<html>proxy error</html>",
}
PREFIX = "store/iterations/demo-1"
STAGES = f"{PREFIX}/stages"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViperIteration]:
    """A run directory with one small finished iteration."""
    root = tmp_path_factory.mktemp("whole")
    plan = Plan(images=6, steps=4, benchmarks=True)
    frozen = build_iteration(DirectoryStore(root / "store"), root / "work", plan)
    return root, frozen.iteration


@pytest.fixture
def run(finished: tuple[Path, ViperIteration], tmp_path: Path) -> Path:
    """A copy of it, to break."""
    source, resource = finished
    shutil.copytree(source / "store", tmp_path / "run" / "store")
    RunDirectory(tmp_path / "run").open(resource, None, None)
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Status and everything that was printed, without line breaks; never a defect."""
    status = status_of(main, argv)
    out, err = capsys.readouterr()
    assert status != DEFECT, err
    assert "Traceback" not in err + out
    assert (status == 0) is ("error: " not in err)
    return status, " ".join(f"{out} {err}".split())


def page(run: Path) -> str:
    return " ".join((run / "report" / "index.html").read_text("utf-8").split())


def manifest(run: Path, stage: str) -> Path:
    return run / STAGES / stage / "manifest.json"


def test_the_whole_one_has_no_problem(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "status", str(run))[0] == 0
    status, text = said(capsys, "report", str(run))
    assert (status, "Problem" in text) == (0, False)
    assert 'dd class="bad-text"' not in page(run)


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("garbled", GARBLED)
def test_a_record_of_the_run_that_is_none(
    command: str, garbled: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").write_bytes(GARBLED[garbled])
    status, text = said(capsys, command, str(run))
    assert status == 3
    assert "run.json: is not the record of a run" in text
    assert not (run / "report").exists()


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("garbled", GARBLED)
def test_a_frozen_iteration_that_is_none(
    command: str, garbled: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / PREFIX / "iteration.json").write_bytes(GARBLED[garbled])
    status, text = said(capsys, command, str(run))
    assert status == 7
    assert "demo-1 could not be read" in text
    assert "iterations/demo-1/iteration.json" in text


@pytest.mark.parametrize("stage", ["ingest-images", "train-captions", "promote"])
@pytest.mark.parametrize("garbled", GARBLED)
def test_a_manifest_that_is_none_is_named_with_its_stage(
    stage: str, garbled: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest(run, stage).write_bytes(GARBLED[garbled])
    status, text = said(capsys, "status", str(run))
    assert status == 0
    assert f"stages/{stage}/manifest.json" in text
    assert "✘ " in text


@pytest.mark.parametrize("garbled", ["empty", "a list", "deep", "half"])
def test_the_report_names_a_manifest_that_is_none(garbled: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(run, "train-captions").write_bytes(GARBLED[garbled])
    status, text = said(capsys, "report", str(run))
    assert status == 0
    assert "FAILED at train-captions" in text
    assert "train-captions/manifest.json" in page(run)


@pytest.mark.parametrize("garbled", GARBLED)
def test_progress_that_is_none_counts_as_none(garbled: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(run, "promote").unlink()
    progress = run / STAGES / "promote" / "progress" / "0-of-1.json"
    progress.parent.mkdir()
    progress.write_bytes(GARBLED[garbled])
    status, text = said(capsys, "status", str(run))
    assert status == 0
    assert "promote" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"done": 10**400},
        {"done": -1},
        {"done": "many"},
        {"rate": "fast"},
        {"rate": 1e308, "etaSeconds": 1e308},
        {"phase": "x" * 100_000},
        {"phase": "a\ud83db\x1b[2J"},
        {"updated": -1e300},
        {"detail": {"reward": "x"}},
        {"detail": [1]},
    ],
    ids=str,
)
def test_figures_of_progress_that_are_none(
    fields: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest(run, "promote").unlink()
    progress = run / STAGES / "promote" / "progress" / "0-of-1.json"
    progress.parent.mkdir()
    progress.write_text(json.dumps({"phase": "p", "done": 1, "total": 2, "rate": 1.0, "updated": 0.0, **fields}))
    for command in (("status", str(run)), ("status", str(run), "--json"), ("report", str(run))):
        assert said(capsys, *command)[0] == 0


def _edit(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text("utf-8"))
    edit(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("stage", "edit", "words"),
    [
        ("ingest-images", lambda m: m.update(stage="promote"), "belongs to promote"),
        ("ingest-images", lambda m: m.update(iteration="other"), "belongs to ingest-images of other"),
        ("ingest-images", lambda m: m.update(identity="x"), "another frozen iteration"),
        ("ingest-images", lambda m: m.update(parts=[]), "not those of its parts"),
        ("ingest-images", lambda m: m["parts"][0].update(index=5), "lacks parts"),
        ("ingest-images", lambda m: m.update(accepted=10**30), "ingest-images"),
        ("ingest-images", lambda m: m.update(accepted=-1), "manifest.json"),
        ("ingest-images", lambda m: m.update(accepted="all"), "manifest.json"),
        ("ingest-images", lambda m: m.update(rejected={"x": -1}), "ingest-images"),
        ("ingest-images", lambda m: m.update(rejected={"x": "y"}), "manifest.json"),
        ("ingest-images", lambda m: m.update(parts={"0": 1}), "manifest.json"),
        ("ingest-images", lambda m: m.update(outputs=[]), "manifest.json"),
        ("ingest-images", lambda m: m.update(seconds=float("nan")), "manifest.json"),
        ("ingest-images", lambda m: m.update(seconds=1e300), "ingest-images"),
        ("ingest-images", lambda m: m.pop("stage"), "manifest.json"),
        ("train-captions", lambda m: m["outputs"].update(model="m"), "outputs.model"),
        ("train-captions", lambda m: m["outputs"].update(model={"uri": 1, "digest": []}), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(steps=0), "no step was trained"),
        ("train-captions", lambda m: m["outputs"].update(steps="many"), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(steps=float("nan")), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(best_step=float("inf")), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(best_step=[1]), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(samples="x"), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(curves=3), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(curves="../../../../run.json"), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(curves=""), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(curves="nul\0"), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(rollouts=["x"]), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(rollouts="../"), "train-captions"),
        ("train-captions", lambda m: m["outputs"].update(rollouts="nowhere/"), "train-captions"),
        ("train-captions", lambda m: m["inputs"].update({"validate-captions": "sha256:0"}), "another version of"),
        ("evaluate", lambda m: m["outputs"].pop("scores"), "has no scores"),
        ("evaluate", lambda m: m["outputs"].update(scores=[]), "outputs.scores"),
        ("evaluate", lambda m: m["outputs"].update(scores={"theta2": 3}), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(scores={"theta2": {"overall": {}}}), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(scores={"theta2": {"overall": {"accuracy": "x"}}}), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(comparisons=3), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(benchmarks=3), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(benchmarks={}), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(benchmarks={"scores": {}, "tasks": {}}), "evaluate"),
        ("evaluate", lambda m: m["outputs"]["benchmarks"].update(tasks={"chess": {"n": 1}}), "evaluate"),
        ("evaluate", lambda m: m["outputs"]["benchmarks"].update(comparisons=[1]), "evaluate"),
        ("evaluate", lambda m: m["outputs"].pop("final"), "evaluate"),
        ("evaluate", lambda m: m["outputs"].update(final={}), "evaluate"),
        ("promote", lambda m: m["outputs"].update(decision="maybe"), "has no decision"),
        ("promote", lambda m: m["outputs"].update(decision=["promoted"]), "promote"),
        ("promote", lambda m: m["outputs"].update(version="two"), "promote"),
        ("promote", lambda m: m["outputs"].update(version=1e300), "promote"),
        ("promote", lambda m: m["outputs"].update(reason={"a": 1}), "promote"),
        ("promote", lambda m: m["outputs"].update(reason="<script>alert(1)</script>" * 1000), "promote"),
        ("promote", lambda m: m["outputs"].update(alias=[1], previous_version={}), "promote"),
    ],
)
def test_figures_of_manifests_that_are_none(
    stage: str,
    edit: Callable[[dict[str, Any]], Any],
    words: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _edit(manifest(run, stage), edit)
    status, text = said(capsys, "status", str(run))
    assert status == 0
    assert words in text
    status, _ = said(capsys, "report", str(run))
    assert status == 0
    assert "<script>" not in page(run)


@pytest.mark.parametrize("garbled", GARBLED)
def test_curves_that_are_none_are_a_problem_of_the_iteration(
    garbled: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (curves,) = (run / STAGES / "train-captions").rglob("curves*.jsonl")
    curves.write_bytes(GARBLED[garbled])
    assert said(capsys, "report", str(run))[0] == 0
    assert "train-operations" in page(run)


@pytest.mark.parametrize(
    "line",
    [
        {"step": "one", "reward/mean": 1},
        {"step": 10**400, "reward/mean": 1},
        {"step": 1, "reward/mean": float("nan")},
        {"step": 1, "reward/mean": float("inf"), "held_out/reward": 1e308},
        {"step": 1, "reward/mean": 1e99, "shadow/recall": -1e99},
        {"step": 1, "reward/mean": True},
        {"step": 1},
        {"reward/mean": 0.5},
    ],
    ids=str,
)
def test_points_of_curves_that_are_none(line: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (curves,) = (run / STAGES / "train-captions").rglob("curves*.jsonl")
    curves.write_text(json.dumps(line) + "\n" + curves.read_text())
    assert said(capsys, "report", str(run))[0] == 0


@pytest.mark.parametrize(
    ("pattern", "stage"),
    [
        ("rollouts/*", "train-captions"),
        ("parts/*.parquet", "synthesize-captions"),
        ("parts/*.parquet", "ingest-images"),
    ],
)
@pytest.mark.parametrize("garbled", ["empty", "not UTF-8", "half", "a list", "an empty mapping", "deep"])
def test_rows_that_are_none(
    pattern: str, stage: str, garbled: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [f for f in (run / STAGES / stage).rglob(pattern.rpartition("/")[2]) if f.is_file()]
    assert found
    for file in found:
        if pattern.startswith("parts") is (file.suffix == ".parquet"):
            file.write_bytes(GARBLED[garbled])
    assert said(capsys, "report", str(run))[0] == 0


@pytest.mark.parametrize(
    "row",
    [
        {"step": 1, "sample_id": None, "output": None, "reward": None},
        {"step": "x", "sample_id": [1], "output": {}, "reward": "high"},
        {"step": 1, "sample_id": "s", "output": "o", "reward": float("nan"), "ground_truth": 3},
        {"step": 1, "sample_id": "s", "output": "a\ud83db", "reward": 10**400},
        {"step": 1, "sample_id": "s", "output": "o", "reward": 1, "recall": None},
    ],
    ids=str,
)
def test_rollouts_that_are_none(row: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (run / STAGES / "train-captions").rglob("*.jsonl"):
        if "rollouts" in str(file):
            file.write_text(json.dumps(row) + "\n")
    assert said(capsys, "report", str(run))[0] == 0


def _gone(run: Path) -> None:
    shutil.rmtree(run / "store")


def _file(run: Path) -> None:
    _gone(run)
    (run / "store").write_text("x")


def _empty(run: Path) -> None:
    _gone(run)
    (run / "store").mkdir()


def _as_folder(path: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / path).unlink()
        (run / path).mkdir()

    return make


def _dangling(path: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / path).unlink()
        (run / path).symlink_to("nowhere")

    return make


@pytest.mark.parametrize(
    ("break_it", "status_words", "report_words"),
    [
        (_gone, "the store is gone", "the store is gone"),
        (_file, "the store is a file", "the store is a file"),
        (_empty, None, "no iteration of this run has begun"),
        (_as_folder("run.json"), "is not the record of a run", "is not the record of a run"),
        (_dangling("run.json"), "nothing was started in this directory", "nothing was started"),
        (_as_folder(f"{PREFIX}/iteration.json"), None, "no iteration of this run has begun"),
    ],
)
def test_places_that_are_not_what_they_were(
    break_it: Callable[[Path], None],
    status_words: str | None,
    report_words: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it(run)
    status, text = said(capsys, "status", str(run))
    if status_words is None:
        assert "notStarted" in text
    else:
        assert status != 0
        assert status_words in text
    status, text = said(capsys, "report", str(run))
    assert status != 0
    assert report_words in text
    assert not (run / "report").exists()


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("none", "nothing was started in this directory"),
        (".", "nothing was started in this directory"),
        ("file", "is a file"),
        ("file/below", "is a file"),
        ("nul\0", "null byte"),
        ("n" * 300, "File name too long"),
        ("", "nothing was started in this directory"),
    ],
)
def test_directories_in_which_nothing_was_run(
    command: str,
    place: str,
    words: str,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    status, text = said(capsys, command, place)
    assert status != 0
    assert words in text


@pytest.mark.parametrize(
    ("out", "words"),
    [("file", "is a file"), ("file/x", "is a file"), ("nul\0", "null byte"), ("taken", "the report cannot be written")],
)
def test_a_report_that_cannot_be_written(
    out: str,
    words: str,
    *,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "taken" / "index.html").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    status, text = said(capsys, "report", str(run), "--out", out)
    assert status != 0
    assert words in text


def test_status_without_a_directory_looks_in_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "status") == (
        3,
        "error: runs/: there is no run here → name a run directory: `viper status DIR`",
    )
    (tmp_path / "runs").write_text("x")
    assert said(capsys, "status")[0] == 3
