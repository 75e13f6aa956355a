"""The paper's ablations as manifests: each differs from its setting in what it is about, and in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from viper.costs.profiles import shipped_profiles
from viper.iteration.freeze import differences
from viper.methods.stages import stage_graph
from viper.spec import ViperIteration, ViperLoop, parse_resource, parse_stored
from viper_operator.plugin.main import main as kubectl_viper
from viper_operator.plugin.render import assumed, rendered

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "ablations"
#: Fields of the recipe that differ from examples/qwen-viper-7b.yaml, and the stages that are then run.
SYNTHESIS = ["synthesize-captions", "validate-captions"], ["synthesize-operations", "validate-operations"]
CAPTIONS, OPERATIONS = SYNTHESIS
END = ["map-attention", "evaluate", "promote"]
WHOLE = ["ingest-images", *CAPTIONS, "train-captions", *OPERATIONS, "train-operations", *END]
ABLATIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "captions-only": ({"stages": "captions"}, ["ingest-images", *CAPTIONS, "train-captions", *END]),
    "operations-only": ({"stages": "operations"}, ["ingest-images", *OPERATIONS, "train-operations", *END]),
    "mixed": ({"stages": "mixed"}, ["ingest-images", *CAPTIONS, *OPERATIONS, "train-mixed", *END]),
    "upfront": (
        {"schedule": "upfront"},
        ["ingest-images", *CAPTIONS, *OPERATIONS, "train-captions", "train-operations", *END],
    ),
    "cold-start": ({"coldStart": {}}, ["ingest-images", "cold-start", *WHOLE[1:]]),
    "external-data": ({"stages": "mixed", "external": {}}, ["ingest-samples", "train-mixed", *END]),
    "frozen-critic": ({"models": {"critic": "base"}}, WHOLE),
}


def read(path: Path) -> ViperIteration | ViperLoop:
    resource = parse_resource(yaml.safe_load(path.read_text("utf-8")))
    assert isinstance(resource, ViperIteration | ViperLoop)
    return resource


def iteration(name: str) -> ViperIteration:
    resource = read(FOLDER / f"{name}.yaml")
    one = resource.iteration(1) if isinstance(resource, ViperLoop) else resource
    return one.model_copy(update={"spec": one.spec.with_profile(shipped_profiles()["a100-8x"])})


def test_every_manifest_is_tested() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.yaml")) == sorted(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_differs_from_the_papers_setting_in_nothing_else(name: str) -> None:
    paper = read(ROOT / "examples" / "qwen-viper-7b.yaml")
    assert isinstance(paper, ViperIteration)
    ours, theirs = iteration(name).spec.dump(), paper.spec.dump()
    for part in ("engines", "evaluation", "promotion"):
        assert ours[part] == theirs[part], part
    wanted, _ = ABLATIONS[name]
    changed = {path for path, *_ in differences(theirs["recipe"], ours["recipe"], "recipe")}
    expected = {f"recipe.{k}.{inner}" for k, v in wanted.items() if isinstance(v, dict) for inner in v}
    expected |= {f"recipe.{k}" for k, v in wanted.items() if not isinstance(v, dict) or not v}
    assert changed == expected
    for field, value in wanted.items():
        there = ours["recipe"][field]
        assert there == value if not isinstance(value, dict) else value.items() <= there.items()


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_runs_the_stages_it_is_about(name: str) -> None:
    assert [n.name for n in stage_graph(iteration(name).spec.recipe)] == ABLATIONS[name][1]


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_api_server_would_take_it(name: str) -> None:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    assert parse_stored(document).metadata.name == name


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_renders_down_to_the_pods(name: str) -> None:
    jobs = [yaml.safe_load(text) for text in rendered(iteration(name), assumed("viper"))]
    stages = [j["metadata"]["labels"]["viper.dev/stage"] for j in jobs if j["kind"] == "Job"]
    assert stages == ["freeze", *ABLATIONS[name][1]]


def test_the_command_renders_it_with_the_profile_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperProfile",
        "metadata": {"name": "a100-8x"},
        "spec": shipped_profiles()["a100-8x"].dump(),
    }
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(profile), "utf-8")
    file = FOLDER / "external-data.yaml"
    assert kubectl_viper(["render", str(file), "--profile", str(tmp_path / "profile.yaml")]) == 0
    assert "ingest-samples" in capsys.readouterr().out
