"""The stage: folders, stores and scenes in; unique images, and a row for everything that is not one, out."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from support.synthesis import FakeClip, FakeEngines, context, frozen, interrupt_after
from viper.errors import InputError, SpecError
from viper.images import decode, encode_png
from viper.ingest.sources import open_source
from viper.ingest.stage import ImageRow, ingest
from viper.smallworld.questions import is_held_out, questions
from viper.smallworld.scenes import scene_from_seed
from viper.smallworld.supply import SceneSource
from viper.stage import Manifest, StageContext
from viper.stage.context import Row
from viper.store import ObjectStore, child_uri


def noise(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def folder(root: Path, count: int = 6) -> Path:
    pool = root / "pool"
    (pool / "more").mkdir(parents=True)
    for i in range(count):
        noise(i).save(pool / ("more" if i % 2 else ".") / f"{i}.png")
    return pool


def run(
    root: Path, uri: str, recipe: dict[str, Any] | None = None, **limits: Any
) -> tuple[Manifest, StageContext, list[Row]]:
    ctx = context(root, "ingest-images", frozen(uri, {"partSize": 4, **(recipe or {})}, limits=limits))
    manifest = ingest(ctx)
    assert manifest is not None
    return manifest, ctx, list(ctx.rows("ingest-images", rejected=True))


def test_a_folder_is_read_with_its_subfolders_in_the_order_of_names(tmp_path: Path) -> None:
    pool = folder(tmp_path)
    manifest, _, rows = run(tmp_path, pool.as_uri())
    assert [r["source"] for r in rows] == ["0.png", "2.png", "4.png", "more/1.png", "more/3.png", "more/5.png"]
    assert [p.rows for p in manifest.parts] == [4, 2]
    assert manifest.accepted == 6
    assert rows[0]["image"] == (pool / "0.png").read_bytes()
    assert rows[0]["bytes"] == len(rows[0]["image"])


def test_what_is_no_image_by_name_is_not_looked_at(tmp_path: Path) -> None:
    pool = folder(tmp_path, 1)
    for name in ("notes.txt", ".hidden.png", "._0.png", "Thumbs.db"):
        (pool / name).write_bytes(b"x")
    (pool / ".cache").mkdir()
    noise(7).save(pool / ".cache" / "7.png")
    noise(8).save(pool / "LOUD.PNG")
    assert [r["source"] for r in run(tmp_path, str(pool))[2]] == ["0.png", "LOUD.PNG"]


def bomb() -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [head, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def test_every_bad_file_is_a_row_with_its_reason_and_the_others_are_not_lost(tmp_path: Path) -> None:
    pool = folder(tmp_path, 3)
    good = encode_png(noise(9))
    (pool / "bad-corrupt.png").write_bytes(good[:400] + b"\0" * 40 + good[440:])
    (pool / "bad-truncated.jpg").write_bytes(good[: len(good) // 2])
    (pool / "bad-zero.jpg").touch()
    (pool / "bad-text.png").write_text("hello")
    (pool / "bad-huge.png").write_bytes(bomb())
    (pool / "bad-tiny.png").write_bytes(encode_png(noise(1, 16, 64)))
    (pool / "bad-link.png").symlink_to(pool / "nowhere.png")
    (pool / "bad-folder.png").mkdir()
    manifest, _, rows = run(tmp_path, str(pool))
    reasons = {r["source"]: r["reason"] for r in rows if not r["accepted"]}
    assert reasons == {
        "bad-corrupt.png": "unreadable-image",
        "bad-truncated.jpg": "unreadable-image",
        "bad-zero.jpg": "empty-file",
        "bad-text.png": "unreadable-image",
        "bad-huge.png": "too-large",
        "bad-tiny.png": "too-small",
        "bad-link.png": "unreadable-image",
    }
    assert all(r["detail"] for r in rows if not r["accepted"])
    assert manifest.accepted == 3


def test_a_file_too_long_for_any_allowed_image_is_not_even_read(tmp_path: Path) -> None:
    pool = folder(tmp_path, 1)
    with (pool / "sparse.tif").open("wb") as file:
        file.truncate(40 << 30)
    assert run(tmp_path, str(pool))[0].rejected == {"too-large": 1}


def test_palette_cmyk_and_rotated_photographs_are_accepted_as_upright_rgb(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(1).convert("P").save(pool / "palette.png")
    noise(2).convert("CMYK").save(pool / "cmyk.jpg")
    noise(3, 80, 60).save(pool / "rotated.jpg", exif=exif)
    manifest, _, rows = run(tmp_path, str(pool))
    assert (manifest.accepted, manifest.counters["images.reencoded"]) == (3, 3)
    assert {r["source"]: decode(r["image"]).size for r in rows}["rotated.jpg"] == (60, 80)
    assert all(decode(r["image"]).mode == "RGB" and (r["width"], r["height"]) == decode(r["image"]).size for r in rows)


def test_exact_duplicates_are_found_across_parts_and_formats(tmp_path: Path) -> None:
    pool = folder(tmp_path, 5)
    noise(0).save(pool / "z-again.bmp")
    noise(0).save(pool / "z-again.png")
    manifest, _, rows = run(tmp_path, str(pool))
    assert manifest.rejected == {"duplicate": 2}
    last = rows[-1]
    assert (last["image"], last["detail"]) == (b"", "the same pixels as 0.png")


def test_near_duplicates_are_rejected_within_the_distance_and_kept_for_inspection(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    from skimage.data import astronaut, coffee

    Image.fromarray(astronaut()).save(pool / "a.png")
    Image.fromarray(astronaut()).save(pool / "b.jpg", quality=60)
    Image.fromarray(coffee()).save(pool / "c.png")
    manifest, _, rows = run(tmp_path, str(pool))
    assert manifest.rejected == {"near-duplicate": 1}
    assert (rows[1]["detail"], bool(rows[1]["image"])) == ("looks like a.png", True)
    off, _, _ = run(tmp_path / "off", str(pool), {"validation": {"nearDuplicateDistance": -1}})
    assert off.rejected == {}


def test_offset_and_limit_choose_sources_by_name(tmp_path: Path) -> None:
    pool = folder(tmp_path)
    assert [r["source"] for r in run(tmp_path, str(pool), offset=2, limit=2)[2]] == ["4.png", "more/1.png"]


def test_no_images_is_an_error_that_names_the_folder_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    with pytest.raises(InputError, match=r"pool: there are no images\n.*put images there"):
        run(tmp_path, str(tmp_path / "pool"))
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path, str(tmp_path / "elsewhere"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file, not a folder"):
        run(tmp_path, str(tmp_path / "file"))


def test_an_offset_beyond_the_pool_says_how_many_images_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 6 images.*skips 10"):
        run(tmp_path, str(folder(tmp_path)), offset=10)


@pytest.mark.parametrize("uri", ["http://example.org/images", "smallworld:scenes", "smallworld:things?count=3"])
def test_an_unknown_pool_is_a_mistake_in_the_specification(uri: str) -> None:
    with pytest.raises(SpecError, match=r"spec\.images\.uri"):
        open_source(uri)


@pytest.mark.parametrize("query", ["count=0", "count=x", "count=3&seed=x", "count=3&sead=1", "count=3&seed=500"])
def test_scene_pools_are_checked(query: str) -> None:
    with pytest.raises(SpecError):
        open_source(f"smallworld:scenes?{query}")


def test_scenes_are_drawn_the_same_every_time_and_different_for_another_seed(tmp_path: Path) -> None:
    runs = [run(tmp_path / n, f"smallworld:scenes?count=5&seed={s}")[2] for n, s in (("a", 1), ("b", 1), ("c", 2))]
    ids = [[r["image_id"] for r in rows] for rows in runs]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_only_the_scenes_of_offset_and_limit_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    read = SceneSource.read
    monkeypatch.setattr(SceneSource, "read", lambda self, name: drawn.append(name) or read(self, name))
    run(tmp_path, "smallworld:scenes?count=1000000&seed=1", offset=999_990, limit=3)
    assert sorted(drawn) == ["scene-001999990", "scene-001999991", "scene-001999992"]


def test_a_scene_of_a_held_out_question_never_enters_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = questions("test")[0].scene
    assert is_held_out(asked)
    monkeypatch.setattr("viper.smallworld.supply.scene_from_seed", lambda n: asked if n == 2 else scene_from_seed(n))
    manifest, _, rows = run(tmp_path, "smallworld:scenes?count=4")
    assert manifest.rejected == {"held-out-scene": 1}
    assert rows[2]["image"] == b""


def test_files_that_come_and_go_later_change_nothing(tmp_path: Path) -> None:
    pool = folder(tmp_path)
    whole, _, _ = run(tmp_path / "whole", str(pool))
    ctx = context(tmp_path, "ingest-images", frozen(str(pool), {"partSize": 4}))
    write, written = ctx.write_part, []

    def stop_after_one(index: int, *arguments: Any, **options: Any) -> Any:
        if written:
            raise KeyboardInterrupt
        written.append(index)
        return write(index, *arguments, **options)

    ctx.write_part = stop_after_one  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        ingest(ctx)
    noise(99).save(pool / "00-new.png")
    again, _, _ = run(tmp_path, str(pool))
    assert again.content_digest == whole.content_digest


def test_resuming_remembers_the_images_of_finished_parts(tmp_path: Path) -> None:
    pool = folder(tmp_path, 5)
    shutil.copy(pool / "0.png", pool / "z.png")
    whole, ctx, _ = run(tmp_path, str(pool))
    assert whole.rejected == {"duplicate": 1}
    for name in ("manifest.json", "parts/00001.json", whole.parts[1].key):
        ctx.store.delete(f"{ctx.prefix}/{name}")
    assert run(tmp_path, str(pool))[0].content_digest == whole.content_digest


def test_duplicates_are_told_from_the_part_that_another_attempt_wrote(tmp_path: Path) -> None:
    pool = folder(tmp_path, 5)
    shutil.copy(pool / "0.png", pool / "z.png")
    whole, _, _ = run(tmp_path / "whole", str(pool))
    assert whole.rejected == {"duplicate": 1}
    ctx = context(tmp_path, "ingest-images", frozen(str(pool), {"partSize": 4}))
    write, turns = ctx.write_part, list[int]()

    def overtaken(index: int, rows: list[ImageRow], *arguments: Any, **options: Any) -> Any:
        if not turns:  # the other one could not read the first image: then its copy is no duplicate
            broken = replace(rows[0], image=b"", accepted=False, reason="unreadable-image")
            other = context(tmp_path, "ingest-images", ctx.frozen)
            other.write_part(index, [broken, *rows[1:]], *arguments)
        turns.append(index)
        return write(index, rows, *arguments, **options)

    ctx.write_part = overtaken  # type: ignore[method-assign]
    manifest = ingest(ctx)
    assert manifest is not None
    assert (manifest.rejected, turns) == ({"unreadable-image": 1}, [0, 1])
    assert {r["source"] for r in ctx.rows("ingest-images")} >= {"z.png"}


def test_further_shards_leave_ingest_to_the_first(tmp_path: Path) -> None:
    it = frozen(str(folder(tmp_path)))
    assert ingest(context(tmp_path, "ingest-images", it, 1, 2)) is None
    assert ingest(context(tmp_path, "ingest-images", it, 0, 2)) is not None


def test_images_in_an_object_store_are_read_like_a_folder(tmp_path: Path, store: ObjectStore) -> None:
    for i in range(3):
        store.put(f"photos/{i}.png", encode_png(noise(i)))
    store.put("photos/readme.txt", b"x")
    store.put("photos/broken.png", b"x")
    uri = child_uri(store.uri, "photos")
    manifest, _, rows = run(tmp_path / "run", uri)
    assert [r["source"] for r in rows] == ["0.png", "1.png", "2.png", "broken.png"]
    assert manifest.rejected == {"unreadable-image": 1}


def test_a_name_that_is_not_valid_unicode_is_read_and_shown(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (pool / name).write_bytes(encode_png(noise(1)))
    (row,) = run(tmp_path, str(pool))[2]
    assert row["accepted"]
    assert row["source"].startswith("caf")


def test_the_listing_is_stored_once(tmp_path: Path) -> None:
    _, ctx, _ = run(tmp_path, str(folder(tmp_path, 2)))
    assert [name for name, _ in json.loads(ctx.store.get(f"{ctx.prefix}/listing.json"))["entries"]] == [
        "0.png",
        "more/1.png",
    ]


def test_images_that_a_model_finds_alike_are_near_duplicates_also_after_a_restart(tmp_path: Path) -> None:
    """A picture and its mirror image have nothing in common for a perceptual hash."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for i in range(5):
        noise(i).save(pool / f"{i}.png")
    ImageOps.mirror(noise(1)).save(pool / "9.png")
    it = frozen(str(pool), {"partSize": 2, "validation": {"nearDuplicateSimilarity": 0.99}})

    def embed(image: Image.Image) -> list[float]:
        flat = np.asarray(image, np.float32).mean(axis=2)
        both = (flat + flat[:, ::-1]).ravel() - 2 * flat.mean()  # blind to mirroring
        return [float(value) for value in both / np.linalg.norm(both)]

    rows = []
    for name, stop in (("whole", 9), ("stopped", 2)):
        ctx = context(tmp_path / name, "ingest-images", it)
        if stop < 3:
            interrupt_after(ctx, stop)
            with pytest.raises(KeyboardInterrupt):
                ingest(ctx, FakeEngines(ctx, image_similarity=FakeClip(embed)))
            ctx = context(tmp_path / name, "ingest-images", it)
        assert ingest(ctx, FakeEngines(ctx, image_similarity=FakeClip(embed))) is not None
        rows.append([(r["source"], r["reason"], r["detail"]) for r in ctx.rows("ingest-images", rejected=True)])
    assert rows[0] == rows[1]
    assert rows[0][-1] == ("9.png", "near-duplicate", "looks like 1.png")
    assert [reason for _, reason, _ in rows[0][:-1]] == [""] * 5
