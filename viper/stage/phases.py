"""A stage whose parts go through phases, one engine at a time.

A shard takes the parts it is to make through the first phase, then all of them through the second, and so on: a device
loads each model once, not once per sample. What a phase has made is committed in chunks (drafts); a part is put
together from its drafts after the last phase. A process that is killed repeats the chunks in flight.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from viper.errors import AlreadyExistsError, NotFoundError, StoreError
from viper.stage.context import StageContext
from viper.stage.manifest import PartRecord
from viper.stage.overlap import Behind, ahead
from viper.stage.quota import Quota
from viper.stage.rows import RowClass

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


@dataclass(frozen=True)
class Piece(Generic[T]):
    """A piece of a part that a phase commits as a whole.

    `name` sorts within the part. `items` count for progress. `load` reads what the work needs, in a background thread.
    """

    name: str
    items: int
    load: Callable[[], T]


@dataclass(frozen=True)
class Draft:
    """What a phase made of one item: the item's place in the part, plain data, and the bytes of an image if there is
    one; a function that makes them is called in a background thread."""

    place: int
    data: Mapping[str, Any]
    blob: bytes | Callable[[], bytes] = b""


def bytes_of(draft: Draft) -> bytes:
    """The bytes of a draft's image."""
    return draft.blob if isinstance(draft.blob, bytes) else draft.blob()


@dataclass(frozen=True)
class Phase(Generic[T]):
    """One step over all parts, with one engine (`role`, see `viper.modelcache.engines.StageEngines`).

    `chunks(part)`: always the same, and cheap. `work(part, inputs)`: what the engine is needed for.
    """

    name: str
    role: str
    chunks: Callable[[int], Iterator[Piece[T]]]
    work: Callable[[int, T], Sequence[Draft]]


#: All drafts of a part, by phase and place.
Gathered = Mapping[str, Mapping[int, Draft]]


class Engines(Protocol):
    """What holds the engines."""

    def check(self, *roles: str) -> None:
        """Raises `EngineError` when one of these roles cannot run here for want of memory; loads nothing."""
        ...

    def enter(self, role: str) -> None:
        """From here on this role is needed; what it leaves no room for is closed."""
        ...


class Drafts:
    """What phases have made of parts that are not finished."""

    def __init__(self, ctx: StageContext) -> None:
        self._store, self._prefix = ctx.store, f"{ctx.prefix}/phases"

    def key(self, part: int, phase: str, chunk: str) -> str:
        """Where a chunk's drafts are."""
        return f"{self._prefix}/{part:05d}/{phase}/{chunk}.parquet"

    def there(self, part: int) -> set[str]:
        """Keys of a part's drafts."""
        return {info.key for info in self._store.list(f"{self._prefix}/{part:05d}/")}

    def put(self, key: str, drafts: Sequence[Draft], seconds: float) -> None:
        """Commits a chunk on which a phase spent so many seconds, unless another attempt has: later phases follow from
        what is there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "place": pa.array([d.place for d in drafts], pa.int32()),
            "data": pa.array([json.dumps(d.data, ensure_ascii=False) for d in drafts], pa.string()),
            "blob": pa.array([bytes_of(d) for d in drafts], pa.binary()),
        }
        table = pa.table(columns).replace_schema_metadata({"seconds": f"{seconds:.3f}"})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="none")  # images are compressed already
        with suppress(AlreadyExistsError):
            self._store.put(key, buffer.getvalue(), if_absent=True)

    def read(self, part: int, phase: str, chunk: str = "") -> tuple[dict[int, Draft], float]:
        """What a phase made, by place, and the seconds it took: of the chunks whose names begin with `chunk`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        found: dict[int, Draft] = {}
        seconds = 0.0
        for info in self._store.list(f"{self._prefix}/{part:05d}/{phase}/{chunk}"):
            try:
                table = pq.read_table(io.BytesIO(self._store.get(info.key)))
                for row in table.to_pylist():
                    found[row["place"]] = Draft(row["place"], json.loads(row["data"]), row["blob"])
                seconds += float((table.schema.metadata or {}).get(b"seconds", b"0"))
            except (pa.ArrowInvalid, KeyError, ValueError) as error:
                self._store.delete(info.key)  # nothing but this part's later phases refers to it
                raise StoreError(
                    f"is no draft: {error}",
                    where=f"{self._store.uri}/{info.key}",
                    fix="run the stage again: what it is to hold is made again",
                ) from None
        return found, seconds

    def drop(self, part: int) -> None:
        """Removes the drafts of a part that is finished."""
        for key in self.there(part):
            with suppress(NotFoundError):
                self._store.delete(key)


