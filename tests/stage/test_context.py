"""The stage contract: parts are immutable, the manifest comes last, and every rerun ends in the same manifest."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viper.errors import AlreadyExistsError, NotFoundError, StageError, StoreError, SupersededError
from viper.spec import parse_resource
from viper.spec.iteration import ViperIteration
from viper.stage import FrozenIteration, Manifest, ResolvedModel, StageContext, load_manifest, open_stage
from viper.stage.context import in_order
from viper.stage.frozen import Tracking
from viper.stage.phases import Claims, Draft, Drafts
from viper.store import open_store

SCHEMA = pa.schema([("n", pa.int64()), ("accepted", pa.bool_()), ("reason", pa.string())])


def frozen(name: str = "it", seed: int = 0) -> FrozenIteration:
    iteration = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": name},
            "spec": {
                "model": "small",
                "images": {"uri": "file:///images"},
                "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake"),
                "recipe": {"seed": seed},
            },
        }
    )
    assert isinstance(iteration, ViperIteration)
    model = ResolvedModel(uri="file:///model", digest="d0")
    return FrozenIteration(
        iteration=iteration,
        generator=model,
        base=model,
        critic=model,
        judge=model,
        tracking=Tracking(uri="sqlite://", parent_run="r"),
    )


def context(root: Path, stage: str = "ingest-images", shard: int = 0, shards: int = 1, seed: int = 0) -> StageContext:
    return StageContext(frozen(seed=seed), open_store(str(root / "store")), stage, root / "work", shard, shards)


def rows(index: int) -> list[dict[str, object]]:
    return [{"n": 10 * index + k, "accepted": k != 1, "reason": "too-small" if k == 1 else ""} for k in range(3)]


def work(ctx: StageContext, total: int) -> list[int]:
    done = []
    for index in ctx.pending(total):
        ctx.write_part(index, rows(index), SCHEMA, seconds=0.5, counters={"tries": 2})
        done.append(index)
    return done


def test_a_finished_stage_can_be_read_back(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work(ctx, 2)
    manifest = ctx.finish((), parts=2, outputs={"card": "card.json"})
    assert manifest is not None
    assert (manifest.accepted, manifest.rejected, manifest.counters) == (4, {"too-small": 2}, {"tries": 4})
    assert load_manifest(ctx.store, "iterations/it", "ingest-images") == manifest
    after = context(tmp_path, "synthesize-captions")
    assert [r["n"] for r in after.rows("ingest-images", ["n"])] == [0, 2, 10, 12]
    assert [r["reason"] for r in after.rows("ingest-images", rejected=True)].count("too-small") == 2


def test_no_manifest_before_every_part_is_there(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.write_part(0, rows(0), SCHEMA)
    assert ctx.finish((), parts=2) is None
    assert ctx.done() is None
    with pytest.raises(StageError, match="needs ingest-images, which has no manifest"):
        context(tmp_path, "synthesize-captions").manifest("ingest-images")


def test_a_second_attempt_makes_only_what_is_missing_and_ends_in_the_same_manifest(tmp_path: Path) -> None:
    whole = context(tmp_path / "whole")
    assert work(whole, 5) == [0, 1, 2, 3, 4]
    expected = whole.finish((), parts=5)
    broken = context(tmp_path / "broken")
    for index in (0, 1, 3):
        broken.write_part(index, rows(index), SCHEMA, counters={"tries": 2})
    again = context(tmp_path / "broken")
    assert work(again, 5) == [2, 4]
    manifest = again.finish((), parts=5)
    assert manifest is not None
    assert expected is not None
    assert manifest.content_digest == expected.content_digest


def test_rows_without_their_record_are_not_a_finished_part(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.store.put(f"{ctx.prefix}/parts/00000.parquet", b"torn")
    assert ctx.pending(1) == [0]
    work(ctx, 1)
    assert ctx.finish((), parts=1) is not None
    assert len(list(context(tmp_path, "synthesize-captions").rows("ingest-images"))) == 2


def test_shards_share_the_parts_and_the_last_one_writes_the_manifest(tmp_path: Path) -> None:
    first, second = context(tmp_path, shard=0, shards=2), context(tmp_path, shard=1, shards=2)
    assert work(first, 5) == [0, 2, 4]
    assert first.finish((), parts=5) is None
    assert work(second, 5) == [1, 3]
    manifest = second.finish((), parts=5)
    assert manifest is not None
    alone = context(tmp_path / "alone")
    work(alone, 5)
    expected = alone.finish((), parts=5)
    assert expected is not None
    assert manifest.content_digest == expected.content_digest


def test_finishing_twice_keeps_the_first_manifest(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work(ctx, 1)
    assert ctx.finish((), parts=1) == ctx.finish((), parts=1)


def objects(ctx: StageContext) -> dict[str, bytes]:
    return {info.key: ctx.store.get(info.key) for info in ctx.store.list(ctx.prefix)}


@pytest.mark.parametrize("outputs", [{"x": 1}, {"x": 2}, {}], ids=["the same", "another", "nothing"])
def test_the_manifest_that_is_there_is_the_truth(tmp_path: Path, outputs: dict[str, object]) -> None:
    ctx, late = context(tmp_path), context(tmp_path)
    work(ctx, 1)
    first = ctx.finish((), parts=1, outputs={"x": 1})
    before = objects(ctx)
    late.recorder = lambda manifest: pytest.fail("recorded again")
    late.write_part(0, rows(7), SCHEMA)
    assert late.finish((), parts=1, outputs=outputs) == first == late.done()
    assert (ctx.superseded, late.superseded) == (False, True)
    after = objects(ctx)
    assert {key: after[key] for key in before} == before
    with pytest.raises(SupersededError, match="another attempt has finished this stage"):
        late.give_way()


def test_a_part_keeps_its_rows_when_another_attempt_writes_it_with_others(tmp_path: Path) -> None:
    ctx, late = context(tmp_path), context(tmp_path)
    record = ctx.write_part(0, rows(0), SCHEMA)
    assert late.write_part(0, rows(7), SCHEMA) == record
    ctx.finish((), parts=1)
    assert [r["n"] for r in context(tmp_path, "synthesize-captions").rows("ingest-images")] == [0, 2]


def test_what_follows_from_a_part_follows_from_the_one_that_is_there(tmp_path: Path) -> None:
    ctx, other = context(tmp_path), context(tmp_path)
    tries: list[int] = []

    def counts_on() -> int:
        tries.append(0)
        total = 0
        for index in range(3):
            if (record := ctx.part(index)) is None:
                if index == 1 and len(tries) == 1:
                    other.write_part(1, [{"n": 70 + k, "accepted": True, "reason": ""} for k in range(2)], SCHEMA)
                row = {"n": total + 1, "accepted": True, "reason": ""}
                record = ctx.write_part(index, [row], SCHEMA, ordered=True)
            total += sum(r["n"] for r in ctx.table(ctx.stage, record).to_pylist())
        return total

    assert in_order(counts_on) == 1 + 70 + 71 + 143
    assert len(tries) == 2


def test_what_is_beside_a_part_belongs_to_the_rows_that_are_there(tmp_path: Path) -> None:
    ctx, late = context(tmp_path), context(tmp_path)
    ctx.write_part(0, rows(0), SCHEMA, beside=("about", b"of the first"))
    late.write_part(0, rows(7), SCHEMA, beside=("about", b"of the second"))
    assert ctx.beside("about", 0) == late.beside("about", 0) == b"of the first"
    ctx.write_part(1, rows(1), SCHEMA)
    ctx.store.put(f"{ctx.prefix}/about/00001.json", b"of 0.1.0")
    assert ctx.beside("about", 1) == b"of 0.1.0"
    with pytest.raises(NotFoundError):
        ctx.beside("about", 2)


def test_the_first_draft_of_a_chunk_is_what_later_phases_follow_from(tmp_path: Path) -> None:
    first, second = Drafts(context(tmp_path)), Drafts(context(tmp_path))
    key = first.key(0, "caption", "0000")
    first.put(key, [Draft(0, {"text": "first"})], 1.0)
    second.put(key, [Draft(0, {"text": "second"})], 2.0)
    for drafts in (first, second):
        made, seconds = drafts.read(0, "caption")
        assert (made[0].data, seconds) == ({"text": "first"}, 1.0)


def test_a_draft_that_is_none_is_made_again(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    drafts = Drafts(ctx)
    key = drafts.key(0, "caption", "0000")
    ctx.store.put(key, b"torn")
    with pytest.raises(StoreError, match="is no draft"):
        drafts.read(0, "caption")
    assert drafts.there(0) == set()
    drafts.put(key, [Draft(0, {"text": "again"})], 1.0)
    assert drafts.read(0, "caption")[0][0].data == {"text": "again"}


@pytest.mark.parametrize(
    "held", [b"", b"x", b"\xff", b"1.5", b"{}", b"9" * 5000, b"0"], ids=lambda data: repr(data[:9])
)
@pytest.mark.parametrize("name", ["notes.txt", "", "00001.json", "-1", "9" * 40, "1/2", "00007"])
def test_a_claim_that_is_none_keeps_nobody_from_a_part(tmp_path: Path, held: bytes, name: str) -> None:
    ctx = context(tmp_path, shard=0, shards=2)
    ctx.store.put(f"{ctx.prefix}/claims/2/00000", held)
    ctx.store.put(f"{ctx.prefix}/claims/2/00002", b"1")
    if name:
        ctx.store.put(f"{ctx.prefix}/claims/2/{name}", b"of a person")
    assert Claims(ctx).take([0, 1, 2, 4]) == [0, 4]


@pytest.mark.parametrize("sleeps", ["before it decides", "after it lost", "after it won"])
def test_an_attempt_that_sleeps_while_another_one_decides_and_finishes_records_nothing(
    tmp_path: Path, sleeps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, late = context(tmp_path), context(tmp_path)
    put = late.store.put
    late.recorder = lambda manifest: pytest.fail("recorded again")

    def sleepy(key: str, data: bytes, *, if_absent: bool = False) -> None:
        monkeypatch.undo()
        if sleeps == "after it won":
            put(key, data, if_absent=if_absent)
        elif sleeps == "after it lost":
            # The other one's outcome is there when this one tries, and gone when it looks.
            ctx.finish((), outputs={"x": 1})
            raise AlreadyExistsError("there is one")
        made = ctx.finish((), outputs={"x": 1})
        assert made is not None
        if sleeps == "before it decides":
            put(key, data, if_absent=if_absent)

    monkeypatch.setattr(late.store, "put", sleepy)
    made = late.finish((), outputs={"x": 2})
    assert made is not None
    assert made.outputs == {"x": 2 if sleeps == "after it won" else 1}
    assert made == ctx.done()


@pytest.mark.parametrize("stops", ["before it is recorded", "before it is written"])
def test_what_was_decided_is_what_is_recorded_and_written_whoever_does_it(tmp_path: Path, stops: str) -> None:
    ctx, other = context(tmp_path), context(tmp_path)
    recorded: list[Manifest] = []

    def stop(manifest: Manifest) -> None:
        if stops == "before it is written":
            recorded.append(manifest)
        raise StageError("MLflow is down")

    ctx.recorder, other.recorder = stop, recorded.append
    with pytest.raises(StageError, match="MLflow is down"):
        ctx.finish((), outputs={"x": 1})
    assert ctx.done() is None
    made = other.finish((), outputs={"x": 2})
    assert made is not None
    assert made.outputs == {"x": 1}
    assert {m.content_digest for m in recorded} == {made.content_digest}
    assert other.superseded


def test_a_stage_that_was_decided_is_completed_before_anything_is_made_again(tmp_path: Path) -> None:
    ctx, other = context(tmp_path), context(tmp_path)
    ctx.recorder = lambda manifest: ctx.manifest("synthesize-captions")  # raises: there is none
    with pytest.raises(StageError):
        ctx.finish((), outputs={"x": 1})
    recorded: list[Manifest] = []
    other.recorder = recorded.append
    made = other.complete()
    assert made is not None
    assert (made.outputs, recorded) == ({"x": 1}, [made])
    assert context(tmp_path).complete() == context(tmp_path).done() == made
    assert context(tmp_path / "elsewhere").complete() is None


def test_a_manifest_of_a_program_that_decides_nothing_first_stands(tmp_path: Path) -> None:
    ctx, old = context(tmp_path), context(tmp_path / "old")
    theirs = old.finish((), outputs={"x": 2})
    assert theirs is not None
    ctx.recorder = lambda _: ctx.store.put(f"{ctx.prefix}/manifest.json", json.dumps(theirs.dump()).encode())
    assert ctx.finish((), outputs={"x": 1}) == theirs
    assert ctx.superseded


def test_what_is_kept_is_called_by_its_content(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    (tmp_path / "file").write_bytes(b"1")
    one, same, two = ctx.keep("a/card.json", b"1"), ctx.keep_file("a/card.json", tmp_path / "file"), ctx.keep("n", b"2")
    assert one == same == "a/card-6b86b273ff34fce1.json"
    assert two == "n-d4735e3a265e16ee"
    assert (ctx.store.get(f"{ctx.prefix}/{one}"), ctx.store.get(f"{ctx.prefix}/{two}")) == (b"1", b"2")


def test_the_record_is_made_before_the_manifest_exists(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    seen: list[Manifest | None] = []
    ctx.recorder = lambda manifest: seen.append(ctx.done())
    ctx.finish(())
    assert seen == [None]


def test_a_failing_record_leaves_the_stage_unfinished_and_its_parts_kept(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work(ctx, 1)

    def down(manifest: Manifest) -> None:
        raise StageError("MLflow is down")

    ctx.recorder = down
    with pytest.raises(StageError, match="MLflow is down"):
        ctx.finish((), parts=1)
    assert ctx.done() is None
    again = context(tmp_path)
    assert again.pending(1) == []
    assert again.finish((), parts=1) is not None


def test_changed_bytes_of_a_part_are_noticed(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work(ctx, 1)
    ctx.finish((), parts=1)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows(7), schema=SCHEMA), buffer)
    part = ctx.part(0)
    assert part is not None
    ctx.store.put(f"{ctx.prefix}/{part.key}", buffer.getvalue())
    with pytest.raises(StageError, match="does not have the digest"):
        list(context(tmp_path, "synthesize-captions").rows("ingest-images"))


def test_manifests_of_another_frozen_iteration_are_refused(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    ctx.finish(())
    with pytest.raises(StageError, match="another frozen iteration"):
        context(tmp_path, "synthesize-captions", seed=1).manifest("ingest-images")


@pytest.mark.parametrize("text", ["{", "{}", '{"stage": 3}'])
def test_an_unreadable_manifest_is_not_taken_for_a_missing_one(tmp_path: Path, text: str) -> None:
    ctx = context(tmp_path)
    ctx.store.put(f"{ctx.prefix}/manifest.json", text.encode())
    with pytest.raises(StageError, match="is not a manifest"):
        ctx.done()


def test_a_stage_opens_from_the_store_and_reports_its_progress_there(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    with pytest.raises(StageError, match="there is no such iteration"):
        open_stage(store.uri, "it", "ingest-images", tmp_path / "w")
    store.put("iterations/it/iteration.json", json.dumps(frozen().dump()).encode())
    ctx = open_stage(store.uri, "it", "ingest-images", tmp_path / "w", shard=1, shards=2)
    assert ctx.frozen == frozen()
    ctx.progress.begin("read", 4)
    for _ in range(4):
        ctx.progress.advance()
    written = json.loads(store.get("iterations/it/stages/ingest-images/progress/1-of-2.json"))
    assert (written["phase"], written["done"], written["total"]) == ("read", 4, 4)


def test_timings_do_not_change_the_content_digest(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    work(ctx, 1)
    manifest = ctx.finish((), parts=1)
    assert manifest is not None
    slower = manifest.model_copy(
        update={"seconds": 99.0, "parts": tuple(p.model_copy(update={"seconds": 9.0}) for p in manifest.parts)}
    )
    assert slower.content_digest == manifest.content_digest
    other = manifest.model_copy(update={"counters": {"tries": 3}})
    assert other.content_digest != manifest.content_digest
