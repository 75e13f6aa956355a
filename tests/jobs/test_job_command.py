"""`viper-job`: arguments, exit status, and the last error for whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from fakes import world
from servers.kube import eventually
from servers.running import UNSHARE
from viper.costs.measured import load_measurements
from viper.errors import InputError, SpecError, StageError, StoreError
from viper.methods.stages import DECLARED, INGEST, STAGES
from viper.stage import Manifest, PartRecord, StageContext, load_manifest
from viper.stage.termination import STOPPED, TERMINATION_BYTES
from viper.store import open_store
from viper_jobs.main import StageProgram, main, parse_shard, recorder, split_iteration_uri, stage_program
from viper_jobs.ray_node import descendants


class Program:
    """A stage program that raises, or keeps what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.ctx: StageContext | None = None

    def __call__(self, ctx: StageContext) -> Manifest | None:
        self.ctx = ctx
        if self.error is not None:
            raise self.error
        return None


def job(path: Path, program: StageProgram | None, stage: str = INGEST, *extra: str, **spec: object) -> int:
    """`viper-job` with this program in place of the stage's, if one is given."""
    store = open_store(path / "store")
    world.write(store, world.frozen("it", **spec))
    uri = f"{store.uri}/iterations/it"
    arguments = [stage, "--iteration", uri, "--termination-log", str(path / "end.json"), *extra]
    return main(arguments, program=lambda name: program or stage_program(name), record=lambda _: None)


def test_a_program_that_is_told_to_stop_closes_what_is_open_and_says_so(tmp_path: Path) -> None:
    closed: list[int] = []

    class Stopped(Program):
        def __call__(self, ctx: StageContext) -> Manifest | None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb it
                closed.append(1)
            return None

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        job(tmp_path, Stopped())
    assert stop.value.code == STOPPED
    assert closed == [1]
    assert json.loads((tmp_path / "end.json").read_text())["reason"] == "Stopped"
    assert signal.getsignal(signal.SIGTERM) == before


#: What the first process of a container runs, in place of a stage that synthesises.
WORKS = """
import pathlib, sys, time
from viper_jobs.main import exit_status
def work():
    pathlib.Path(sys.argv[1]).touch()
    while True:
        time.sleep(60)
sys.exit(exit_status(work, None))
"""


@pytest.mark.process
@pytest.mark.parametrize("first", [False, True], ids=["any process", "process 1 of a container"])
def test_a_program_ends_at_once_when_it_is_told_to(tmp_path: Path, first: bool) -> None:
    """The kernel spares process 1 of a PID namespace the default action of a signal."""
    alone = [*UNSHARE, "--pid", "--fork", "--kill-child"] if first else []
    if first and subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("this machine allows no PID namespaces")
    with subprocess.Popen([*alone, sys.executable, "-c", WORKS, str(tmp_path / "works")]) as process:
        eventually((tmp_path / "works").exists, 60)
        target = descendants(process.pid)[0] if first else process.pid
        os.kill(target, signal.SIGTERM)
        assert process.wait(30) == STOPPED


@pytest.mark.parametrize(
    ("uri", "store", "name"),
    [
        ("file:///runs/a/store/iterations/demo-1", "file:///runs/a/store", "demo-1"),
        ("s3://bucket/iterations/it", "s3://bucket", "it"),
        ("s3://bucket/p/iterations/it?endpoint=http://minio:9000", "s3://bucket/p?endpoint=http://minio:9000", "it"),
        ("/runs/iterations/iterations/it/", "/runs/iterations", "it"),
    ],
)
def test_the_uri_of_an_iteration_names_its_store(uri: str, store: str, name: str) -> None:
    assert split_iteration_uri(uri) == (store, name)


@pytest.mark.parametrize("uri", ["", "s3://bucket/it", "file:///runs/iterations/"])
def test_another_uri_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="is not the URI of an iteration"):
        split_iteration_uri(uri)


