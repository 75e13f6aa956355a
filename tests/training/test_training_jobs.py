"""The real stage programs on a tiny model: a few GRPO and SFT steps, selection, MLflow, reload."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_cold_start import sample_file
from training_fakes import open_stage, png

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from viper.errors import StageError  # noqa: E402
from viper.iteration.recording import record_stage  # noqa: E402
from viper.methods.stages import COLD_START, TRAIN_CAPTIONS, TRAIN_OPERATIONS  # noqa: E402
from viper.modelcache.resolve import model_dir  # noqa: E402
from viper.registry import Registry, sqlite_uri  # noqa: E402
from viper.smallworld.model import build_model, build_processor, save  # noqa: E402
from viper.stage import Manifest, ResolvedModel, StageContext  # noqa: E402
from viper.stage.frozen import Tracking  # noqa: E402
from viper.store import open_store  # noqa: E402
from viper.store.transfer import directory_digest  # noqa: E402
from viper.training.verify import verify_model  # noqa: E402
from viper_jobs.programs import cold_start, train  # noqa: E402

ENGINES = {
    "reconstructor": "smallworld",
    "editor": "smallworld",
    "imageSimilarity": "smallworld",
    "similarity": "training_fakes:WordSimilarity",
}


@pytest.fixture(scope="module")
def theta0(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    folder = tmp_path_factory.mktemp("theta0")
    processor = build_processor()
    save(build_model(processor.tokenizer), processor, folder)
    return ResolvedModel(uri=folder.as_uri(), digest=directory_digest(folder))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(sqlite_uri(tmp_path_factory.mktemp("mlflow")))


def stage(folder: Path, name: str, theta0: ResolvedModel, registry: Registry, recipe: Any, **spec: Any) -> StageContext:
    ctx = open_stage(
        open_store(folder / "store"), folder / "work", name, theta0, recipe=recipe, engines=ENGINES, **spec
    )
    run = registry.iteration_run("small", "it", folder.name)
    frozen = ctx.frozen.model_copy(update={"tracking": Tracking(uri=registry.uri, parent_run=run)})
    ctx = StageContext(frozen, ctx.store, ctx.stage, ctx.work_dir)
    ctx.recorder = partial(record_stage, ctx)
    return ctx


def quick(**more: Any) -> dict[str, Any]:
    return {
        "batchPrompts": 4,
        "miniBatchPrompts": 2,
        "groupSize": 2,
        "maxResponseTokens": 8,
        "microBatch": 16,
        "saveEvery": 2,
        "steps": 3,
        "learningRate": 1e-3,
        **more,
    }


def question_file(folder: Path) -> str:
    folder.mkdir()
    rows = []
    for i in range(4):
        (folder / f"{i}.png").write_bytes(png(i))
        row = {"question_id": str(i), "domain": "d", "image": f"{i}.png", "question": "Which?", "answer": "red"}
        rows.append({**row, "set": "selection" if i < 3 else "test"})
    (folder / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return str(folder / "q.jsonl")


def test_train_captions_takes_real_steps_and_selects_by_held_out_perception(
    tmp_path: Path, theta0: ResolvedModel, registry: Registry
) -> None:
    ctx = stage(
        tmp_path,
        TRAIN_CAPTIONS,
        theta0,
        registry,
        {"captions": {"training": quick(select="heldOutPerception")}},
        evaluation={"questions": question_file(tmp_path / "q"), "maxTokens": 8},
    )
    manifest = train(ctx)
    assert isinstance(manifest, Manifest)
    outputs = manifest.outputs
    assert outputs["steps"] == 3
    curves = [json.loads(line) for line in ctx.store.get(f"{ctx.prefix}/{outputs['curves']}").splitlines()]
    assert [row["step"] for row in curves] == [1, 2, 3]
    assert ["held_out/perception" in row for row in curves] == [False, True, True]
    assert directory_digest(model_dir(ctx, TRAIN_CAPTIONS)) == outputs["model"]["digest"]
    rollouts = ctx.store.get(f"{ctx.prefix}/{outputs['rollouts']}").splitlines()
    assert len(rollouts) == 3 * 4 * 2
    assert json.loads(rollouts[0])["sample_id"].startswith("sample-")

    run = registry.find_stage_run(ctx.frozen.tracking.parent_run, TRAIN_CAPTIONS)
    assert run is not None
    points = registry.connection.call("get_metric_history", run, "reward/mean")
    assert sorted(p.step for p in points) == [1, 2, 3]
    assert ctx.complete() == manifest


def test_train_operations_moves_the_weights_and_ends_in_the_same_model_again(
    tmp_path: Path, theta0: ResolvedModel, registry: Registry
) -> None:
    recipe = {"stages": "operations", "operations": {"training": quick()}}
    digests = []
    for name in ("one", "two"):
        manifest = train(stage(tmp_path / name, TRAIN_OPERATIONS, theta0, registry, recipe))
        assert manifest is not None
        digests.append(manifest.outputs["model"]["digest"])
    assert digests[0] == digests[1]
    assert digests[0] != theta0.digest


def test_cold_start_lowers_the_loss(tmp_path: Path, theta0: ResolvedModel, registry: Registry) -> None:
    samples = sample_file(tmp_path / "samples", count=4)
    recipe = {"coldStart": {"samplesUri": str(samples), "batch": 4, "epochs": 6, "learningRate": 1e-2}}
    recipe |= {"captions": {"training": quick(maxResponseTokens=64)}}
    ctx = stage(tmp_path, COLD_START, theta0, registry, recipe)
    manifest = cold_start(ctx)
    assert manifest is not None
    curves = ctx.store.get(f"{ctx.prefix}/{manifest.outputs['curves']}")
    losses = [json.loads(line)["loss"] for line in curves.splitlines()]
    assert len(losses) == manifest.outputs["steps"] == 6
    assert losses[-1] < losses[0]


def test_a_stored_model_with_other_weights_is_found_out(tmp_path: Path, theta0: ResolvedModel) -> None:
    from viper.engines.base import RlSample

    original = Path(theta0.uri.removeprefix("file://"))
    other = tmp_path / "other"
    processor = build_processor()
    save(build_model(processor.tokenizer, seed=1), processor, other)
    probes = [RlSample("a", "Describe the image.", (), ())]
    assert verify_model(original, original, None, probes, 100) == 0
    with pytest.raises(StageError, match="does not agree with the trained one"):
        verify_model(other, original, None, probes, 100)
