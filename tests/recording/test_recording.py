"""The MLflow record of a stage: nested, complete, and the same however often it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from viper.errors import RegistryError
from viper.iteration.recording import metrics, params, record_stage
from viper.methods.stages import (
    DECLARED,
    EVALUATE,
    PROMOTE,
    TRAIN_CAPTIONS,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    Stage,
    declared,
    stage_graph,
)
from viper.registry import Registry, sqlite_uri
from viper.spec import parse_resource
from viper.spec.iteration import ViperIteration
from viper.stage import FrozenIteration, Manifest, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import open_store

CURVES = [{"step": s, "reward/mean": s / 10, "loss": 1 / s} for s in (1, 2, 3)]
SCORE = {"n": 4, "correct": 2, "accuracy": 0.5, "low": 0.15, "high": 0.85}
COMPARISON = {"difference": 0.25, "low": -0.1, "high": 0.6, "wins": 1, "losses": 0, "p_two_sided": 1.0, "p_worse": 1.0}


def iteration() -> ViperIteration:
    found = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": {
                "model": "small",
                "images": {"uri": "file:///images"},
                "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake"),
            },
        }
    )
    assert isinstance(found, ViperIteration)
    return found


class Recorded:
    """An iteration whose stages can be finished and looked up in MLflow."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(sqlite_uri(folder))
        self.store = open_store(folder / "store")
        self.folder = folder
        self.parent = self.registry.iteration_run("small", "it", "uid")
        model = ResolvedModel(uri="file:///m", digest="sha256:0", model="small", version=3)
        self.frozen = FrozenIteration(
            iteration=iteration(),
            generator=model,
            base=model,
            critic=model,
            judge=model,
            tracking=Tracking(uri=self.registry.uri, parent_run=self.parent),
            versions={"torch": "2.15.0"},
        )

    def context(self, stage: str, *, recorded: bool = True) -> StageContext:
        ctx = StageContext(self.frozen, self.store, stage, self.folder)
        if recorded:
            ctx.recorder = lambda manifest: record_stage(ctx, manifest, self.registry)
        return ctx

    def finish(self, stage: str, outputs: dict[str, Any] | None = None, parts: int = 0) -> Manifest:
        for node in stage_graph(self.frozen.iteration.spec.recipe):
            if node.name == stage:
                break
            if (before := self.context(node.name, recorded=False)).done() is None:
                before.finish(())
        needs = next(n.needs for n in stage_graph(self.frozen.iteration.spec.recipe) if n.name == stage)
        manifest = self.context(stage).finish(needs, outputs=outputs, parts=parts)
        assert manifest is not None
        return manifest

    def run(self, stage: str) -> Any:
        number = self.registry.find_stage_run(self.parent, stage)
        assert number is not None
        return self.registry.connection.call("get_run", number)

    def artifacts(self, stage: str) -> set[str]:
        found = self.registry.connection.call("list_artifacts", self.run(stage).info.run_id)
        return {item.path for item in found}


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def finish_training(recorded: Recorded) -> Manifest:
    ctx = recorded.context(TRAIN_CAPTIONS)
    recorded.store.put(f"{ctx.prefix}/curves.jsonl", "".join(json.dumps(r) + "\n" for r in CURVES).encode())
    outputs = {"model": {"uri": "file:///out", "digest": "sha256:1"}, "steps": 3, "curves": "curves.jsonl"}
    return recorded.finish(TRAIN_CAPTIONS, outputs)


def test_a_training_stage_is_recorded_with_curves_data_and_settings(recorded: Recorded) -> None:
    finish_training(recorded)
    run = recorded.run(TRAIN_CAPTIONS)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == recorded.parent
    assert run.data.params["recipe.captions.training.clipHigh"] == "0.28"
    assert run.data.params["recipe.reward.tau"] == "0.85"
    assert run.data.metrics["reward/mean"] == pytest.approx(0.3)
    assert run.data.metrics["steps"] == 3
    assert run.data.tags["viper.model_digest"] == "sha256:1"
    assert run.data.tags["viper.generator_version"] == "3"
    assert run.data.tags["viper.versions.torch"] == "2.15.0"
    assert recorded.artifacts(TRAIN_CAPTIONS) == {"manifest.json", "curves.jsonl"}


def test_the_words_of_the_reasoning_are_recorded_and_kept(recorded: Recorded) -> None:
    ctx = recorded.context(TRAIN_CAPTIONS)
    rollouts = [{"step": s, "output": f"<think>{t}</think>x"} for s, t in ((1, "red ring"), (7, "scan the ring"))]
    recorded.store.put(f"{ctx.prefix}/rollouts/00000.jsonl", "".join(json.dumps(r) + "\n" for r in rollouts).encode())
    outputs = {"model": {"uri": "file:///out", "digest": "sha256:1"}, "steps": 7, "rollouts": "rollouts/"}
    recorded.finish(TRAIN_CAPTIONS, outputs)
    assert recorded.artifacts(TRAIN_CAPTIONS) == {"manifest.json", "reasoning.html", "reasoning.json"}
    assert json.loads(recorded.store.get(f"{ctx.prefix}/reasoning.json"))["after"]["operations"] == {"scan": 1}
    run = recorded.run(TRAIN_CAPTIONS).info.run_id
    history = recorded.registry.connection.call("get_metric_history", run, "reasoning/operations_per_thousand")
    assert {m.step: m.value for m in history} == {1: 0.0, 7: pytest.approx(1000 / 3)}


