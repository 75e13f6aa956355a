"""A second, older attempt of a stage with other bits: it sleeps at a write, and a write of the newer one wakes it.

`settings/older` in the store says `{"stage", "sleeps", "wakes"}`; the next program of that stage takes it. The older
attempt runs in a thread of the same process: it goes on to its write number `sleeps`, sleeps until the newer one is
about to do its own number `wakes` (or has ended), and goes on to its end before the newer one does. So two attempts'
writes have the same order each time. The stages leave in store and registry what real ones leave, with the code of the
real ones where it costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from fakes.program import PARTS, ROWS, SCHEMA
from viper.errors import NotFoundError
from viper.evaluation.promotion import promote
from viper.methods.stages import EVALUATE, INGEST, PROMOTE, stage_graph
from viper.registry import ModelVersion, Registry
from viper.stage import Manifest, StageContext
from viper.stage.context import in_order
from viper.store import DirectoryStore, ObjectInfo, ObjectStore, open_store
from viper.training.publishing import publish_curves, publish_model
from viper_jobs.main import main as run_stage
from viper_jobs.main import split_iteration_uri

#: Says that programs are these, and which older attempt comes back.
CHAOS, OLDER = "settings/chaos", "settings/older"
#: What the older attempt left: its exit status; what was there when it woke up; whether it slept, and what woke it.
ENDED, BEFORE, WOKE = "chaos/ended", "chaos/before", "chaos/woke"
#: As `wakes`: it never wakes up, but dies where it would sleep. What was there before it woke up says the same.
DIES = 0
#: What a manifest or record may name, and what an attempt writes for itself.
_OWN = ("/progress/", "/outcome.json")
#: A mover that sleeps with the lock in its hand is waited for (tests/registry): no write to sleep at.
_NO_WRITE = ("locks/", *_OWN[:1])


class Gate:
    """Delegates to a store and calls `before` with the number of each write, from 1."""

    def __init__(self, store: ObjectStore, before: Callable[[int], None]) -> None:
        self._store, self._before, self._writes = store, before, 0

    def write(self, key: str = "") -> None:
        """One more write is about to be done."""
        if not any(name in key for name in _NO_WRITE):
            self._writes += 1
            self._before(self._writes)

    @property
    def uri(self) -> str:
        return self._store.uri

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self.write(key)
        self._store.put(key, data, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        self.write(key)
        self._store.put_file(key, path, if_absent=if_absent, sha256=sha256)

    def get_file(self, key: str, path: Path) -> None:
        self._store.get_file(key, path)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._store.stat(key)

    def sha256(self, key: str) -> str | None:
        return self._store.sha256(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self.write(key)
        self._store.delete(key)


class StoredRegistry:
    """A registry whose versions and aliases are objects below `registry/`, for programs of several processes."""

    def __init__(self, store: ObjectStore, before: Callable[[], None]) -> None:
        self._store, self._before = store, before

    def versions(self, model: str) -> list[ModelVersion]:
        found = [json.loads(self._store.get(o.key)) for o in self._store.list("registry/versions/")]
        return [ModelVersion(model, n, v["uri"], v["digest"], "", v["tags"]) for n, v in enumerate(found, 1)]

    def get(self, model: str, version: int) -> ModelVersion:
        return self.versions(model)[version - 1]

    def register(
        self, model: str, source_uri: str, digest: str, *, run: str | None = None, tags: Mapping[str, str] | None = None
    ) -> int:
        self._before()
        known = next((v for v in self.versions(model) if v.digest == digest), None)
        number = known.version if known is not None else len(self.versions(model)) + 1
        self._write(number, source_uri, digest, {**(known.tags if known else {}), **(tags or {})})
        return number

    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        self._before()
        one = self.get(model, version)
        self._write(version, one.source_uri, one.digest, {**one.tags, **{k: str(v) for k, v in tags.items()}})

    def get_alias(self, model: str, alias: str) -> int | None:
        return int(self._store.get("registry/alias"))

    def promote(
        self, model: str, alias: str, version: int, expected: int | None, *, still: Callable[[], None] = lambda: None
    ) -> None:
        assert self.get_alias(model, alias) in (expected, version)
        still()
        self._store.put("registry/alias", str(version).encode())

    def _write(self, number: int, uri: str, digest: str, tags: Mapping[str, Any]) -> None:
        data = json.dumps({"uri": uri, "digest": digest, "tags": dict(tags)}, sort_keys=True)
        self._store.put(f"registry/versions/{number}", data.encode())


def prepare(store: ObjectStore, stage: str = "", sleeps: int = 0, wakes: int = 0) -> None:
    """Has the programs of a store be these; with a stage, an older attempt of it comes back."""
    store.put(CHAOS, b"")
    store.put("registry/alias", b"1")
    store.put("registry/versions/1", json.dumps({"uri": "file:///model", "digest": "sha256:0", "tags": {}}).encode())
    if stage:
        store.put(OLDER, json.dumps({"stage": stage, "sleeps": sleeps, "wakes": wakes}).encode())


def main(argv: Sequence[str]) -> int:
    """`viper-job` with these stages."""
    store = open_store(split_iteration_uri(argv[argv.index("--iteration") + 1])[0])
    older = None
    with suppress(NotFoundError):
        told = json.loads(store.get(OLDER))
        if told["stage"] == argv[0]:
            store.delete(OLDER)
            older = Older(argv, store, told["sleeps"], told["wakes"])
            older.start()
    try:
        return attempt(argv, 0, older.meet if older else lambda _: None)
    finally:
        if older is not None:
            older.wake("the end")


def attempt(argv: Sequence[str], bits: int, before: Callable[[int], None]) -> int:
    """One attempt; `bits` make its results others, `before` is told each of its writes."""

    def record(ctx: StageContext) -> Callable[[Manifest], None]:
        plain = open_store(ctx.store.uri)
        return lambda made: plain.put(f"registry/recorded/{ctx.stage}/{made.content_digest}", b"")

    return run_stage(argv, program=lambda _: Stage(bits, before), record=record)


class Older:
    """The older attempt."""

    def __init__(self, argv: Sequence[str], store: ObjectStore, sleeps: int, wakes: int) -> None:
        self._argv, self._store, self._sleeps, self._wakes = argv, store, sleeps, wakes
        self._asleep, self._awake, self._slept = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Goes on until it sleeps."""
        self._thread.start()
        self._asleep.wait()

    def meet(self, write: int) -> None:
        """The newer one is about to do this write."""
        if write == self._wakes:
            self.wake(f"write {write}")

    def wake(self, what: str) -> None:
        """Has it go on to its end; once."""
        if not self._awake.is_set():
            there = {o.key: self._store.sha256(o.key) for o in self._store.list("iterations/")}
            named = {key: digest for key, digest in there.items() if not any(own in key for own in _OWN)}
            self._store.put(BEFORE, json.dumps(named).encode())
            self._store.put(WOKE, json.dumps({"slept": self._slept, "woken by": what}).encode())
            self._awake.set()
            self._thread.join()

    def _run(self) -> None:
        with suppress(SystemExit):  # where it dies
            status = attempt(self._argv, 1, self._doze)
            self._store.put(ENDED, str(status).encode())
        self._asleep.set()

    def _doze(self, write: int) -> None:
        if write == self._sleeps:
            self._slept = True
            if self._wakes == DIES:
                sys.exit()
            self._asleep.set()
            self._awake.wait()


