"""A folder of photographs through ingest, synthesis and validation, with the photographs that scikit-image bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from support.synthesis import FakeEngines, FakeVlm, context, frozen
from viper.images import decode
from viper.ingest.stage import ingest
from viper.spec.recipe import CATEGORIES
from viper.tasks.captions.synthesis import synthesize_captions
from viper.tasks.captions.validation import validate_captions
from viper.tasks.operations.synthesis import synthesize_operations
from viper.tasks.operations.validation import validate_operations

BUNDLED = Path(skimage.data.__file__).parent
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "camera.png")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six photographs, one of them grey, and what gathers in people's folders: copies, a thumbnail, a broken one."""
    pool = tmp_path / "holiday photos"
    pool.mkdir()
    for name in PHOTOGRAPHS:
        shutil.copy(BUNDLED / name, pool / name)
    shutil.copy(BUNDLED / "coffee.png", pool / "coffee (1).png")
    with Image.open(BUNDLED / "astronaut.png") as image:
        image.save(pool / "astronaut_small.jpg", quality=80)
        image.resize((20, 20)).save(pool / "icon.png")
    (pool / "rocket_broken.jpg").write_bytes((BUNDLED / "rocket.jpg").read_bytes()[:5000])
    (pool / "notes.txt").write_text("buy film")
    return pool


def test_photographs_are_ingested_deduplicated_described_edited_and_validated(
    tmp_path: Path, photographs: Path
) -> None:
    recipe = {
        "schedule": "upfront",
        "partSize": 4,
        "captions": {"reconstructionSize": 512},
        "operations": {"editsPerImage": 2, "categoryBalance": {"mode": "targets"}},
    }
    it = frozen(photographs.as_uri(), recipe, limits={"maxSide": 640})
    pool = ingest(context(tmp_path, "ingest-images", it))
    assert pool is not None
    assert pool.accepted == 6
    assert pool.rejected == {"duplicate": 1, "near-duplicate": 1, "too-small": 1, "unreadable-image": 1}
    vlm = FakeVlm({"critique": lambda r, s, p: json.dumps({"refinement": ["The cup is blue."] if p else []})})
    for stage, program in (
        ("synthesize-captions", synthesize_captions),
        ("validate-captions", lambda ctx, _: validate_captions(ctx)),
        ("synthesize-operations", synthesize_operations),
        ("validate-operations", validate_operations),
    ):
        ctx = context(tmp_path, stage, it)
        assert program(ctx, FakeEngines(ctx, vlm)) is not None
    captions = list(ctx.rows("validate-captions"))
    edits = list(ctx.rows("validate-operations"))
    assert len(captions) == 4, "the first of each part was perfect"
    assert len(edits) == 12
    assert {e["category"] for e in edits} == set(CATEGORIES)
    sides = {c["image_id"]: c["split"] for c in captions}
    assert all(sides.get(e["image_id"], e["split"]) == e["split"] for e in edits)
    sources = {r["image_id"]: r for r in ctx.rows("ingest-images")}
    for edit in edits:
        before, after = decode(edit["image"]), decode(edit["edited"])
        assert before.size == after.size == (sources[edit["image_id"]]["width"], sources[edit["image_id"]]["height"])
        assert max(before.size) <= 640
    untouched = next(r for r in sources.values() if r["source"] == "astronaut.png")
    assert untouched["image"] == (photographs / "astronaut.png").read_bytes()
    card = json.loads(ctx.store.get(f"{ctx.prefix}/{ctx.manifest('validate-operations').outputs['card']}"))
    assert card["funnel"][0]["rejected"] == pool.rejected
    assert card["provenance"]["images"]["uri"] == photographs.as_uri()


def test_the_whole_bundle_including_what_is_not_a_photograph_gives_a_row_for_every_file(tmp_path: Path) -> None:
    it = frozen(str(BUNDLED))
    ctx = context(tmp_path, "ingest-images", it)
    manifest = ingest(ctx)
    assert manifest is not None
    rows = list(ctx.rows("ingest-images", rejected=True))
    assert len(rows) == manifest.outputs["images"] > 20
    assert manifest.accepted >= 15
    assert all(decode(r["image"]).mode == "RGB" for r in rows if r["accepted"])
    assert all(r["reason"] for r in rows if not r["accepted"])
