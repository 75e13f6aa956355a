"""Every ablation for real in the small world: what its manifest changes, put into the demo's recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.small_runs import iteration, loop, run_small, small_demo
from viper.cli import main
from viper.methods.stages import (
    COLD_START,
    INGEST_SAMPLES,
    MAP_ATTENTION,
    SYNTHESIZE_CAPTIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
)
from viper.prompts import PromptSet
from viper.registry import Registry, sqlite_uri
from viper.stage import Manifest, StageContext, load_frozen, load_manifest
from viper.store import ObjectStore, open_store

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(900)]
FOLDER = Path(__file__).parents[2] / "examples" / "ablations"


def changes(name: str) -> dict[str, Any]:
    """What the ablation's manifest sets in the recipe besides sizes and training."""
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))["spec"]
    recipe = document.get("template", document)["recipe"]
    return {k: v for k, v in recipe.items() if k in ("stages", "schedule", "coldStart", "external", "models")}


def supplied(folder: Path, count: int = 8) -> tuple[Path, Path]:
    """Questions of the small world as samples of a cold start, and as external data."""
    from viper.smallworld.questions import questions

    prompts, cold, external = PromptSet.load("smallworld"), [], []
    for i, q in enumerate(questions("selection")[:count]):
        q.image.save(folder / f"{i}.png")
        asked = prompts.render("question", question=q.question)
        cold.append({"prompt": asked, "images": [f"{i}.png"], "response": f"<think>{q.answer}</think>{q.answer}"})
        external.append({"question": q.question, "image": [f"{i}.png"], "answer": q.answer})
    for name, rows in (("cold.jsonl", cold), ("external.jsonl", external)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder / "cold.jsonl", folder / "external.jsonl"


class Outcome:
    """The store of a finished run."""

    def __init__(self, directory: Path, name: str = "it") -> None:
        self.store: ObjectStore = open_store(directory / "store")
        self.name = name

    def manifest(self, stage: str) -> Manifest:
        found = load_manifest(self.store, f"iterations/{self.name}", stage)
        assert found is not None
        return found

    def authors(self, stage: str, role: str = "generator") -> set[str]:
        """Digests of the checkpoints in the passports of a data stage."""
        frozen = load_frozen(self.store, self.name)
        assert frozen is not None
        rows = list(StageContext(frozen, self.store, "test", Path("unused")).rows(stage, ["passport"]))
        assert rows
        return {json.loads(r["passport"])["models"].get(role, "") for r in rows}

    def model(self, stage: str) -> str:
        return str(self.manifest(stage).outputs["model"]["digest"])

    @property
    def generator(self) -> str:
        frozen = load_frozen(self.store, self.name)
        assert frozen is not None
        return frozen.generator.digest


def run(folder: Path, recipe: dict[str, Any]) -> Outcome:
    return Outcome(run_small(folder, iteration(small_demo(recipe))))


def test_captions_only_with_a_cold_start(tmp_path: Path) -> None:
    samples, _ = supplied(tmp_path)
    cold = changes("cold-start")["coldStart"] | {"samplesUri": str(samples), "batch": 4, "learningRate": 1e-4}
    outcome = run(tmp_path, {**changes("captions-only"), "coldStart": cold})
    assert outcome.manifest(COLD_START).outputs["samples"] == {"train": 8}
    # The cold start is where the training starts, and it has not written the data.
    assert COLD_START in outcome.manifest(TRAIN_CAPTIONS).inputs
    assert outcome.model(COLD_START) not in (outcome.generator, outcome.model(TRAIN_CAPTIONS))
    assert outcome.authors(VALIDATE_CAPTIONS) == {outcome.generator}
    assert outcome.manifest("evaluate").outputs["checkpoints"].keys() == {"theta0", "coldStart", "theta1"}


def test_operations_only(tmp_path: Path) -> None:
    outcome = Outcome(run_small(tmp_path, iteration(small_demo(changes("operations-only"), images=24))))
    assert outcome.authors(VALIDATE_OPERATIONS) == {outcome.generator}
    assert outcome.manifest(TRAIN_OPERATIONS).outputs["steps"] == 1
    assert set(outcome.manifest(TRAIN_OPERATIONS).inputs) == {VALIDATE_OPERATIONS}


def test_all_data_up_front_and_every_checkpoint_watched(tmp_path: Path) -> None:
    spec = small_demo({**changes("upfront"), "analysis": {"attentionImages": 2}}, images=24)
    outcome = Outcome(run_small(tmp_path, iteration(spec)))
    assert outcome.authors(VALIDATE_OPERATIONS) == {outcome.generator} == outcome.authors(VALIDATE_CAPTIONS)
    assert set(outcome.manifest(TRAIN_OPERATIONS).inputs) == {VALIDATE_OPERATIONS, TRAIN_CAPTIONS}

    watched = outcome.manifest(MAP_ATTENTION).outputs
    assert list(watched["checkpoints"]) == ["theta0", "theta1", "theta2"]
    assert watched["checkpoints"]["theta2"] == outcome.model(TRAIN_OPERATIONS)
    assert all(0 < share < 1 for share in watched["image_share"].values())
    page = (tmp_path / "run" / "report" / "index.html").read_text("utf-8")
    assert page.count('<figure class="heat"><img src="data:image/webp') == 2
    registry, parent = Registry(sqlite_uri(tmp_path / "run")), load_frozen(outcome.store, "it")
    assert parent is not None
    run = registry.find_stage_run(parent.tracking.parent_run, MAP_ATTENTION)
    names = {item.path for item in registry.connection.call("list_artifacts", run)}
    assert names == {"manifest.json", "attention-00.png", "attention-01.png"}


def test_mixed_with_external_data_beside_it(tmp_path: Path) -> None:
    _, file = supplied(tmp_path)
    external = changes("external-data")["external"] | {"uri": str(file), "use": "add", "samples": 6}
    spec = small_demo({**changes("mixed"), "external": external}, images=24)
    outcome = Outcome(run_small(tmp_path, iteration(spec)))
    sources = {VALIDATE_CAPTIONS, VALIDATE_OPERATIONS, INGEST_SAMPLES}
    assert set(outcome.manifest(TRAIN_MIXED).inputs) == sources
    given = sum(outcome.manifest(stage).accepted for stage in sources)
    assert outcome.manifest(TRAIN_MIXED).outputs["samples"]["train"] == given
    assert outcome.manifest(INGEST_SAMPLES).accepted == 6


def test_external_data_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, file = supplied(tmp_path)
    changed = changes("external-data")
    outcome = run(tmp_path, {**changed, "external": changed["external"] | {"uri": str(file), "samples": None}})
    assert set(outcome.manifest(TRAIN_MIXED).inputs) == {INGEST_SAMPLES}
    assert outcome.manifest(TRAIN_MIXED).outputs["samples"] == {"train": 8, "held_out": 0}
    assert load_manifest(outcome.store, "iterations/it", SYNTHESIZE_CAPTIONS) is None

    assert main(["lineage", "generator", "--dir", str(tmp_path / "run"), "--samples", "--json"]) == 0
    version = json.loads(capsys.readouterr().out)
    assert {(s["author"], s["passport"]["task"]) for s in version["samples"]} == {(None, "external")}
    assert sum(bool(s["rollouts"]) for s in version["samples"]) == 4


def test_a_frozen_critic_stays_the_first_model_and_an_evolving_one_does_not(tmp_path: Path) -> None:
    spec = small_demo({**changes("captions-only"), **changes("frozen-critic"), "stages": "captions"})
    spec["promotion"] = {"gate": {"significance": 0.0001}}
    directory = run_small(tmp_path, loop(spec, iterations=2))
    first, second = Outcome(directory, "demo-1"), Outcome(directory, "demo-2")
    assert second.generator == first.model(TRAIN_CAPTIONS) != first.generator
    assert second.authors(VALIDATE_CAPTIONS) == {second.generator}
    assert second.authors(VALIDATE_CAPTIONS, "critic") == {first.generator}
