"""What a stage program works with: its frozen input, its parts, its progress, its manifest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from viper.errors import (
    AlreadyExistsError,
    NotFoundError,
    OvertakenError,
    StageError,
    StoreError,
    SupersededError,
)
from viper.stage.frozen import FrozenIteration, load_frozen
from viper.stage.manifest import (
    OUTCOME,
    Manifest,
    PartRecord,
    load_manifest,
    manifest_key,
    read_manifest,
    stored_outputs,
)
from viper.stage.progress import Progress, ProgressRecord, silent
from viper.stage.rows import R, RowClass, names_of, read_rows, values_of
from viper.store import ObjectStore, named_by_content, open_store, put_once
from viper.words import duration, plural

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
T = TypeVar("T")


@dataclass
class StageContext:
    """One attempt of one shard of one stage.

    Every row has the columns `accepted` (bool) and `reason` (str, empty when accepted); parts keep rejected rows.
    `work_dir` is local scratch that survives restarts on the same machine; nothing in it is needed for correctness.

    Another attempt of the same shard may be at work at any moment: a pod that was deleted by force, a node that was cut
    off, a second cluster on the same bucket. So everything that a record or manifest names is called by its content and
    never written again, and of two attempts the first one decides.
    """

    frozen: FrozenIteration
    store: ObjectStore
    stage: str
    work_dir: Path
    shard: int = 0
    shards: int = 1
    progress: Progress = field(default_factory=Progress)
    clock: Callable[[], float] = time.monotonic
    #: Receives the lines of the stage's log.
    tell: Callable[[str], None] = silent
    #: Called with the complete manifest right before it is written: MLflow records belong before "done".
    recorder: Callable[[Manifest], None] | None = None
    #: Whether the manifest that `done` or `finish` returned is the work of another attempt.
    superseded: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._in_parts = 0.0

    @property
    def prefix(self) -> str:
        """Key prefix of the stage."""
        return f"{self.frozen.prefix}/stages/{self.stage}"

    # ---- input -------------------------------------------------------------------------------------------------

    def manifest(self, stage: str) -> Manifest:
        """The manifest of a stage before this one; raises `StageError` when it is not done."""
        manifest = load_manifest(self.store, self.frozen.prefix, stage)
        if manifest is None:
            raise StageError(f"{self.stage} needs {stage}, which has no manifest", where=self.frozen.name)
        if manifest.identity != self.frozen.identity:
            raise StageError(
                f"the manifest of {stage} was made from another frozen iteration",
                where=f"{self.store.uri}/{self.prefix}",
            )
        return manifest

    def table(self, stage: str, part: PartRecord, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one part; raises `StageError` when its bytes do not match the recorded digest."""
        import pyarrow.parquet as pq

        key = f"{self.frozen.prefix}/stages/{stage}/{part.key}"
        data = self.store.get(key)
        if hashlib.sha256(data).hexdigest() != part.digest:
            raise StageError("the part does not have the digest its manifest names", where=f"{self.store.uri}/{key}")
        return pq.read_table(io.BytesIO(data), columns=None if columns is None else list(columns))

    def read(
        self, stage: str, part: PartRecord, row: type[R], choose: Callable[[R], tuple[object, ...]] | None = None
    ) -> list[R]:
        """The rows of one part, as `table`; `choose` gives the attributes of the columns to read, all otherwise."""
        return read_rows(self.table(stage, part, choose and names_of(row, choose)), row)

    def rows(self, stage: str, columns: Sequence[str] | None = None, *, rejected: bool = False) -> Iterator[Row]:
        """Rows of a finished stage in order; only accepted ones unless `rejected`."""
        wanted = None if columns is None else sorted({*columns, "accepted"})
        for part in self.manifest(stage).parts:
            for row in self.table(stage, part, wanted).to_pylist():
                if rejected or row["accepted"]:
                    yield row

    # ---- parts -------------------------------------------------------------------------------------------------

    def part(self, index: int) -> PartRecord | None:
        """The record of a finished part of this stage."""
        key = f"{self.prefix}/parts/{index:05d}.json"
        try:
            return PartRecord.read(self.store.get(key), where=f"{self.store.uri}/{key}", error=StageError)
        except NotFoundError:
            return None

    def parts_there(self) -> int:
        """How many parts of this stage are finished, by whichever attempt and shard."""
        return sum(info.key.endswith(".json") for info in self.store.list(f"{self.prefix}/parts/"))

    def pending(self, total: int) -> list[int]:
        """Indices of this shard's parts (index modulo shards) that are not done yet."""
        return [i for i in range(self.shard, total, self.shards) if self.part(i) is None]

    def write_part(
        self,
        index: int,
        rows: Sequence[RowClass] | Sequence[Mapping[str, Any]],
        schema: pa.Schema,
        *,
        seconds: float = 0.0,
        counters: Mapping[str, int] | None = None,
        beside: tuple[str, bytes] | None = None,
        ordered: bool = False,
    ) -> PartRecord:
        """Stores rows as Parquet, then their record; returns the record that is there.

        That is another attempt's, with other rows, where one was first: what follows from a part is read from it.

        Args:
            rows, schema: of the part, accepted and rejected rows.
            seconds: wall-clock time that it took.
            counters: further counts.
            beside: a folder below the stage prefix, and what it is to say of these rows; `beside` reads it.
            ordered: the parts after it follow from it: another attempt's rows raise `OvertakenError` (see `in_order`).
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer, values = io.BytesIO(), [values_of(row) for row in rows]
        pq.write_table(pa.Table.from_pylist(values, schema=schema), buffer, compression="zstd")
        data = buffer.getvalue()
        reasons: dict[str, int] = {}
        for row in values:
            if not row["accepted"]:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
        digest = hashlib.sha256(data).hexdigest()
        record = PartRecord(
            index=index,
            key=named_by_content(f"parts/{index:05d}.parquet", digest),
            digest=digest,
            rows=len(rows),
            accepted=sum(bool(row["accepted"]) for row in values),
            rejected=dict(sorted(reasons.items())),
            counters=dict(sorted((counters or {}).items())),
            seconds=round(seconds, 3),
        )
        # Rows first: a record without rows would be a part that claims to be done. A crash between the two leaves rows
        # that nothing refers to, or that the next attempt's record does.
        if beside is not None:
            put_once(self.store, self._beside_key(beside[0], record), beside[1])
        with contextlib.suppress(AlreadyExistsError):
            self.store.put(f"{self.prefix}/{record.key}", data, if_absent=True)
        self._in_parts += seconds
        try:
            self.store.put(f"{self.prefix}/parts/{index:05d}.json", record.to_bytes(), if_absent=True)
        except AlreadyExistsError:
            there = self.part(index) or record
            if ordered and there.digest != digest:
                where = f"{self.store.uri}/{self.prefix}"
                raise OvertakenError(f"another attempt wrote part {index} first", where=where) from None
            self.tell(f"part {index}: another attempt wrote it first, its rows stand")
            return there
        self.tell(f"part {index} is done: {_funnel(record)}" + (f", {duration(seconds, 1)}" if seconds else ""))
        return record

    def beside(self, folder: str, index: int) -> bytes:
        """What was stored with a part of this stage (`write_part`, `beside`); raises `NotFoundError`."""
        record = self.part(index)
        if record is not None:
            with contextlib.suppress(NotFoundError):
                return self.store.get(self._beside_key(folder, record))
        return self.store.get(f"{self.prefix}/{folder}/{index:05d}.json")  # from before it was called by the rows

    def _beside_key(self, folder: str, record: PartRecord) -> str:
        return f"{self.prefix}/" + named_by_content(f"{folder}/{record.index:05d}.json", record.digest)

    # ---- output ------------------------------------------------------------------------------------------------

    def keep(self, name: str, data: bytes) -> str:
        """Stores bytes under a name that says what they are; returns their key below the stage prefix.

        `curves.jsonl` becomes `curves-<digest>.jsonl`: another attempt's other bytes get another name.
        """
        key = named_by_content(name, hashlib.sha256(data).hexdigest())
        with contextlib.suppress(AlreadyExistsError):
            self.store.put(f"{self.prefix}/{key}", data, if_absent=True)
        return key

    def keep_file(self, name: str, path: Path) -> str:
        """`keep` of a file's content, streamed."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = named_by_content(name, digest)
        with contextlib.suppress(AlreadyExistsError):
            self.store.put_file(f"{self.prefix}/{key}", path, if_absent=True, sha256=digest)
        return key

    def give_way(self) -> None:
        """Raises `SupersededError` when another attempt has finished the stage: whatever is made now is for nothing.

        Called before what costs much, and before what cannot be taken back.
        """
        if self._manifest() is not None:
            raise SupersededError("another attempt has finished this stage", where=f"{self.frozen.name}, {self.stage}")

    def finish(
        self,
        inputs: Iterable[str],
        *,
        parts: int = 0,
        outputs: Mapping[str, Any] | None = None,
    ) -> Manifest | None:
        """Writes the manifest when all `parts` are there; None while other shards still work on theirs.

        The first attempt to get here decides what the manifest says (`outcome.json`, by conditional create). That is
        recorded and then written, by whichever attempt gets to it, and `outcome.json` goes. Another attempt's result is
        left aside.
        """
        if (there := self._manifest()) is not None:
            self.superseded = True
            return there
        records = [self.part(i) for i in range(parts)]
        done = [r for r in records if r is not None]
        if len(done) < parts:
            return None
        manifest = Manifest.of_parts(
            stage=self.stage,
            iteration=self.frozen.name,
            identity=self.frozen.identity,
            inputs={s: self.manifest(s).content_digest for s in inputs},
            parts=done,
            outputs=stored_outputs(outputs or {}, self.store.uri),
            seconds=round(max(0.0, self.clock() - self._started - self._in_parts), 3),
        )
        mine = manifest.to_bytes()
        made = self._write_manifest(mine, self._decide(mine))
        # The same, its mappings in the order in which they were made.
        return made if self.superseded else manifest.at(self.store.uri)

    def done(self) -> Manifest | None:
        """This stage's manifest, when an earlier attempt finished it."""
        there = self._manifest()
        self.superseded = there is not None
        return there

    def complete(self) -> Manifest | None:
        """Records and writes what an earlier attempt decided and got no further with; None when nothing is decided."""
        if (there := self.done()) is not None:
            return there
        try:
            decided = self.store.get(f"{self.prefix}/{OUTCOME}")
        except NotFoundError:
            return self.done()
        return self._write_manifest(b"", decided)

    def _decide(self, mine: bytes) -> bytes:
        """What the manifest says: `mine`, unless another attempt was first."""
        try:
            return put_once(self.store, f"{self.prefix}/{OUTCOME}", mine)
        except NotFoundError:  # it was there, and is gone: the manifest is written
            return mine

    def _write_manifest(self, mine: bytes, decided: bytes) -> Manifest:
        """Records what was decided, then writes it as the manifest; `mine` is what this attempt would have it say."""
        if (there := self.done()) is not None:
            return there
        manifest = read_manifest(decided, self.store, f"{self.prefix}/{OUTCOME}")
        if self.recorder is not None:
            self.recorder(manifest)
        written = put_once(self.store, manifest_key(self.frozen.prefix, self.stage), decided)
        self.superseded = not mine == decided == written
        with contextlib.suppress(StoreError):
            self.store.delete(f"{self.prefix}/{OUTCOME}")
        if written != decided:  # by a program from before outcomes were decided first
            return self._manifest() or manifest
        return manifest

    def _manifest(self) -> Manifest | None:
        return load_manifest(self.store, self.frozen.prefix, self.stage)


