"""A store that cannot do what we rely on is refused with its name, before anything depends on it; a good one passes."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import viper.store.minio
from fakes import world
from fakes.registry import MemoryRegistry
from servers.faulty_s3 import (
    Answer,
    Asked,
    Conflicts,
    FaultyS3,
    Manner,
    Pass,
    ignores_conditions,
    ignores_conditions_of_parts,
    refusal,
)
from servers.running import MinioServer
from viper.cli import main
from viper.errors import AlreadyExistsError, StoreError, UnfitStoreError
from viper.iteration.freeze import freeze
from viper.retries import Policy
from viper.store import DirectoryStore, ObjectStore, open_store, probe
from viper.store.minio import MinioStore
from viper.store.probe import RACERS, stand_in

IMPATIENT = Policy((0.01, 0.02), tries=3)


def at(server: FaultyS3, prefix: str = "p") -> MinioStore:
    found = open_store(f"s3://{MinioServer.bucket}/{prefix}?endpoint={server.url}")
    assert isinstance(found, MinioStore)
    return found


@pytest.mark.parametrize("thorough", [False, True])
def test_a_good_store_passes_and_keeps_nothing_but_its_own(store: ObjectStore, thorough: bool) -> None:
    store.put("probe/of-somebody-else", b"stays")
    probe(store, thorough=thorough)
    assert [info.key for info in store.list()] == ["probe/of-somebody-else"]


def refuses_conditions(asked: Asked, passed_on: Pass) -> Answer:
    return refusal(400, "InvalidArgument") if asked.conditional else passed_on(asked)


def has_no_conditions(asked: Asked, passed_on: Pass) -> Answer:
    return refusal(501, "NotImplemented") if asked.conditional else passed_on(asked)


def lists_late(asked: Asked, passed_on: Pass) -> Answer:
    if "list-type" not in asked.path:
        return passed_on(asked)
    empty = b"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
    return Answer(200, empty, {"Content-Type": "application/xml"})


def reads_late(asked: Asked, passed_on: Pass) -> Answer:
    return refusal(404, "NoSuchKey") if asked.method == "GET" and "probe" in asked.path else passed_on(asked)


def deletes_late(asked: Asked, passed_on: Pass) -> Answer:
    return Answer(204) if asked.method == "DELETE" else passed_on(asked)


def forgets_metadata(asked: Asked, passed_on: Pass) -> Answer:
    answer = passed_on(asked)
    answer.headers = {k: v for k, v in answer.headers.items() if not k.lower().startswith("x-amz-meta")}
    return answer


@pytest.mark.server
@pytest.mark.parametrize(
    ("manner", "quick", "what"),
    [
        (ignores_conditions, True, "lets a second writer replace an object"),
        (refuses_conditions, True, "refuses to create an object only if there is none .*InvalidArgument"),
        (has_no_conditions, True, "does not offer what was asked of it"),
        (lists_late, True, "a listing does not show"),
        (reads_late, True, "not there right after it was written"),
        (deletes_late, True, "still there after it was deleted"),
        (ignores_conditions_of_parts, False, "lets a second writer replace .* in parts"),
        (forgets_metadata, False, "does not keep the metadata"),
    ],
)
def test_a_server_that_does_less_than_s3_is_refused(
    minio_server: MinioServer, minio_credentials: None, manner: Manner, quick: bool, what: str
) -> None:
    with FaultyS3(minio_server.url, manner) as server:
        for thorough in [False, True] if quick else [True]:
            with pytest.raises(UnfitStoreError, match=what) as error:
                probe(at(server), thorough=thorough)
            assert server.url in error.value.where
            assert "If-None-Match" in error.value.fix


@pytest.mark.server
def test_hook_doctor_and_freezing_refuse_a_store_in_which_every_writer_wins(
    minio_server: MinioServer, minio_credentials: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyS3(minio_server.url, ignores_conditions) as server:
        store = at(server, "all-win")
        for number in range(8):  # what is refused: without it, 8 of 8 win
            store.put("k", b"%d" % number, if_absent=True)
        store.delete("k")

        assert main(["doctor", "--store", store.uri]) == 1
        said = capsys.readouterr().out
        assert "lets a second writer replace" in said
        assert server.url in said

        registry, model = MemoryRegistry(), world.model(tmp_path / "model")
        iteration = world.iteration("it", generator={"alias": "generator", "initialUri": model.as_uri()})
        with pytest.raises(UnfitStoreError, match="lets a second writer replace"):
            freeze(iteration, store, registry)  # type: ignore[arg-type]
        assert registry.calls == []
        assert list(store.list()) == []


@pytest.mark.server
def test_where_no_temporary_file_can_be_written_that_is_said(
    minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match="no temporary file can be written") as error:
        probe(minio_store, thorough=True)
    assert "TMPDIR" in error.value.fix


class ChecksThenWrites(DirectoryStore):
    """Refuses the second writer, but not one that comes while the first one writes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._all_looked = threading.Barrier(RACERS)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if if_absent and self.stat(key) is not None:
            raise AlreadyExistsError("there is one")
        if if_absent and threading.current_thread() is not threading.main_thread():
            self._all_looked.wait(timeout=60)
        super().put(key, data)


