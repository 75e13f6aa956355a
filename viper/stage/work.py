"""The loop that all stages made of parts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from viper.stage.context import Row, StageContext

if TYPE_CHECKING:
    import pyarrow as pa

#: Makes part `index`; returns its rows and counters.
MakePart = Callable[[int], tuple[Sequence[Row], Mapping[str, int]]]


def work_parts(ctx: StageContext, phase: str, sizes: Sequence[int], make: MakePart, schema: pa.Schema) -> None:
    """Makes this shard's missing parts. `sizes[i]` are the progress items of part i, which `make` reports itself."""
    mine = range(ctx.shard, len(sizes), ctx.shards)
    pending = ctx.pending(len(sizes))
    done = sum(sizes[i] for i in mine if i not in set(pending))
    ctx.progress.begin(phase, sum(sizes[i] for i in mine), done)
    for index in pending:
        started = ctx.clock()
        rows, counters = make(index)
        ctx.write_part(index, rows, schema, seconds=ctx.clock() - started, counters=counters)