def _funnel(record: PartRecord) -> str:
    """What became of the rows of a part."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(record.rejected.items(), key=lambda x: (-x[1], x[0])))
    return f"{record.accepted} of {plural(record.rows, 'row')} accepted" + (f" ({reasons})" if reasons else "")


def in_order(work: Callable[[], T]) -> T:
    """Does the work of a stage whose parts follow from those before them.

    Where another attempt wrote a part first, with other rows, it begins again with the parts that are there.
    """
    while True:
        try:
            return work()
        except OvertakenError:  # every time there is one part more
            continue


def open_stage(
    store_uri: str,
    name: str,
    stage: str,
    work_dir: Path,
    *,
    shard: int = 0,
    shards: int = 1,
    tell: Callable[[str], None] = silent,
) -> StageContext:
    """Opens a stage of a frozen iteration; `tell` receives the lines of its log.

    Raises `StageError` when there is no such iteration or it cannot be read, `NewerFormError` when a later release has
    to carry it out, `StoreError`.
    """
    store = open_store(store_uri)
    frozen = load_frozen(store, name, error=StageError)
    if frozen is None:
        raise StageError("there is no such iteration", where=f"{store.uri}/iterations/{name}/iteration.json")
    progress_key = f"{frozen.prefix}/stages/{stage}/progress/{shard}-of-{shards}.json"

    def sink(record: ProgressRecord) -> None:
        # Progress is a courtesy: a store that is down for a moment must not stop the work.
        with contextlib.suppress(StoreError):
            store.put(progress_key, record.to_bytes())

    if frozen.revision:  # what lies there may be of another spec
        work_dir = work_dir / f"r{frozen.revision}"
    work_dir.mkdir(parents=True, exist_ok=True)
    progress = Progress(sink, tell=tell, label=f"{name} {stage}")
    return StageContext(frozen, store, stage, work_dir, shard, shards, progress=progress, tell=tell)