@dataclass(frozen=True)
class PhasedStage:
    """A stage of parts in phases. `items[i]` of part i count for progress; `assemble(part, drafts)` gives the part's
    rows and counters once all its drafts are there."""

    ctx: StageContext
    engines: Engines
    drafts: Drafts
    phases: Sequence[Phase[Any]]
    items: Sequence[int]
    quota: Quota
    assemble: Callable[[int, Gathered], tuple[Sequence[RowClass], Mapping[str, int]]]
    schema: pa.Schema

    def run(self) -> int | None:
        """Makes what this shard has to make. Returns how many parts the stage has, None while other shards are at
        work on theirs."""
        self.engines.check(*(phase.role for phase in self.phases))
        claims = Claims(self.ctx)
        done: dict[int, PartRecord] = {}
        while True:
            done |= {i: r for i in range(len(self.items)) if i not in done and (r := self.ctx.part(i)) is not None}
            if (parts := self.quota.complete(done)) is not None:
                return parts
            mine = claims.take([i for i in range(self.quota.wanted(done)) if i not in done])
            if not mine:
                return None
            self.ctx.give_way()
            try:
                self._make(mine)
            except Exception:
                # The drafts of a part go when the part is there: another attempt made one of these meanwhile.
                if all(self.ctx.part(i) is None for i in mine):
                    raise

    def _make(self, parts: Sequence[int]) -> None:
        run_phases(self.ctx, self.engines, self.drafts, self.phases, {i: self.items[i] for i in parts})

        def gathered() -> Iterator[tuple[int, Gathered, float]]:
            for part in parts:
                if self.ctx.part(part) is not None:  # by another attempt, and its drafts are gone
                    continue
                made = {phase.name: self.drafts.read(part, phase.name) for phase in self.phases}
                drafts = {name: found for name, (found, _) in made.items()}
                yield part, drafts, sum(seconds for _, seconds in made.values())

        for part, drafts, seconds in ahead(gathered()):
            rows, counters = self.assemble(part, drafts)
            self.ctx.write_part(part, rows, self.schema, seconds=seconds, counters=counters)
            self.drafts.drop(part)


def run_phases(
    ctx: StageContext, engines: Engines, drafts: Drafts, phases: Sequence[Phase[Any]], parts: Mapping[int, int]
) -> None:
    """Takes parts (and how many items each has, for progress) through the phases, one phase after the other.

    Chunks that are committed already are not made again.
    """
    for number, phase in enumerate(phases, start=1):
        engines.enter(phase.role)
        ctx.progress.begin(phase.name, sum(parts.values()), step=number, steps=len(phases))
        with Behind() as behind:
            for part, chunk, inputs in ahead(_loaded(drafts, phase, parts)):
                if inputs is not None:
                    started = ctx.clock()
                    made = phase.work(part, *inputs)
                    key = drafts.key(part, phase.name, chunk.name)
                    behind(partial(drafts.put, key, made, ctx.clock() - started))
                count = ctx.progress.reuse if inputs is None else ctx.progress.advance
                count(chunk.items)


def _loaded(
    drafts: Drafts, phase: Phase[T], parts: Mapping[int, int]
) -> Iterator[tuple[int, Piece[T], tuple[T] | None]]:
    """The chunks of all parts with their inputs; None for those that are committed."""
    for part in parts:
        there = drafts.there(part)
        for chunk in phase.chunks(part):
            made = drafts.key(part, phase.name, chunk.name) in there
            yield part, chunk, None if made else (chunk.load(),)


_PART = re.compile("[0-9]{5,9}")


class Claims:
    """Which shard makes which part: each its own share first, then what nobody has begun.

    A claim stays: the shard that holds it finishes the part, in a further attempt if need be. So the last shard to
    finish sees whether more parts are needed, and takes them. Claims of another number of shards do not count.
    """

    def __init__(self, ctx: StageContext) -> None:
        self._ctx, self._prefix = ctx, f"{ctx.prefix}/claims/{ctx.shards}"

    def take(self, missing: Sequence[int]) -> list[int]:
        """Those of the missing parts that this shard has to make, in order. What others were given at first they get
        to keep until there is nothing else to do here."""
        ctx = self._ctx
        if ctx.shards == 1:
            return list(missing)
        held = self._held(missing)
        mine = [i for i in missing if held.get(i, i % ctx.shards) == ctx.shard and self._claim(i)]
        if mine:
            return mine
        free = [i for i in missing if i not in held]
        return [i for i in free[: max(1, len(free) // (2 * ctx.shards))] if self._claim(i)]

    def _held(self, missing: Sequence[int]) -> dict[int, int]:
        wanted, held = set(missing), dict[int, int]()
        for info in self._ctx.store.list(f"{self._prefix}/"):
            name = info.key.removeprefix(f"{self._prefix}/")
            if _PART.fullmatch(name) and (index := int(name)) in wanted and (by := self._by(info.key)) is not None:
                held[index] = by
        return held

    def _by(self, key: str) -> int | None:
        """Which shard has claimed a part; None where that cannot be read: then any may make it."""
        try:
            return int(self._ctx.store.get(key))
        except (NotFoundError, ValueError):
            return None

    def _claim(self, index: int) -> bool:
        key = f"{self._prefix}/{index:05d}"
        try:
            self._ctx.store.put(key, str(self._ctx.shard).encode(), if_absent=True)
        except AlreadyExistsError:
            return self._by(key) in (self._ctx.shard, None)
        return True
