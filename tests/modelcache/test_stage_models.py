"""Engines of a stage get local directories, of what the iteration was frozen with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from fakes.hub import FakeHub
from fakes.registry import MemoryRegistry
from viper.cli import main
from viper.errors import InputError, StageError
from viper.iteration.freeze import freeze
from viper.methods.stages import declared
from viper.modelcache import ModelCache
from viper.modelcache.needs import all_models, stage_models
from viper.modelcache.resolve import model_dir
from viper.modelcache.stage import local_spec
from viper.spec import ViperIteration
from viper.stage import ResolvedModel, StageContext
from viper.store import DirectoryStore

HUB = "hf://org/name@main"


def iteration(**engines: Any) -> ViperIteration:
    return world.iteration("it", engines={**world.ENGINES, **engines})


def frozen_with(tmp_path: Path, **engines: Any) -> Any:
    """An iteration of a local θ0, frozen into a directory store."""
    folder = tmp_path / "theta0"
    if not folder.exists():
        world.model(folder)
    spec = {"generator": {"alias": "generator", "initialUri": folder.as_uri()}}
    one = world.iteration("it", engines={**world.ENGINES, **engines}, **spec)
    return freeze(one, DirectoryStore(tmp_path / "store"), MemoryRegistry()).iteration  # type: ignore[arg-type]


def test_freezing_pins_the_commit_and_every_stage_loads_it(hub: FakeHub, cache: ModelCache, tmp_path: Path) -> None:
    commit = hub.branches["org/name", "main"]
    frozen = frozen_with(tmp_path, reconstructor=f"qwen-image:{HUB}", editing={"lora": HUB})
    assert frozen.weights[HUB].uri == f"hf://org/name@{commit}"
    assert hub.downloads == []
    hub.commit("org/name", {"model_index.json": b"another"})
    engines = local_spec(frozen, "reconstructor").engines
    name, _, place = engines.reconstructor.partition(":")
    assert name == "qwen-image"
    assert (Path(place) / "model_index.json").read_bytes() == b"{}"
    assert engines.editing.lora == HUB
    assert local_spec(frozen, "editor").engines.editing.lora == place


def test_engines_without_a_uri_stay_as_they_are(cache: ModelCache, tmp_path: Path) -> None:
    frozen = frozen_with(
        tmp_path, imageSimilarity=f"open-clip:{tmp_path}", editor="viper.smallworld.editor:SmallWorldEditor"
    )
    assert frozen.weights == {}
    assert local_spec(frozen, "image_similarity", "editor") is frozen.iteration.spec


def test_other_weights_than_the_iteration_was_frozen_with_are_refused(
    hub: FakeHub, cache: ModelCache, tmp_path: Path
) -> None:
    frozen = frozen_with(tmp_path, reconstructor=f"qwen-image:{HUB}")
    pinned = frozen.weights[HUB].model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(StageError, match="the weights have changed"):
        local_spec(frozen.model_copy(update={"weights": {HUB: pinned}}), "reconstructor")


def test_an_iteration_that_an_earlier_version_froze_is_read_and_keeps_its_identity(tmp_path: Path) -> None:
    frozen = frozen_with(tmp_path)
    old = frozen.dump()
    del old["weights"]
    again = type(frozen).of(old)
    assert again.weights == {}
    assert again.identity == type(frozen).of(json.loads(json.dumps(old))).identity != frozen.identity


def test_a_branch_that_cannot_be_resolved_names_the_field(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"spec\.engines\.reconstruction\.lora, hf://org/name@main: is not in"):
        frozen_with(tmp_path, reconstruction={"lora": HUB})


def test_theta0_of_the_hub_goes_into_the_store(hub: FakeHub, cache: ModelCache, tmp_path: Path) -> None:
    folder = world.model(tmp_path / "model", b"w" * 2000)
    hub.commit("org/vlm", {p.name: p.read_bytes() for p in folder.iterdir()})
    one = world.iteration("it", generator={"alias": "generator", "initialUri": "hf://org/vlm"})
    store = DirectoryStore(tmp_path / "store")
    frozen = freeze(one, store, MemoryRegistry()).iteration  # type: ignore[arg-type]
    assert frozen.generator.uri.startswith(store.uri)
    hub.close()
    place = model_dir(StageContext(frozen, store, "synthesize-captions", tmp_path), frozen.generator)
    assert (place / "model.safetensors").read_bytes() == b"w" * 2000


def test_what_each_stage_needs() -> None:
    spec = iteration(
        reconstructor=f"qwen-image:{HUB}",
        editor="omnigen2:s3://bucket/editor",
        similarity="bge-m3:models:/bge@live",
        vlm="openai:http://x",
    ).spec
    assert stage_models(spec, declared("synthesize-captions")) == {"spec.engines.reconstructor": HUB}
    assert stage_models(spec, declared("synthesize-operations")) == {"spec.engines.editor": "s3://bucket/editor"}
    assert stage_models(spec, declared("train-captions")) == {"spec.engines.similarity": "models:/bge@live"}
    assert stage_models(spec, declared("ingest-images")) == {}
    assert list(all_models(spec)) == ["spec.engines.reconstructor", "spec.engines.editor", "spec.engines.similarity"]


def test_pull_fetches_all_models_of_a_file_and_list_shows_them(
    hub: FakeHub, cache: ModelCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.commit("org/lora", {"lora.safetensors": b"l" * 5000})
    file = tmp_path / "it.yaml"
    one = iteration(reconstructor=f"qwen-image:{HUB}", editing={"lora": "hf://org/lora"})
    file.write_text(json.dumps(one.dump()))
    assert main(["models", "pull", str(file)]) == 0
    assert [e.uri for e in cache.entries() if e.uri != e.pinned] == ["hf://org/lora", HUB]
    capsys.readouterr()
    assert main(["models", "list", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in rows} == {"ok"}
    weights = Path(rows[-1]["path"]) / "transformer/diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"")
    assert main(["models", "list"]) == 1
    assert "damaged: transformer/diffusion_pytorch_model.safetensors" in capsys.readouterr().out
    assert main(["models", "pull", HUB]) == 0
    assert main(["models", "list", "--verify"]) == 0


def test_the_container_before_a_stage_pulls_what_the_frozen_iteration_pins(
    hub: FakeHub, cache: ModelCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = frozen_with(tmp_path, reconstructor=f"qwen-image:{HUB}")
    place = f"{DirectoryStore(tmp_path / 'store').uri}/{frozen.prefix}"
    hub.commit("org/name", {"model_index.json": b"another"})
    assert main(["models", "pull", "--iteration", place, "--stage", "synthesize-captions"]) == 0
    assert cache.entries()[0].pinned == frozen.weights[HUB].uri
    assert main(["models", "pull", "--iteration", place, "--stage", "ingest-images"]) == 0
    assert "needs no model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name files or URIs"),
        (["--stage", "evaluate"], "name files or URIs"),
        (["nothing.yaml"], "neither the URI of a model nor a file"),
        (["ftp://x"], "neither the URI of a model nor a file"),
    ],
)
def test_pull_says_what_it_takes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", *arguments]) in (2, 3)
    assert message in capsys.readouterr().err


def test_the_container_before_a_stage_leaves_its_last_error(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    log = tmp_path / "termination-log"
    assert main(["models", "pull", "--termination-log", str(log), HUB]) == InputError.exit_code
    left = json.loads(log.read_text())
    assert left["reason"] == "InputError"
    assert "viper models pull" in left["message"]


def test_resolved_models_of_another_content_are_refused(cache: ModelCache, tmp_path: Path) -> None:
    frozen = frozen_with(tmp_path)
    ctx = StageContext(frozen, DirectoryStore(tmp_path / "store"), "synthesize-captions", tmp_path)
    with pytest.raises(StageError, match="the model has changed"):
        model_dir(ctx, ResolvedModel(uri=frozen.generator.uri, digest="sha256:0"))


@pytest.mark.parametrize(("similarity", "needed"), [(None, {}), (0.95, {"spec.engines.imageSimilarity": HUB})])
def test_taking_in_images_needs_clip_where_near_duplicates_are_looked_for_by_it(
    similarity: float | None, needed: dict[str, str]
) -> None:
    recipe = {"stages": "captions", "validation": {"nearDuplicateSimilarity": similarity}}
    spec = world.iteration("it", engines={**world.ENGINES, "imageSimilarity": f"open-clip:{HUB}"}, recipe=recipe).spec
    assert stage_models(spec, declared("ingest-images")) == needed
    assert all_models(spec) == needed
