"""What cannot work is refused before anything is frozen: with its field, with what to write instead, and for good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from fakes.registry import MemoryRegistry
from viper.errors import ViperError
from viper.iteration.freeze import freeze
from viper.plan import PERMANENT_EXIT_CODES
from viper.spec.packed import pack, variables
from viper.stage import load_frozen
from viper.store import DirectoryStore
from viper_jobs.freeze import VARIABLE, main


def engines(**names: str) -> dict[str, Any]:
    return {"engines": {**world.ENGINES, **names}}


def recipe(**fields: Any) -> dict[str, Any]:
    return {"recipe": fields}


def benchmarks(datasets: str) -> dict[str, Any]:
    return {"evaluation": {"benchmarks": {"tasks": {"mmstar": {}}, "datasets": datasets}}}


#: What anybody can tell who knows the release: field, and words of the message or its remedy.
NAMES: dict[str, tuple[dict[str, Any], str, str]] = {
    "an editor that nobody knows": (engines(editor="photoshop"), "spec.engines.editor", "qwen-image-edit"),
    "nearly an editor": (engines(editor="omnigen"), "spec.engines.editor", "did you mean 'omnigen2'"),
    "an editor in capitals": (engines(editor="OmniGen2"), "spec.engines.editor", "did you mean 'omnigen2'"),
    "an editor with a place": (engines(editor="photoshop:/models/x"), "spec.engines.editor", "no engine 'photoshop:"),
    "a VLM that nobody knows": (engines(vlm="gpt-9"), "spec.engines.vlm", "transformers, vllm"),
    "nearly a VLM": (engines(vlm="vlllm"), "spec.engines.vlm", "did you mean 'vllm'"),
    "a model as engine": (engines(vlm="Qwen/Qwen2.5-VL-7B-Instruct"), "spec.engines.vlm", "the name of an engine"),
    "an endpoint without address": (engines(vlm="openai"), "spec.engines.vlm", "write openai:https://host/v1"),
    "a VLM with a model of its own": (engines(vlm="vllm:/models/qwen"), "spec.engines.vlm", "spec.generator"),
    "a reconstructor that nobody knows": (engines(reconstructor="dall-e"), "spec.engines.reconstructor", "qwen-image"),
    "a reconstructor without its model": (
        engines(reconstructor="qwen-image"),
        "spec.engines.reconstructor",
        "write qwen-image:/directory",
    ),
    "the small world with a model": (engines(editor="smallworld:/models/x"), "spec.engines.editor", "takes no model"),
    "an embedder that nobody knows": (engines(similarity="bge-m4"), "spec.engines.similarity", "did you mean 'bge-m3'"),
    "a CLIP that nobody knows": (engines(imageSimilarity="clip"), "spec.engines.imageSimilarity", "open-clip"),
    "a CLIP without its model": (
        engines(imageSimilarity="open-clip:"),
        "spec.engines.imageSimilarity",
        "name:directory-of-its-model",
    ),
    "weights of no known kind": (
        engines(imageSimilarity="open-clip:gs://b/clip"),
        "spec.engines.imageSimilarity",
        "no models of kind gs://",
    ),
    "half a model of the hub": (engines(similarity="bge-m3:hf://BAAI"), "spec.engines.similarity", "hf://org/name"),
    "half a registered model": (
        engines(similarity="bge-m3:models:/x"),
        "spec.engines.similarity",
        "models:/name@alias",
    ),
    "a LoRA of no known kind": (
        {"engines": {**world.ENGINES, "editing": {"lora": "http://host/lora"}}},
        "spec.engines.editing.lora",
        "hf://org/name",
    ),
    "a trainer that nobody knows": (engines(trainer="ppo"), "spec.engines.trainer", "trl, verl"),
    "nearly a trainer": (engines(trainer="Verl"), "spec.engines.trainer", "did you mean 'verl'"),
    "a trainer with a place": (engines(trainer="verl:/x"), "spec.engines.trainer", "did you mean 'verl'"),
    "prompts elsewhere": (recipe(prompts="../../etc"), "spec.recipe.prompts", "letters, digits"),
    "prompts above": (recipe(prompts=".."), "spec.recipe.prompts", "letters, digits"),
    "nearly a prompt set": (recipe(prompts="smalworld"), "spec.recipe.prompts", "did you mean 'smallworld'"),
    "a module as prompts": (recipe(prompts="__pycache__"), "spec.recipe.prompts", "letters, digits"),
    "images of the web": ({"images": {"uri": "http://host/i"}}, "spec.images.uri", "s3://bucket/prefix"),
    "images of another cloud": ({"images": {"uri": "gs://b/i"}}, "spec.images.uri", "s3://bucket"),
    "scenes that are none": ({"images": {"uri": "smallworld:scenes?count=x"}}, "spec.images.uri", "count=N&seed=S"),
    "held-out scenes": ({"images": {"uri": "smallworld:scenes?count=9&seed=999"}}, "spec.images.uri", "below 500"),
    "images of a broken address": ({"images": {"uri": "s3://[b/i"}}, "spec.images.uri", ""),
    "more shards than images": (
        {
            "images": {"uri": "file:///i", "limit": 24},
            "profile": {"stages": {"synthesize-captions": {"shards": 1024}}},
        },
        "profile.stages.synthesize-captions.shards",
        "lower it",
    ),
    "more shards than scenes": (
        {
            "images": {"uri": "smallworld:scenes?count=1"},
            "profile": {"stages": {"validate-operations": {"shards": 2}}},
        },
        "profile.stages.validate-operations.shards",
        "lower it",
    ),
    "a generator of the web": ({"generator": {"uri": "https://host/m"}}, "spec.generator.uri", "hf://org/name"),
    "a generator by its name": (
        {"generator": {"uri": "Qwen/Qwen2.5-VL"}},
        "spec.generator.uri",
        "smallworld:starter",
    ),
    "a first version of no kind": (
        {"generator": {"alias": "generator", "initialUri": "smallworld:begin"}},
        "spec.generator.initialUri",
        "smallworld:starter",
    ),
    "a critic that is no role": (
        recipe(models={"critic": "basis"}),
        "spec.recipe.models.critic",
        "generator, base",
    ),
    "a judge by its name": (
        recipe(models={"judge": "org/judge"}),
        "spec.recipe.models.judge",
        "generator, base",
    ),
    "questions of the web": (
        {"evaluation": {"questions": "http://host/q.jsonl"}},
        "spec.evaluation.questions",
        "s3://",
    ),
    "questions of the hub": ({"evaluation": {"questions": "hf://o/q"}}, "spec.evaluation.questions", "file:///file"),
    "a question set that is none": (
        {"evaluation": {"questions": "smallworld:riddles"}},
        "spec.evaluation.questions",
        "smallworld:questions",
    ),
    "no questions to choose by": (
        recipe(captions={"training": {"select": "heldOutPerception"}}),
        "spec.evaluation.questions",
        "heldOutReward",
    ),
    "lessons of the web": (
        recipe(coldStart={"samplesUri": "ftp://host/c.jsonl"}),
        "spec.recipe.coldStart.samplesUri",
        "s3://bucket",
    ),
    "samples of the web": (
        recipe(external={"uri": "https://host/e.parquet"}),
        "spec.recipe.external.uri",
        "s3://bucket",
    ),
    "benchmarks of the web": (
        benchmarks("https://host/d"),
        "spec.evaluation.benchmarks.datasets",
        "or hub",
    ),
    "benchmarks of no bucket": (benchmarks("s3://"), "spec.evaluation.benchmarks.datasets", "s3://bucket"),
    "a model that MLflow has no name for": ({"model": ".."}, "spec.model", "must not"),
    "a version that is not there": ({"generator": {"version": 7}}, "spec.generator.version", "no version 7"),
    "an alias that leads nowhere": ({"generator": {"alias": "best"}}, "spec.generator.alias", "initialUri"),
}

#: What only who has the machine of the stages can tell.
PLACES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a module that is not there": (engines(editor="no.such.module:Editor"), "spec.engines.editor", "no module"),
    "a module without that class": (
        engines(editor="viper.engines.names:Editor"),
        "spec.engines.editor",
        "has no Editor",
    ),
    "nearly a class": (
        engines(editor="viper.smallworld.editor:SmallworldEditor"),
        "spec.engines.editor",
        "it has SmallWorldEditor",
    ),
    "weights that are not there": (
        engines(imageSimilarity="open-clip:/nowhere/clip"),
        "spec.engines.imageSimilarity",
        "/nowhere/clip",
    ),
    "a LoRA that is not there": (
        {"engines": {**world.ENGINES, "editing": {"lora": "/nowhere/lora"}}},
        "spec.engines.editing.lora",
        "/nowhere/lora",
    ),
    "questions that are not there": (
        {"evaluation": {"questions": "/nowhere/q.jsonl"}},
        "spec.evaluation.questions",
        "no such file",
    ),
    "data sets that are not there": (benchmarks("hubb"), "spec.evaluation.benchmarks.datasets", "did you mean 'hub'"),
}
#: Pods of stages that are not made as the one that freezes.
OTHER_IMAGE = {
    "stages": {
        name: {"image": "registry.example/stage:1"}
        for name in ("synthesize-operations", "validate-operations", "evaluate")
    }
}


def program(tmp_path: Path, data: dict[str, Any]) -> tuple[int, str]:
    """Exit status and last words of `viper-freeze`."""
    environment = variables(VARIABLE, pack(json.dumps(data), "it"))
    where = ["--store", (tmp_path / "store").as_uri(), "--tracking", "sqlite:////memory.db"]
    log = tmp_path / "end.json"
    status = main(
        [*where, "--termination-log", str(log)],
        environment=environment,
        registry=lambda _: MemoryRegistry(),  # type: ignore[arg-type,return-value]
    )
    return status, json.loads(log.read_text())["message"] if log.exists() else ""


def resource(tmp_path: Path, spec: dict[str, Any]) -> dict[str, Any]:
    generator = {"alias": "generator", "initialUri": world.model(tmp_path / "model").as_uri()}
    plain = world.iteration("it", generator=generator).model_dump(mode="json", by_alias=True)
    return {**plain, "spec": {**plain["spec"], **spec}}  # as a Job gets it, whatever was checked before


@pytest.mark.parametrize(("spec", "field", "words"), NAMES.values(), ids=NAMES)
def test_what_nobody_knows_is_refused_by_the_freeze_job_for_good(
    tmp_path: Path, spec: dict[str, Any], field: str, words: str
) -> None:
    status, message = program(tmp_path, resource(tmp_path, spec))
    assert status in PERMANENT_EXIT_CODES
    assert field in message
    assert words in message
    assert "\n  → " in message or "no version" in message  # the fake registry has no remedies
    assert load_frozen(DirectoryStore(tmp_path / "store"), "it") is None


@pytest.mark.parametrize(("spec", "field", "words"), PLACES.values(), ids=PLACES)
def test_what_is_not_there_is_refused_where_the_stages_have_the_same(
    tmp_path: Path, spec: dict[str, Any], field: str, words: str
) -> None:
    status, message = program(tmp_path, resource(tmp_path, spec))
    assert status in PERMANENT_EXIT_CODES
    assert field in message
    assert words in message
    with pytest.raises(ViperError, match=words):
        freeze(world.iteration("it", **spec), DirectoryStore(tmp_path / "store"), MemoryRegistry())  # type: ignore[arg-type]


@pytest.mark.parametrize(("spec", "field", "words"), PLACES.values(), ids=PLACES)
def test_what_only_another_image_may_have_is_left_to_it(
    tmp_path: Path, spec: dict[str, Any], field: str, words: str
) -> None:
    assert program(tmp_path, resource(tmp_path, {**spec, "profile": OTHER_IMAGE})) == (0, "")


@pytest.mark.parametrize("names", [{"vlm": "vllm"}, {"trainer": "verl"}, {"vlm": "openai:http://host/v1"}])
def test_what_no_light_image_can_import_is_known_by_its_name(tmp_path: Path, names: dict[str, str]) -> None:
    assert program(tmp_path, resource(tmp_path, engines(**names))) == (0, "")


@pytest.mark.parametrize(
    ("stages", "spec"),
    [
        ("captions", engines(editor="none", imageSimilarity="none")),
        ("operations", engines(reconstructor="none")),
    ],
)
def test_what_no_stage_uses_need_not_be_known(tmp_path: Path, stages: str, spec: dict[str, Any]) -> None:
    assert program(tmp_path, resource(tmp_path, {**spec, **recipe(stages=stages)})) == (0, "")


def test_all_names_are_told_at_once(tmp_path: Path) -> None:
    status, message = program(tmp_path, resource(tmp_path, {**engines(editor="x", vlm="y"), **recipe(prompts="z")}))
    assert status == 2
    for field in ("spec.engines.editor", "spec.engines.vlm", "spec.recipe.prompts", "3 names"):
        assert field in message


def test_no_password_is_repeated(tmp_path: Path) -> None:
    data = resource(tmp_path, {"generator": {"alias": "generator", "initialUri": "smallworld:starter"}})
    data["spec"]["evaluation"]["questions"] = "https://ana:secret@host/q.jsonl"
    status, message = program(tmp_path, data)
    assert status in PERMANENT_EXIT_CODES
    assert "secret" not in message


@pytest.mark.process
def test_names_are_told_apart_without_a_deep_learning_library() -> None:
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'open_clip', 'trl', 'mlflow', 'pyarrow', 'vllm', 'verl'):\n"
        "    sys.modules[name] = None\n"
        "from fakes import world\nfrom viper.iteration.known import check_names, everywhere\n"
        "check_names(world.iteration('it').spec, everywhere)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