def test_the_data_of_a_training_stage_is_an_input_of_its_run_and_of_the_iteration(recorded: Recorded) -> None:
    finish_training(recorded)
    expected = recorded.context(TRAIN_CAPTIONS).manifest(VALIDATE_CAPTIONS)
    parent = recorded.registry.connection.call("get_run", recorded.parent)
    for run in (recorded.run(TRAIN_CAPTIONS), parent):
        (found,) = [i for i in run.inputs.dataset_inputs if i.dataset.name == "it/validate-captions"]
        assert expected.content_digest.startswith(found.dataset.digest)
        assert json.loads(found.dataset.profile)["digest"] == expected.content_digest
        uri = f"{recorded.store.uri}/iterations/it/stages/validate-captions/manifest.json"
        assert json.loads(found.dataset.source) == {"uri": uri}


def test_recording_again_changes_nothing(recorded: Recorded) -> None:
    manifest = finish_training(recorded)
    ctx = recorded.context(TRAIN_CAPTIONS)
    before = recorded.run(TRAIN_CAPTIONS)
    for _ in range(2):
        record_stage(ctx, manifest.model_copy(update={"seconds": manifest.seconds + 9}), recorded.registry)
    after = recorded.run(TRAIN_CAPTIONS)
    assert after.info.run_id == before.info.run_id
    assert after.data.metrics == before.data.metrics
    assert after.data.params == before.data.params
    history = recorded.registry.connection.call("get_metric_history", after.info.run_id, "loss")
    assert [(p.step, p.value) for p in history] == [(r["step"], r["loss"]) for r in CURVES]
    assert len(after.inputs.dataset_inputs) == len(before.inputs.dataset_inputs)
    experiment = recorded.registry.experiment("small")
    assert len(recorded.registry.connection.call("search_runs", [experiment])) == 2


def test_rejections_are_recorded_by_reason_with_the_data_card(recorded: Recorded) -> None:
    ctx = recorded.context(VALIDATE_CAPTIONS)
    schema = pa.schema([("accepted", pa.bool_()), ("reason", pa.string())])
    rows = [{"accepted": i > 0, "reason": "" if i else "perfect-caption"} for i in range(4)]
    ctx.write_part(0, rows, schema, counters={"train": 3})
    recorded.store.put(f"{ctx.prefix}/card.json", b"{}")
    recorded.finish(VALIDATE_CAPTIONS, {"card": "card.json", "source": "file:///images", "note": "card.md"}, parts=1)
    found = recorded.run(VALIDATE_CAPTIONS).data.metrics
    assert (found["rows/accepted"], found["rows/rejected"], found["rejected/perfect-caption"]) == (3, 1, 1)
    assert found["counters/train"] == 3
    assert recorded.artifacts(VALIDATE_CAPTIONS) == {"manifest.json", "card.json"}


def test_scores_reach_the_iterations_run(recorded: Recorded) -> None:
    outputs = {
        "scores": {"theta0": {"overall": SCORE}, "theta2": {"fine-grained perception": SCORE, "naïve?": SCORE}},
        "comparisons": {"theta2-theta0": {"overall": COMPARISON}},
        "questions": {"uri": "smallworld:questions", "digest": "d" * 64, "n": 4},
    }
    recorded.finish(EVALUATE, outputs)
    parent = recorded.registry.connection.call("get_run", recorded.parent)
    for run in (recorded.run(EVALUATE), parent):
        assert run.data.metrics["accuracy/theta0/overall"] == 0.5
        assert run.data.metrics["accuracy/theta2/fine-grained perception"] == 0.5
        assert run.data.metrics["difference/theta2-theta0/overall"] == 0.25
        assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["questions"]


def test_benchmarks_reach_the_iterations_run_with_their_data_sets(recorded: Recorded) -> None:
    overall = {"score": 0.6, "low": 0.5, "high": 0.7, "n": 4}
    mmstar = {**overall, "correct": 2, "domains": {"science & technology": SCORE}}
    change = {"difference": 0.02, "low": 0, "high": 0.04, "p_worse": 0.9, "p_better": 0.1}
    outputs = {
        "scores": {},
        "comparisons": {},
        "benchmarks": {
            "tasks": {"mmstar": {"n": 4, "version": "0.7.3+a", "dataset": "Lin-Chen/MMStar", "data": "sha256:1"}},
            "scores": {"theta2": {"mmstar": mmstar, "overall": overall}},
            "comparisons": {"theta2-theta0": {"mmstar": change, "overall": change}},
        },
    }
    recorded.finish(EVALUATE, outputs)
    parent = recorded.registry.connection.call("get_run", recorded.parent)
    for run in (recorded.run(EVALUATE), parent):
        assert run.data.metrics["benchmark/theta2/overall"] == 0.6
        assert run.data.metrics["benchmark/theta2/mmstar/science _ technology"] == 0.5
        assert run.data.metrics["benchmark_difference/theta2-theta0/overall"] == 0.02
        assert not any("/tasks/" in name for name in run.data.metrics)
        (found,) = run.inputs.dataset_inputs
        assert (found.dataset.name, json.loads(found.dataset.profile)["questions"]) == ("mmstar", 4)


