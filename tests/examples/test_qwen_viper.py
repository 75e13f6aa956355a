"""The paper's setting as manifests: every number of its tables is there, down to the pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from viper.cli import main
from viper.costs.profiles import shipped_profiles
from viper.methods.stages import stage_graph
from viper.modelcache.uris import engine_uri, hub_uri
from viper.spec import IterationSpec, ViperIteration, ViperLoop, load_runnable, parse_stored
from viper.spec.packed import pieces_of, unpack
from viper_operator.plugin.render import assumed, rendered

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("qwen-viper-7b", "qwen-viper-3b", "qwen-viper-8step")
#: arXiv 2510.24285: sizes of the data, reward (equations 5 to 7), policy optimisation, training table.
PAPER = {
    "recipe.stages": "both",
    "recipe.schedule": "interleaved",
    "recipe.coldStart": None,
    "recipe.captions.samples": 7000,
    "recipe.operations.samples": 3000,
    "recipe.reward.tau": 0.85,
    "recipe.reward.formatWeight": 0.05,
    "recipe.reward.correctWeight": 0.95,
    **{
        f"recipe.{task}.training.{field}": value
        for task in ("captions", "operations")
        for field, value in {
            "batchPrompts": 128,
            "miniBatchPrompts": 64,
            "microBatch": 4,
            "groupSize": 5,
            "temperature": 1.0,
            "maxPromptTokens": 10240,
            "maxResponseTokens": 4096,
            "learningRate": 1e-6,
            "clipLow": 0.2,
            "clipHigh": 0.28,
        }.items()
    },
}
ON_GPUS = {
    "synthesize-captions": (8, 1),
    "synthesize-operations": (8, 1),
    "validate-operations": (8, 1),
    "train-captions": (1, 8),
    "train-operations": (1, 8),
    "map-attention": (1, 1),
    "evaluate": (1, 1),
}


def iteration(name: str) -> ViperIteration:
    resource = load_runnable(EXAMPLES / f"{name}.yaml")
    return resource.iteration(1) if isinstance(resource, ViperLoop) else resource


def written(name: str) -> dict[str, Any]:
    """The spec as it stands in the file."""
    document = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text("utf-8"))
    found: dict[str, Any] = document["spec"].get("template", document["spec"])
    return found


def at(spec: dict[str, Any], path: str) -> Any:
    value: Any = spec
    for part in path.split("."):
        value = value[part]
    return value


def jobs(name: str) -> dict[str, dict[str, Any]]:
    """The Jobs that the operator would make, by stage."""
    made = [yaml.safe_load(text) for text in rendered(iteration(name), assumed("viper"))]
    return {j["metadata"]["labels"]["viper.dev/stage"]: j for j in made}


@pytest.mark.parametrize("name", NAMES)
def test_it_renders_on_one_machine(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(EXAMPLES / f"{name}.yaml")]) == 0
    assert "train-operations" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_api_server_would_take_it(name: str) -> None:
    document = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text("utf-8"))
    assert parse_stored(document).metadata.name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", sorted(PAPER))
def test_it_has_every_number_of_the_paper(name: str, path: str) -> None:
    assert at(iteration(name).spec.dump(), path) == PAPER[path]


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_written_out_rather_than_left_to_defaults(name: str) -> None:
    recipe = {"recipe": written(name)["recipe"]}
    left_out = {"recipe.coldStart"}
    assert all(at(recipe, path) == value for path, value in PAPER.items() if path not in left_out)


@pytest.mark.parametrize("name", NAMES)
def test_the_pods_get_every_number_of_the_paper(name: str) -> None:
    container = jobs(name)["freeze"]["spec"]["template"]["spec"]["containers"][0]
    environment = {e["name"]: e.get("value", "") for e in container["env"]}
    carried = unpack(pieces_of("VIPER_ITERATION", environment), "it")
    spec = json.loads(carried)["spec"]
    assert {path: at(spec, path) for path in PAPER} == PAPER


@pytest.mark.parametrize("name", NAMES)
def test_one_node_with_eight_gpus_is_full_but_never_overfull(name: str) -> None:
    made = jobs(name)
    assert set(made) == {"freeze", *(n.name for n in stage_graph(iteration(name).spec.recipe))}
    for stage, job in made.items():
        pods = job["spec"]["parallelism"]
        container = job["spec"]["template"]["spec"]["containers"][0]
        gpus = int(container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))
        assert (pods, gpus) == ON_GPUS.get(stage, (1, 0)), stage
        assert pods * gpus in (0, 1, 8)
        assert job["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}


@pytest.mark.parametrize("name", NAMES)
def test_training_evaluation_and_synthesis_have_their_own_images_and_the_same_weights(name: str) -> None:
    for stage, job in jobs(name).items():
        pod = job["spec"]["template"]["spec"]
        own = "training" if stage.startswith("train-") else "evaluation"
        image = own if stage.startswith(("train-", "evaluate")) else "synthesis"
        assert pod["containers"][0]["image"].partition("/")[2].startswith(image), stage
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "models"


@pytest.mark.parametrize("name", NAMES)
def test_its_profile_is_the_charts_with_images_and_weights(name: str) -> None:
    own, shipped = iteration(name).spec.profile, shipped_profiles()["a100-8x"]
    ours = {"image", "model_cache"}
    for stage in ("ingest-images", *shipped.stages):
        kept = own.of(stage).model_dump(exclude=ours), shipped.of(stage).model_dump(exclude=ours)
        assert kept[0] == kept[1], stage


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_pinned_to_a_commit(name: str) -> None:
    spec = iteration(name).spec
    engines = spec.engines
    named = (engines.reconstructor, engines.editor, engines.image_similarity)
    # Published as a pickle only: converted once, it lies in a store, and freezing notes its digest.
    assert engine_uri(engines.similarity) == "s3://weights/bge-m3"
    loras = [s.lora for s in (engines.reconstruction, engines.editing) if s.lora]
    for uri in (*map(engine_uri, named), spec.generator.initial_uri, *loras):
        assert uri is not None
        assert hub_uri(uri).is_commit


def engines_of(name: str) -> tuple[str, ...]:
    engines = iteration(name).spec.engines
    names = (engines.vlm, engines.reconstructor, engines.editor, engines.trainer)
    return tuple(n.partition(":")[0] for n in names)


def test_the_paper_used_these_engines() -> None:
    assert engines_of("qwen-viper-7b") == ("vllm", "qwen-image", "omnigen2", "verl")
    assert engines_of("qwen-viper-3b") == engines_of("qwen-viper-7b")


def test_the_models_are_what_the_names_say() -> None:
    sizes = [iteration(n).spec.generator.initial_uri or "" for n in NAMES]
    assert [s.partition("@")[0].rpartition("/")[2] for s in sizes] == [
        "Qwen2.5-VL-7B-Instruct",
        "Qwen2.5-VL-3B-Instruct",
        "Qwen2.5-VL-7B-Instruct",
    ]


def test_distilled_weights_run_eight_steps_without_guidance() -> None:
    engines = iteration("qwen-viper-8step").spec.engines
    for settings in (engines.reconstruction, engines.editing):
        assert (settings.steps, settings.guidance) == (8, 1.0)
        assert "8steps" in (settings.lora or "")


def test_the_small_model_differs_in_nothing_but_the_model() -> None:
    def without_model(spec: IterationSpec) -> dict[str, Any]:
        return {k: v for k, v in spec.dump().items() if k not in ("model", "generator")}

    seven, three = (iteration(n).spec for n in NAMES[:2])
    assert without_model(seven) == without_model(three)