def test_shards_are_counted_from_zero() -> None:
    assert parse_shard("2/3") == (2, 3)
    for text in ("3/3", "1", "-1/2", "a/b", "0/0"):
        with pytest.raises(SpecError, match="is not a shard"):
            parse_shard(text)


@pytest.mark.parametrize("down", [False, True], ids=["store up", "store down"])
def test_a_finished_stage_leaves_what_it_took_if_the_store_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: bool
) -> None:
    store, one = open_store(tmp_path), world.frozen()
    ctx = StageContext(one, store, "ingest-images", tmp_path)
    part = PartRecord(index=0, key="0", digest="d", rows=10, accepted=9, seconds=2.0)
    made = Manifest.of_parts(
        stage=ctx.stage, iteration="it", identity=one.identity, inputs={}, parts=[part], outputs={}
    )
    recorded: list[Manifest] = []
    monkeypatch.setattr("viper_jobs.main.record_stage", lambda _, manifest: recorded.append(manifest))
    if down:
        monkeypatch.setattr(store, "put", mock.Mock(side_effect=StoreError("is down")))
    record = recorder(ctx)
    record(made)
    record(made)
    assert recorded == [made, made]
    assert [m.items for m in load_measurements(store).all] == ([] if down else [10])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_program(stage: str) -> None:
    assert callable(stage_program(stage))