def test_the_decision_is_a_tag_of_the_iterations_run(recorded: Recorded) -> None:
    model = {"model": {"uri": "file:///out", "digest": "sha256:1"}}
    recorded.context(TRAIN_OPERATIONS, recorded=False).finish((), outputs=model)
    recorded.finish(PROMOTE, {"decision": "held", "reason": "worse", "version": 4, "alias": "generator"})
    tags = recorded.registry.connection.call("get_run", recorded.parent).data.tags
    assert (tags["viper.decision"], tags["viper.reason"], tags["viper.version"]) == ("held", "worse", "4")


def test_a_stage_that_cannot_be_recorded_is_not_done(recorded: Recorded) -> None:
    ctx = recorded.context(VALIDATE_CAPTIONS)
    (recorded.folder / "file").touch()
    down = Registry(sqlite_uri(recorded.folder / "file"))  # no folder: no database can be there
    ctx.recorder = lambda manifest: record_stage(ctx, manifest, down)
    with pytest.raises(RegistryError):
        ctx.finish(())
    assert ctx.done() is None


@pytest.mark.parametrize("stage", DECLARED.values(), ids=list(DECLARED))
def test_every_stage_names_settings_that_exist(stage: Stage) -> None:
    spec = iteration().spec
    found = params(spec, stage)
    assert found["recipe.seed"] == 0
    assert all(any(key.startswith(path) for key in found) for path in stage.settings)


def test_names_that_mlflow_refuses_are_made_acceptable() -> None:
    manifest = Manifest(
        stage=EVALUATE,
        iteration="it",
        identity="i",
        rejected={"too small!": 2},
        outputs={"counts": {"train": 3, "flag": True}, "name": "x"},
    )
    found = metrics(manifest)
    assert found["rejected/too small_"] == 2
    assert found["counts/train"] == 3
    assert "counts/flag" not in found


def test_domains_that_mlflow_has_no_name_for_are_recorded_each_by_its_own(recorded: Recorded) -> None:
    domains = (
        "colour/",
        "Health & Medicine",
        "Health + Medicine",
        "..",
        "x" * 300,
        "x" * 299 + "y",
        "overall",
        "OVERALL",
    )
    by_domain = {d: {**SCORE, "accuracy": i / 10} for i, d in enumerate(domains)}
    compared = {d: {**COMPARISON, "difference": i / 10} for i, d in enumerate(domains)}
    asked = {"tasks": {}, "scores": {"theta0": {"blink": {"score": 0.5, "domains": by_domain}}}}
    outputs = {
        "scores": {"theta0": by_domain, "theta1": by_domain},
        "comparisons": {"theta1-theta0": compared},
        "benchmarks": asked,
    }
    recorded.finish(EVALUATE, outputs)
    found = recorded.run(EVALUATE).data.metrics
    for start in ("accuracy/theta0/", "accuracy/theta1/", "difference/theta1-theta0/", "benchmark/theta0/blink/"):
        values = sorted(value for name, value in found.items() if name.startswith(start))
        assert values == pytest.approx([i / 10 for i in range(len(domains))]), start
    assert found["accuracy/theta1/overall"] == pytest.approx(0.6)
    names = {name.removeprefix("accuracy/theta0/") for name in found if name.startswith("accuracy/theta0/")}
    assert names == {n.removeprefix("accuracy/theta1/") for n in found if n.startswith("accuracy/theta1/")}


def test_parameters_of_ones_own_names_are_recorded_each_by_its_own(recorded: Recorded) -> None:
    overrides = {"a+b": "1", "a-b": "2", "a b/": "3", "a&b": "4", "k" * 400: "5"}
    one = recorded.frozen.iteration
    engines = one.spec.engines.model_copy(
        update={"training": one.spec.engines.training.model_copy(update={"overrides": overrides})}
    )
    found = params(one.spec.model_copy(update={"engines": engines}), declared(TRAIN_CAPTIONS))
    run = recorded.registry.iteration_run("small", "other", "uid")
    recorded.registry.log_params(run, found)
    start = "engines.training.overrides."
    logged = recorded.registry.connection.call("get_run", run).data.params
    assert sorted(v for k, v in logged.items() if k.startswith(start)) == ["1", "2", "3", "4", "5"]