def test_a_store_that_refuses_only_late_comers_is_found_by_writers_at_once(tmp_path: Path) -> None:
    store = ChecksThenWrites(tmp_path)
    probe(store)
    with pytest.raises(UnfitStoreError, match=f"of {RACERS} writers at once {RACERS} created the same object") as error:
        probe(store, thorough=True)
    assert error.value.where == store.uri
    assert "hard links are atomic" in error.value.fix
    assert list(store.list()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV])
def test_a_file_system_without_hard_links_is_refused(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UnfitStoreError, match="no hard links") as error:
        probe(directory_store)
    assert "file system with hard links" in error.value.fix
    assert list(directory_store.list()) == []


def test_a_link_whose_answer_got_lost_is_ones_own(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def repeated(source: str, target: str) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", repeated)
    directory_store.put("k", b"mine", if_absent=True)
    with pytest.raises(AlreadyExistsError):
        directory_store.put("k", b"other's", if_absent=True)
    assert directory_store.get("k") == b"mine"


def test_doctor_makes_no_directory_where_the_store_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--store", str(tmp_path / "not" / "yet")])
    assert "store" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with stand_in(DirectoryStore(tmp_path / "not" / "yet")) as place:
        probe(place, thorough=True)
        assert isinstance(place, DirectoryStore)
        assert place.root.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def put(store: MinioStore, key: str, folder: Path) -> None:
    store.put(key, b"mine", if_absent=True)


def put_file(store: MinioStore, key: str, folder: Path) -> None:
    (folder / "f").write_bytes(b"mine")
    store.put_file(key, folder / "f", if_absent=True)


def put_large_file(store: MinioStore, key: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viper.store.minio, "PART_BYTES", 3)
        put_file(store, key, folder)


WRITES = [put, put_file, put_large_file]
Write = Callable[[MinioStore, str, Path], None]
CODES = [("ConditionalRequestConflict", 409), ("OperationAborted", 409), ("RequestTimeout", 400)]


def impatient(server: FaultyS3, prefix: str) -> MinioStore:
    return MinioStore(MinioServer.bucket, prefix, endpoint=server.url, patience=IMPATIENT)


@pytest.mark.server
@pytest.mark.parametrize(
    ("write", "answer"),
    [*((write, code) for write in WRITES for code in CODES), (put_large_file, ("InternalError", 200))],
)
def test_a_write_that_met_another_one_is_made_again(
    minio_server: MinioServer, minio_credentials: None, tmp_path: Path, write: Write, answer: tuple[str, int]
) -> None:
    code, status = answer
    conflicts = Conflicts(2, code, status=status)
    with FaultyS3(minio_server.url, conflicts) as server:
        store = impatient(server, f"met-{code}-{write.__name__}")
        write(store, "k", tmp_path)
        assert conflicts.left == 0
        assert store.get("k").startswith(b"mine")
        with pytest.raises(AlreadyExistsError):
            write(store, "k", tmp_path)


@pytest.mark.server
@pytest.mark.parametrize("write", WRITES)
def test_after_a_conflict_ones_own_object_is_recognised_and_another_ones_too(
    minio_server: MinioServer, minio_credentials: None, tmp_path: Path, write: Write
) -> None:
    conflicts = Conflicts(1)
    conflicts.after = True
    with FaultyS3(minio_server.url, conflicts) as server:
        store = impatient(server, f"after-{write.__name__}")
        write(store, "own", tmp_path)
        assert (conflicts.left, store.get("own")[:4]) == (0, b"mine")

    def beaten(asked: Asked, passed_on: Pass) -> Answer:
        if asked.conditional:
            open_store(minio_server.uri(f"after-{write.__name__}")).put("theirs", b"first")
            return refusal(409, "ConditionalRequestConflict")
        return passed_on(asked)

    with FaultyS3(minio_server.url, beaten) as server:
        with pytest.raises(AlreadyExistsError):
            write(impatient(server, f"after-{write.__name__}"), "theirs", tmp_path)
        assert open_store(minio_server.uri(f"after-{write.__name__}")).get("theirs") == b"first"


@pytest.mark.server
def test_a_key_that_stays_busy_is_a_clear_error_after_a_bounded_number_of_attempts(
    minio_server: MinioServer, minio_credentials: None
) -> None:
    conflicts = Conflicts(1000)
    with FaultyS3(minio_server.url, conflicts) as server:
        with pytest.raises(StoreError, match="other writers keep this key busy") as error:
            impatient(server, "busy").put("k", b"", if_absent=True)
        assert "run the same command again" in error.value.fix
        assert 1000 - conflicts.left == 3


@pytest.mark.server
def test_of_eight_writers_of_whom_most_are_told_to_try_again_exactly_one_wins(
    minio_server: MinioServer, minio_credentials: None
) -> None:
    conflicts = Conflicts(RACERS - 2)

    def busy(asked: Asked, passed_on: Pass) -> Answer:
        return conflicts(asked, passed_on) if "race-0" in asked.path else passed_on(asked)

    with FaultyS3(minio_server.url, busy) as server:
        probe(at(server, "told"), thorough=True)
    assert conflicts.left == 0
