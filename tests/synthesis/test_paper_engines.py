"""Synthesis and validation with the classes of the paper's engines, on photographs: Qwen2.5-VL by transformers,
`QwenImagePipeline`, `QwenImageEditPipeline`, open_clip; all tiny, all but the language model with random weights."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import skimage.data

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

from engines.test_contracts_smallworld import save_open_clip  # noqa: E402
from engines.tiny_diffusion import save_qwen_image, save_qwen_image_edit  # noqa: E402
from support.shard import Death, preload, run_shard  # noqa: E402
from support.synthesis import context, frozen  # noqa: E402
from viper.images import decode  # noqa: E402
from viper.ingest.stage import ingest  # noqa: E402
from viper.modelcache.resolve import resolve_model  # noqa: E402
from viper.stage import FrozenIteration, Manifest, load_manifest  # noqa: E402
from viper.store import open_store  # noqa: E402

for module in ("viper.engines.transformers_vlm", "viper.engines.qwen_image", "viper.engines.qwen_image_edit"):
    preload(module)

BUNDLED = Path(skimage.data.__file__).parent
PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg")
STAGES = ("synthesize-captions", "validate-captions", "synthesize-operations", "validate-operations")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each engine's model, and the photographs."""
    root = tmp_path_factory.mktemp("models")
    (root / "photographs").mkdir()
    for name in PHOTOGRAPHS:
        shutil.copy(BUNDLED / name, root / "photographs")
    save_qwen_image(root / "qwen-image")
    save_qwen_image_edit(root / "qwen-image-edit")
    (root / "clip").mkdir()
    save_open_clip(root / "clip")
    return root


def prepared(root: Path, models: Path) -> FrozenIteration:
    """An iteration on photographs, ingested; operations by θ0, so that nothing is trained in between."""
    sampling = {"temperature": 0, "maxTokens": 96}
    it = frozen(
        (models / "photographs").as_uri(),
        {
            "schedule": "upfront",
            "partSize": 2,
            "captions": {"reconstructionSize": 64, "captioning": sampling, "critique": sampling},
            "operations": {"proposing": sampling},
            # Random weights draw noise: nothing would pass the filters' own thresholds.
            "validation": {"change": {"maxShare": 1}, "clip": {"minScore": -1}, "judge": {"controls": 1}},
        },
        limits={"maxSide": 96},
        engines={
            "vlm": "transformers",
            "reconstructor": f"qwen-image:{models / 'qwen-image'}",
            "editor": f"qwen-image-edit:{models / 'qwen-image-edit'}",
            "imageSimilarity": f"open-clip:{models / 'clip'}",
            "similarity": "smallworld",
            "reconstruction": {"steps": 2, "dtype": "float32"},
            "editing": {"steps": 2, "guidance": 1, "maxPixels": 4096, "dtype": "float32"},
        },
    )
    starter = resolve_model("smallworld:starter", open_store(models / "store"))
    it = it.model_copy(update=dict.fromkeys(("generator", "critic", "judge", "base"), starter))
    open_store(root / "store").put("iterations/it/iteration.json", it.model_dump_json(by_alias=True).encode())
    assert ingest(context(root, "ingest-images", it)) is not None
    return it


def manifest(root: Path, stage: str) -> Manifest | None:
    return load_manifest(open_store(root / "store"), "iterations/it", stage)


@pytest.mark.timeout(900)
def test_photographs_go_through_all_stages_in_two_shards_of_which_one_is_killed(tmp_path: Path, models: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepared(whole, models)
    it = prepared(killed, models)
    for stage in STAGES:
        assert run_shard(whole, stage, (0, 1)) == 0
    deaths = {
        "synthesize-captions": Death(put="before phases/00002/reconstruct/0000-0000.parquet"),
        "synthesize-operations": Death(put="after phases/00000/edit/0000-0000.parquet"),
    }
    for stage in STAGES:
        shards = 1 if stage == "validate-captions" else 2
        if stage in deaths:
            assert run_shard(killed, stage, (0, shards), deaths[stage]) == -signal.SIGKILL
        for shard in range(shards):
            assert run_shard(killed, stage, (shard, shards)) == 0
    for stage in STAGES:
        first, second = manifest(whole, stage), manifest(killed, stage)
        assert first is not None
        assert second is not None
        assert first.accepted + sum(first.rejected.values()) > 0, stage
        assert second.content_digest == first.content_digest, stage
    ctx = context(killed, "x", it)
    captions = list(ctx.rows("synthesize-captions", rejected=True))
    assert len(captions) == len(PHOTOGRAPHS)
    drawn = [decode(row["reconstruction"]) for row in captions if row["reconstruction"]]
    assert drawn
    assert all(max(image.size) == 64 for image in drawn)
    edits = [row for row in ctx.rows("synthesize-operations", rejected=True) if row["edited"]]
    assert edits
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in ctx.rows("ingest-images")}
    assert all(decode(row["edited"]).size == sizes[row["image_id"]] for row in edits)
    assert all("qwen-image-edit/" in row["passport"] for row in edits)