def test_the_program_of_a_stage_is_what_this_image_declares_and_not_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is no part of viper, as somebody's own stage has it."""
    (tmp_path / "somebodys.py").write_text("def work(ctx):\n    return ctx.finish((), outputs={'by': 'somebody'})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(DECLARED, INGEST, replace(DECLARED[INGEST], program="somebodys:work"))
    assert job(tmp_path, None) == 0
    manifest = load_manifest(open_store(tmp_path / "store"), "iterations/it", INGEST)
    assert manifest is not None
    assert manifest.outputs == {"by": "somebody"}


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", "its program is ''"),
        ("viper", "its program is 'viper'"),
        (":main", "its program is ':main'"),
        ("viper:", "its program is 'viper:'"),
        ("viper.none:run", "cannot be imported (ModuleNotFoundError: No module named 'viper.none')"),
        ("none:run", "cannot be imported (ModuleNotFoundError: No module named 'none')"),
        (".relative:run", "cannot be imported (TypeError: "),
        ("viper:none", "cannot be imported (AttributeError: "),
        ("viper:__version__", "is no function"),
        ("lacks:run", "cannot be imported (ModuleNotFoundError: No module named 'not_in_this_image')"),
        ("broken:run", "cannot be imported (SyntaxError: "),
        ("fails:run", "cannot be imported (OSError: libcuda.so.1)"),
    ],
)
def test_a_program_that_cannot_be_run_is_an_error_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, words: str
) -> None:
    (tmp_path / "lacks.py").write_text("import not_in_this_image")
    (tmp_path / "broken.py").write_text("def run(")
    (tmp_path / "fails.py").write_text("raise OSError('libcuda.so.1')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(DECLARED, INGEST, replace(DECLARED[INGEST], program=program))
    assert job(tmp_path, None) == StageError.exit_code
    said = capsys.readouterr().err
    assert f"error: {INGEST}: its program" in said
    assert words in said
    assert "Traceback" not in said


def test_a_program_gets_its_shard_and_scratch(tmp_path: Path) -> None:
    program = Program()
    assert job(tmp_path, program, "ingest-images", "--shard", "1/4", "--work-dir", str(tmp_path / "w")) == 0
    assert program.ctx is not None
    assert (program.ctx.shard, program.ctx.shards, program.ctx.work_dir) == (1, 4, tmp_path / "w")
    assert not (tmp_path / "end.json").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(InputError("row 7 is empty", where="a.jsonl", fix="fill it"), 3), (StoreError("the disk is full"), 4)],
)
def test_an_error_for_a_person_has_its_own_status_and_no_traceback(
    tmp_path: Path, error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(tmp_path, Program(error)) == status
    begins, ends, *says = capsys.readouterr().err.split("\n", 2)
    assert "ingest-images of it begins" in begins
    assert "ingest-images of it fails after " in ends
    assert says == [f"error: {error}\n"]
    assert json.loads((tmp_path / "end.json").read_text()) == {"reason": type(error).__name__, "message": str(error)}


class Overtaken:
    """A program during which another attempt finishes the stage, and which then goes on as it likes."""

    def __init__(self, goes_on: Callable[[StageContext], object]) -> None:
        self.goes_on = goes_on

    def __call__(self, ctx: StageContext) -> Manifest | None:
        other = StageContext(ctx.frozen, ctx.store, ctx.stage, ctx.work_dir)
        other.finish((), outputs={"x": 1})
        self.goes_on(ctx)
        return ctx.finish((), outputs={"x": 2})


def fails(_: StageContext) -> None:
    raise ZeroDivisionError("by nothing")


def misses(ctx: StageContext) -> None:
    ctx.store.get("phases/gone")


LATE = {
    "it does not notice": (lambda _: None, "another attempt was first; its result stands"),
    "it looks": (StageContext.give_way, "another attempt has finished it; this one ends here\n"),
    "what it reads is gone": (misses, "ends here (NotFoundError: "),
    "it fails": (fails, "ends here (ZeroDivisionError: by nothing)"),
}


@pytest.mark.parametrize("how", LATE)
def test_a_late_attempt_says_so_and_ends_well(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    goes_on, words = LATE[how]
    assert job(tmp_path, Overtaken(goes_on)) == 0
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "end.json").exists()
    store = open_store(tmp_path / "store")
    manifest = load_manifest(store, "iterations/it", "ingest-images")
    assert manifest is not None
    assert manifest.outputs == {"x": 1}


def test_what_was_decided_is_written_without_running_the_stage(tmp_path: Path) -> None:
    class Stopped(Program):
        def __call__(self, ctx: StageContext) -> Manifest | None:
            ctx.recorder = mock.Mock(side_effect=StoreError("is down"))
            return ctx.finish((), outputs={"x": 1})

    assert job(tmp_path, Stopped()) == 4
    program = Program()
    assert job(tmp_path, program) == 0
    assert program.ctx is None
    manifest = load_manifest(open_store(tmp_path / "store"), "iterations/it", "ingest-images")
    assert manifest is not None
    assert manifest.outputs == {"x": 1}


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    runs: list[str] = []

    def program(ctx: StageContext) -> Manifest | None:
        runs.append(ctx.stage)
        return ctx.finish((), outputs={})

    assert job(tmp_path, program) == job(tmp_path, program) == 0
    assert runs == [INGEST]


def test_any_other_error_has_status_1_and_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(tmp_path, Program(ZeroDivisionError("by nothing"))) == 1
    assert "Traceback" in capsys.readouterr().err
    assert json.loads((tmp_path / "end.json").read_text())["message"] == "ZeroDivisionError: by nothing"


def test_the_last_error_fits_into_what_kubernetes_reads(tmp_path: Path) -> None:
    job(tmp_path, Program(InputError("ä" * 10_000)))
    assert (tmp_path / "end.json").stat().st_size <= TERMINATION_BYTES


def test_a_stage_that_the_recipe_leaves_out_is_refused(tmp_path: Path) -> None:
    program = Program()
    assert job(tmp_path, program, "train-operations", recipe={"stages": "captions"}) == 7
    assert program.ctx is None


def test_an_iteration_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["ingest-images", "--iteration", f"{tmp_path}/iterations/none", "--work-dir", str(tmp_path)])
    assert status == 7
    assert "there is no such iteration" in capsys.readouterr().err


def test_a_full_disk_does_not_hide_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "end.json").mkdir()
    assert job(tmp_path, Program(InputError("bad"))) == 3
    assert "error: bad" in capsys.readouterr().err
