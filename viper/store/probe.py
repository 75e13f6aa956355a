"""Whether a store does what everything here relies on; asked with objects of its own, before anything depends on it."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from viper.errors import AlreadyExistsError, NotFoundError, StoreError, UnfitStoreError
from viper.store.base import RESERVED, ObjectStore
from viper.store.directory import DirectoryStore
from viper.store.leaving import tidied

#: Writers at once, and how often, where it is asked whether exactly one of them wins.
RACERS, ROUNDS = 8, 3
FOLDER = "probe"

_BUCKET_FIX = (
    "use a store that carries out `If-None-Match: *` and shows what was written at once, as AWS S3 and MinIO do, and "
    "see that no gateway before it drops that header"
)
_DIRECTORY_FIX = (
    "use a directory on a file system whose hard links are atomic (local disks, NFS), no bucket that is mounted as a "
    "folder, or MinIO/S3 itself"
)


@runtime_checkable
class _SendsParts(Protocol):
    """A store that creates large objects in requests of their own."""

    def put_in_parts(self, key: str, path: Path, *, if_absent: bool = False) -> None: ...


def probe(store: ObjectStore, *, thorough: bool = False) -> None:
    """Returns when the store creates conditionally, and shows, lists and deletes what was written at once.

    Its objects lie under `probe/<random>/` and are deleted at the end. Without `thorough` it is six requests.

    Args:
        thorough: also with several writers at once, with uploads in parts (S3), replaced objects, the order of
            listings and the digests that uploads leave.

    Raises `UnfitStoreError` with what the store does not do, `StoreError` when it cannot be used at all.
    """
    asked = _Probe(store)
    try:
        asked.creates()
        if thorough:
            asked.races()
            asked.parts()
            asked.replaces()
            asked.lists()
            asked.remembers()
        asked.deletes()
    except OSError as error:
        raise StoreError(
            f"no temporary file can be written, to be uploaded: {error.strerror or error}",
            where=str(error.filename or tempfile.gettempdir()),
            fix="set TMPDIR to a folder that can be written",
        ) from error
    finally:
        tidied(asked.tidy)


@contextmanager
def stand_in(store: ObjectStore) -> Iterator[ObjectStore]:
    """The store itself; for a directory that does not exist yet, one in its place that is there for the block only.

    Raises `StoreError` when none can be made.
    """
    if not isinstance(store, DirectoryStore) or store.root.exists():
        yield store
        return
    parent = next(folder for folder in store.root.parents if folder.exists())
    try:
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=f"{RESERVED}probe-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreError(
            f"the directory cannot be made: {error.strerror or error}",
            where=str(store.root),
            fix=f"check the owner and the mode of {parent}",
        ) from error
    with folder as name:
        yield DirectoryStore(Path(name))


class _Probe:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._prefix = f"{FOLDER}/{uuid.uuid4().hex}"
        self._written: list[str] = []
        self._first = self._key("first")

    def creates(self) -> None:
        """One writer after the other."""
        try:
            self._store.put(self._first, b"first", if_absent=True)
        except UnfitStoreError:
            raise
        except StoreError as error:
            try:
                self._store.put(self._first, b"first")
            except StoreError:
                raise error from None
            raise self._unfit(f"it refuses to create an object only if there is none ({error.what})") from error
        self._refuses(self._first, lambda: self._store.put(self._first, b"second", if_absent=True))
        self._holds(self._first, b"first")
        if self._first not in self._listed():
            raise self._unfit("a listing does not show what was written before it")

    def races(self) -> None:
        """Several writers at once."""
        for number in range(ROUNDS):
            self._one(self._key(f"race-{number}"), partial(self._store.put, if_absent=True))

    def parts(self) -> None:
        """As with files that are too large for one request."""
        store = self._store
        if not isinstance(store, _SendsParts):
            return
        with tempfile.TemporaryDirectory(prefix=f"{RESERVED}probe-") as folder:

            def create(key: str, own: bytes) -> None:
                source = Path(folder) / own.decode()
                source.write_bytes(own)
                store.put_in_parts(key, source, if_absent=True)

            self._refuses(self._first, lambda: create(self._first, b"second"), " in parts")
            self._holds(self._first, b"first")
            self._one(self._key("race-in-parts"), create, " in parts")

    def replaces(self) -> None:
        """A put without a condition, read at once."""
        key = self._key("replaced")
        for data in (b"older, and longer", b"newer"):
            self._store.put(key, data)
            self._holds(key, data)

    def lists(self) -> None:
        """By the bytes of the keys."""
        for name in ("order/b", "order/a/c", "order/a-b"):
            self._store.put(self._key(name), b"")
        found = [key for key in self._listed() if key.startswith(f"{self._prefix}/order/")]
        if found != sorted(found, key=str.encode) or len(found) != 3:
            raise self._unfit("its listings are not in the order of the keys, or not complete")

    def remembers(self) -> None:
        """The digest that an upload says."""
        data = b"digest"
        digest = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory(prefix=f"{RESERVED}probe-") as folder:
            source = Path(folder) / "source"
            source.write_bytes(data)
            key = self._key("digest")
            self._store.put_file(key, source, sha256=digest)
        if self._store.sha256(key) != digest:
            raise self._unfit("it does not keep the metadata of objects (x-amz-meta-…)")

    def deletes(self) -> None:
        """What is deleted is gone at once."""
        self._store.delete(self._first)
        if self._store.stat(self._first) is not None:
            raise self._unfit("an object is still there after it was deleted")

    def tidy(self) -> None:
        for key in self._written:
            with suppress(StoreError):
                self._store.delete(key)

    def _key(self, name: str) -> str:
        key = f"{self._prefix}/{name}"
        self._written.append(key)
        return key

    def _listed(self) -> list[str]:
        return [info.key for info in self._store.list(f"{self._prefix}/")]

    def _refuses(self, key: str, write: Callable[[], None], how: str = "") -> None:
        try:
            write()
        except AlreadyExistsError:
            return
        raise self._unfit(f"it lets a second writer replace an object that was to be created once{how}: {_SO}")

    def _holds(self, key: str, data: bytes) -> None:
        try:
            found = self._store.get(key)
        except NotFoundError:
            raise self._unfit("an object is not there right after it was written") from None
        if found != data:
            raise self._unfit("reading right after writing gives something else than was written")

    def _one(self, key: str, create: Callable[[str, bytes], None], how: str = "") -> None:
        start = threading.Barrier(RACERS)

        def once(number: int) -> bytes | None:
            own = b"writer-%d" % number
            start.wait()
            try:
                create(key, own)
            except AlreadyExistsError:
                return None
            return own

        with ThreadPoolExecutor(RACERS) as pool:
            won = [own for own in pool.map(once, range(RACERS)) if own is not None]
        if len(won) != 1:
            raise self._unfit(f"of {RACERS} writers at once {len(won)} created the same object{how}, not one: {_SO}")
        self._holds(key, won[0])

    def _unfit(self, what: str) -> UnfitStoreError:
        directory = isinstance(self._store, DirectoryStore)
        return UnfitStoreError(
            f"the store cannot be used: {what}",
            where=self._store.uri,
            fix=_DIRECTORY_FIX if directory else _BUCKET_FIX,
        )


_SO = "attempts at the same work would destroy each other's"
