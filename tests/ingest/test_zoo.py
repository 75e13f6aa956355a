"""A pool of everything that people have: every file is a right picture, a row with its reason, or counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.image_zoo import LEFT_OUT, Animal, animals, no_plain_files, picture, saved
from support.synthesis import context, frozen
from viper.errors import InputError
from viper.images import Unusable, decode
from viper.ingest.sources import StoreSource, suffix_of
from viper.ingest.stage import ingest
from viper.plan.types import headline
from viper.stage import Manifest
from viper.stage.context import Row
from viper.store import DirectoryStore, ObjectInfo, ObjectStore

ZOO = {animal.name: animal for animal in animals()}
assert len(ZOO) == sum(1 for _ in animals())


class Seen:
    """The zoo as the stage sees it."""

    def __init__(self, root: Path) -> None:
        pool = root / "pool"
        for animal in ZOO.values():
            (pool / animal.name).parent.mkdir(parents=True, exist_ok=True)
            (pool / animal.name).write_bytes(animal.data)
        self.others = no_plain_files(pool)
        it = frozen(str(pool), {"partSize": 64}, limits={"maxSide": 512})
        ctx = context(root, "ingest-images", it)
        manifest = ingest(ctx)
        assert manifest is not None
        self.manifest: Manifest = manifest
        self.rows: dict[str, Row] = {r["source"]: r for r in ctx.rows("ingest-images", rejected=True)}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("animal", [a for a in ZOO.values() if a.listed and not a.reason], ids=lambda a: a.name[:40])
def test_an_image_is_taken_as_a_person_sees_it(zoo: Seen, animal: Animal) -> None:
    row = zoo.rows[animal.name]
    assert (row["accepted"], row["reason"], row["detail"]) == (True, "", "")
    made = decode(row["image"])
    assert (made.mode, made.size) == ("RGB", (row["width"], row["height"]))
    if animal.picture is not None:
        wanted = animal.picture.convert("RGB")
        assert made.size == wanted.size
        assert np.abs(np.asarray(made, int) - np.asarray(wanted, int)).mean() <= animal.off


@pytest.mark.parametrize("animal", [a for a in ZOO.values() if a.reason], ids=lambda a: a.name[:40])
def test_what_is_no_usable_image_is_a_row_that_says_why(zoo: Seen, animal: Animal) -> None:
    row = zoo.rows[animal.name]
    assert (row["accepted"], row["reason"]) == (False, animal.reason)
    assert animal.detail in row["detail"]
    assert 0 < len(row["detail"]) < 300


def test_what_is_no_plain_file_is_a_row_too_and_nothing_waits_for_it(zoo: Seen) -> None:
    for name, (reason, detail) in zoo.others.items():
        assert (zoo.rows[name]["reason"], detail in zoo.rows[name]["detail"]) == (reason, True), zoo.rows[name]


def test_every_other_file_is_counted_and_only_hidden_ones_are_passed_over(zoo: Seen) -> None:
    assert set(zoo.rows) == {a.name for a in ZOO.values() if a.listed} | set(zoo.others)
    assert zoo.manifest.outputs["leftOut"] == LEFT_OUT
    assert headline(zoo.manifest).endswith(
        "; no images by name: 2 .txt, 1 .db, 1 .json, 1 .tar, 1 .zip, 1 links to folders"
    )


def test_every_kept_file_is_one_that_any_reader_opens(zoo: Seen, tmp_path: Path) -> None:
    for row in zoo.rows.values():
        if row["accepted"]:
            path = tmp_path / "image"
            path.write_bytes(row["image"])
            with Image.open(path) as image:
                image.load()
                assert image.size == (row["width"], row["height"])


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jpg", ""),
        ("a.HEIC", ""),
        ("a", ""),
        ("a.", ""),
        ("a.txt", ".txt"),
        ("a.txt/b", ""),
        ("a.jpg/b.csv", ".csv"),
        ("a.jpg:large", ""),
        ("a.jpg?w=1&h=2", ""),
        ("a.001", ""),
        ("a.jpg~", ""),
        ("a.mp4", ".mp4"),
        ("a.parquet", ".parquet"),
        ("a.JSONL", ".jsonl"),
        ("3f2a9c", ""),
    ],
)
def test_what_a_name_says(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "a.zip").write_bytes(b"x")])
def test_a_pool_without_images_says_what_is_there_instead(tmp_path: Path, make: Callable[[Path], object]) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    make(pool)
    words = r"no images, but other files: 1 \.zip" if any(pool.iterdir()) else "there are no images$"
    with pytest.raises(InputError, match=f"(?m){words}"):
        ingest(context(tmp_path, "ingest-images", frozen(str(pool), {})))


def test_many_suffixes_are_counted_in_bounds(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "a.png").write_bytes(saved(picture(1), "PNG"))
    for number in range(50):
        (pool / f"a.x{number}").touch()
    manifest = ingest(context(tmp_path, "ingest-images", frozen(str(pool), {})))
    assert manifest is not None
    assert len(manifest.outputs["leftOut"]) == 21
    assert sum(manifest.outputs["leftOut"].values()) == 50
    assert headline(manifest).endswith("; no images by name: 30 others, 1 .x0, 1 .x1, 1 .x10, 1 .x11, 1 .x12, 15 more")


def test_a_listing_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for name in ("a.png", "b.png"):
        (pool / name).write_bytes(saved(picture(len(name) + ord(name[0])), "PNG"))
    (pool / "notes.txt").touch()
    ctx = context(tmp_path, "ingest-images", frozen(str(pool), {}))
    ctx.store.put(f"{ctx.prefix}/listing.json", b'[\n[\n"b.png",\n-1\n]\n]')
    manifest = ingest(ctx)
    assert manifest is not None
    assert [r["source"] for r in ctx.rows("ingest-images")] == ["b.png"]
    assert "leftOut" not in manifest.outputs


@pytest.mark.parametrize(
    "name",
    [
        "2024//a.jpg",
        "a/../b.jpg",
        "./a.jpg",
        "back\\slash.jpg",
        "new\nline.jpg",
        "x" * 300 + ".jpg",
        "/a.jpg",
        "a/" * 600 + ".jpg",
        ".viper-tmp/a.jpg",
        "gone.png",
    ],
)
def test_an_object_that_cannot_be_had_costs_its_row(store: ObjectStore, name: str) -> None:
    with pytest.raises(Unusable) as problem:
        StoreSource(store).read(name)
    assert problem.value.reason == "unreadable-image"


def test_keys_that_other_stores_allow_are_listed_and_marks_of_folders_are_not() -> None:
    keys = ["2024//a.jpg", "a.png", "hash-of-it", "notes.txt", "photos/", "photos/b.jpg/"]

    class Odd(DirectoryStore):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            return (ObjectInfo(key, 1) for key in keys)

    listing = StoreSource(Odd(Path("unused"))).listing()
    assert [e.name for e in listing.entries] == ["2024//a.jpg", "a.png", "hash-of-it"]
    assert listing.left_out == {".txt": 1}