class Stage:
    """Any stage, with the objects that real ones leave."""

    def __init__(self, bits: int, before: Callable[[int], None]) -> None:
        self._bits, self._before = bits, before

    def __call__(self, ctx: StageContext) -> Manifest | None:
        gate = Gate(ctx.store, self._before)
        ctx.store = gate
        if manifest := ctx.done():
            return manifest
        if ctx.stage == PROMOTE:
            registry = StoredRegistry(open_store(gate.uri), gate.write)
            return promote(ctx, cast(Registry, registry))
        return in_order(lambda: self._made(ctx))

    def _made(self, ctx: StageContext) -> Manifest | None:
        node = next(n for n in stage_graph(ctx.frozen.iteration.spec.recipe) if n.name == ctx.stage)
        parts = PARTS if any(word in ctx.stage for word in ("ingest", "synth", "validate")) else 0
        total = 0
        for index in range(parts):
            if (record := ctx.part(index)) is None:
                rows = [self._row(ctx, total, index * ROWS + k) for k in range(ROWS)]
                record = ctx.write_part(index, rows, SCHEMA, counters={"train": ROWS}, ordered=True)
            # What follows from a part is read from it: the next part counts on.
            total = sum(row["n"] for row in ctx.table(ctx.stage, record).to_pylist())
        if node.data:
            return ctx.finish(node.needs, outputs=self._trained(ctx))
        if ctx.stage == EVALUATE:
            return ctx.finish(node.needs, outputs=self._evaluated(ctx))
        kept = {"card": ctx.keep("card.json", f"{total}".encode())} if "validate" in ctx.stage else {}
        return ctx.finish(node.needs, parts=parts, outputs=kept)

    def _row(self, ctx: StageContext, total: int, n: int) -> dict[str, Any]:
        accepted = ctx.stage == INGEST or n % 4 != 3
        return {"n": total % 1000 + n + 1000 * self._bits, "accepted": accepted, "reason": "" if accepted else "odd"}

    def _trained(self, ctx: StageContext) -> dict[str, Any]:
        folder = ctx.work_dir / f"model-{self._bits}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(f"{ctx.stage} with bits {self._bits}")
        rollouts = ctx.work_dir / f"rollouts-{self._bits}.jsonl"
        rollouts.write_text(f'{{"bits": {self._bits}}}\n')
        model = publish_model(ctx, folder, (folder, None), [], tokens=1, verify=lambda *_: 0.0)
        curves = publish_curves(ctx, [{"step": 1, "loss": 1.0 + self._bits}])
        kept = ctx.keep_file("rollouts/00000.jsonl", rollouts)
        return {"model": model, "steps": 1, "curves": curves, "rollouts": kept}

    def _evaluated(self, ctx: StageContext) -> dict[str, Any]:
        score = {"n": 10, "correct": 6 + self._bits, "accuracy": 0.6 + self._bits / 10, "low": 0.3, "high": 0.9}
        digest = ctx.manifest("train-operations").outputs["model"]["digest"]
        return {
            "final": "theta2",
            "scores": {"theta0": {"overall": score}, "theta2": {"overall": score}},
            "comparisons": {},
            "checkpoints": {"theta2": digest},
        }


def weights(store: ObjectStore, manifest: Manifest) -> str:
    """What the model of a training stage holds, where its digests agree with its bytes."""
    place = open_store(manifest.outputs["model"]["uri"])
    assert isinstance(place, DirectoryStore)
    listed = json.loads(place.get("digests.json"))
    assert listed["digest"] == manifest.outputs["model"]["digest"]
    for name, file in listed["files"].items():
        assert hashlib.sha256(place.get(name)).hexdigest() == file["sha256"]
    return place.get("model.safetensors").decode()
