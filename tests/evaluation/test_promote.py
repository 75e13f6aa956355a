"""Promotion on a real MLflow database: one version per model, an alias that is compared before it moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import FakeVlm, Opener, question_file

from viper.errors import StageError, SupersededError
from viper.evaluation.benchmarks import Verdict
from viper.evaluation.promotion import missing, promote
from viper.evaluation.stage import evaluate
from viper.evaluation.summary import benchmark_comparisons, benchmark_scores
from viper.methods.stages import EVALUATE, PROMOTE, TRAIN_CAPTIONS, TRAIN_OPERATIONS
from viper.registry import LOCKS, Registry, sqlite_uri
from viper.spec.evaluation import Benchmarks, Evaluation
from viper.stage import ResolvedModel, StageContext
from viper.stage.frozen import Tracking

GOOD, BAD = range(12), range(0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class World:
    """A registry in which version 1 is the generator, and iterations that start from it."""

    def __init__(self, folder: Path, open_context: Opener) -> None:
        self.registry = Registry(sqlite_uri(folder))
        self.open_context = open_context
        self.questions = str(question_file(folder / "q", count=12))
        self.registry.register("small", "file:///models/0", "sha256:000")
        self.registry.promote("small", "generator", 1, expected=None)

    def stage(
        self,
        name: str = "it",
        known: Mapping[str, range] | None = None,
        digest: str = "sha256:222",
        version: int = 1,
        **spec: Any,
    ) -> StageContext:
        """An evaluated iteration: θ0 answers what `known` says, and so on."""
        run = self.registry.iteration_run("small", name, name)
        more: dict[str, Any] = {
            "name": name,
            "models": {TRAIN_OPERATIONS: digest},
            "generator": ResolvedModel(uri="file:///models/0", digest="sha256:000", model="small", version=version),
            "alias_version": version,
            "tracking": Tracking(uri=self.registry.uri, parent_run=run),
            "evaluation": {"questions": self.questions},
            **spec,
        }
        answers = {"theta0": BAD, "theta1": GOOD, "theta2": GOOD, **(known or {})}
        evaluate(
            self.open_context(EVALUATE, **more),
            lambda c: FakeVlm({f"number {i}?": f"colour {i}" for i in answers[c.name]}),
        )
        return self.open_context(PROMOTE, **more)

    @property
    def alias(self) -> int | None:
        return self.registry.get_alias("small", "generator")

    @property
    def numbers(self) -> list[int]:
        return [v.version for v in self.registry.versions("small")]


@pytest.fixture
def world(tmp_path: Path, open_context: Opener) -> World:
    return World(tmp_path, open_context)


def test_a_better_model_becomes_a_version_and_the_generator(world: World) -> None:
    ctx = world.stage()
    manifest = promote(ctx, world.registry)
    assert manifest is not None
    outputs = manifest.outputs
    assert (outputs["decision"], outputs["version"], outputs["previous_version"]) == ("promoted", 2, 1)
    assert "0.0% → 100.0% on 12 questions" in outputs["reason"]
    assert world.alias == 2
    assert world.registry.get("small", 2).tags[LOCKS] == ctx.store.uri
    (held,) = (json.loads(ctx.store.get(info.key)) for info in ctx.store.list("locks/small@generator/"))
    assert held["owner"].startswith("iteration it (process ")
    assert held["released"] is True


def test_the_version_tells_its_data_parent_and_scores(world: World) -> None:
    ctx = world.stage()
    promote(ctx, world.registry)
    version = world.registry.get("small", 2)
    assert version.source_uri == "file:///models/train-operations"
    assert version.digest == "sha256:222"
    assert version.run == ctx.frozen.tracking.parent_run
    tags = version.tags
    assert tags["viper.parent_version"] == tags["viper.base_version"] == "1"
    assert tags["viper.iteration"] == "it"
    assert tags["viper.manifest.validate-captions"] == ctx.manifest("validate-captions").content_digest
    assert tags["viper.score.theta2"].startswith("1.0000 [")
    assert tags["viper.decision"] == "promoted"
    assert "1.0" in tags["viper.scores"]


@pytest.mark.parametrize(
    ("right", "floor", "decision", "words"),
    [
        ((100, 100, 60), None, "held", "significantly worse than θ0"),
        ((100, 100, 100), 0.6, "held", "below the floor of a benchmark (mmstar 50.0 % < 60.0 %)"),
        ((100, 100, 100), 0.4, "promoted", "Mean of the benchmarks 50.0% → 50.0%"),
        ((60, 80, 100), None, "promoted", "significantly better than θ0"),
    ],
)
def test_benchmarks_decide_on_promotion_too(
    world: World, right: tuple[int, int, int], floor: float | None, decision: str, words: str
) -> None:
    models = ("theta0", "theta1", "theta2")
    answered = {
        model: {"mmstar": {f"q{i}": Verdict(i < count, "A") for i in range(200)}}
        for model, count in zip(models, right, strict=True)
    }
    outputs = {
        "scores": {},
        "comparisons": {},
        "final": "theta2",
        "benchmarks": {
            "scores": {m: benchmark_scores(a, {}) for m, a in answered.items()},
            "comparisons": {"theta2-theta0": benchmark_comparisons(answered["theta0"], answered["theta2"])},
        },
    }
    run = world.registry.iteration_run("small", "it", "it")
    more: dict[str, Any] = {
        "models": {TRAIN_OPERATIONS: "sha256:222"},
        "generator": ResolvedModel(uri="file:///models/0", digest="sha256:000", model="small", version=1),
        "alias_version": 1,
        "tracking": Tracking(uri=world.registry.uri, parent_run=run),
        "evaluation": {"benchmarks": {"tasks": {"mmstar": {"floor": floor}}, "datasets": "/data"}},
    }
    world.open_context(EVALUATE, **more).finish((TRAIN_CAPTIONS, TRAIN_OPERATIONS), outputs=outputs)
    manifest = promote(world.open_context(PROMOTE, **more), world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == decision
    assert words in manifest.outputs["reason"]
    tags = world.registry.get("small", 2).tags
    assert json.loads(tags["viper.benchmarks.theta2"])["mmstar"] == right[2] / 200


def test_a_significantly_worse_model_is_registered_but_held(world: World) -> None:
    manifest = promote(world.stage(known={"theta0": GOOD, "theta2": BAD}), world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == "held"
    assert "significantly worse" in manifest.outputs["reason"]
    assert (world.alias, world.numbers) == (1, [1, 2])
    assert world.registry.get("small", 2).tags["viper.decision"] == "held"


@pytest.mark.parametrize(("gate", "decision", "alias"), [({}, "held", 1), ({"unmeasured": "Promote"}, "promoted", 2)])
def test_without_questions_and_benchmarks_a_person_promotes_unless_a_setting_says_otherwise(
    world: World, gate: dict[str, str], decision: str, alias: int
) -> None:
    manifest = promote(world.stage(evaluation={}, promotion={"gate": gate}), world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == world.registry.get("small", 2).tags["viper.decision"] == decision
    assert "evaluation.questions" in manifest.outputs["reason"] or gate
    assert (world.alias, world.numbers) == (alias, [1, 2])


SCORE = {"score": 0.5, "n": 10, "unanswered": 9}
MEAN = {"difference": 0.0, "low": 0.0, "high": 0.0, "p_worse": 0.5, "p_better": 0.5}


def outputs_of(
    of_theta0: Mapping[str, Any], of_theta2: Mapping[str, Any], mean: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Outputs of an evaluation with these scores of benchmarks, and their mean compared."""
    found = {"theta0": {"overall": SCORE, **of_theta0}, "theta2": {"overall": SCORE, **of_theta2}}
    compared = {"theta2-theta0": {"overall": mean or MEAN}}
    return {"final": "theta2", "comparisons": {}, "benchmarks": {"scores": found, "comparisons": compared}}


BOTH = {"mmstar": SCORE, "blink": SCORE}


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (outputs_of(BOTH, BOTH), []),
        ({"final": "theta2", "comparisons": {}}, [f"no result of {t} by theta0 and theta2" for t in BOTH]),
        (outputs_of(BOTH, {}), ["no result of mmstar by theta2", "no result of blink by theta2"]),
        (outputs_of({"mmstar": SCORE}, BOTH), ["no result of blink by theta0"]),
        (outputs_of(BOTH, BOTH | {"blink": SCORE | {"score": float("nan")}}), ["no result of blink by theta2"]),
        (outputs_of(BOTH, BOTH | {"blink": SCORE | {"n": 0}}), ["no result of blink by theta2"]),
        (outputs_of(BOTH | {"blink": SCORE | {"unanswered": 10}}, BOTH), ["no result of blink by theta0"]),
        (outputs_of(BOTH, BOTH, {**MEAN, "p_worse": float("nan")}), ["no comparison of the benchmarks' mean"]),
    ],
)
def test_what_was_to_be_measured_and_has_no_result_is_named(outputs: dict[str, Any], said: list[str]) -> None:
    benchmarks = Benchmarks.model_validate({"tasks": {t: {} for t in reversed(BOTH)}, "datasets": "/data"})
    assert missing(Evaluation(benchmarks=benchmarks), outputs) == said
    asked = Evaluation(benchmarks=benchmarks, questions="q.jsonl")
    assert missing(asked, outputs) == ["no comparison of the questions", *said]


@pytest.mark.parametrize("policy", ["Manual", "Never"])
def test_other_policies_register_and_leave_the_alias(world: World, policy: str) -> None:
    manifest = promote(world.stage(promotion={"policy": policy}), world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == "registered"
    assert (world.alias, world.numbers) == (1, [1, 2])


def test_an_alias_that_moved_meanwhile_is_left_where_it_is(world: World) -> None:
    ctx = world.stage()
    other = world.registry.register("small", "file:///models/x", "sha256:eee")
    world.registry.promote("small", "generator", other, expected=1)
    manifest = promote(ctx, world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == "held"
    assert "alias moved meanwhile" in manifest.outputs["reason"]
    assert world.alias == other


def test_an_alias_that_moves_between_reading_and_setting_is_left_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = world.stage()
    other = world.registry.register("small", "file:///models/x", "sha256:eee")
    really = world.registry.promote

    def late(model: str, alias: str, version: int, expected: int | None, **still: Callable[[], None]) -> None:
        really(model, alias, other, expected=1)
        really(model, alias, version, expected=expected, **still)

    monkeypatch.setattr(world.registry, "promote", late)
    manifest = promote(ctx, world.registry)
    assert manifest is not None
    assert manifest.outputs["decision"] == "held"
    assert world.alias == other


@pytest.mark.parametrize("where", ["get_alias", "promote", "set_tags", "recorder"])
def test_killed_anywhere_it_ends_in_one_version_and_the_same_manifest(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    ctx = world.stage()
    registry = Registry(world.registry.uri)

    def die(*_: object, **__: object) -> None:
        raise Killed

    if where == "recorder":
        ctx.recorder = die
    elif where == "promote":  # after the alias has moved
        really = registry.promote

        def then_die(*args: Any, **kwargs: Any) -> None:
            really(*args, **kwargs)
            raise Killed

        monkeypatch.setattr(registry, "promote", then_die)
    else:
        monkeypatch.setattr(registry, where, die)
    with pytest.raises(Killed):
        promote(ctx, registry)
    assert ctx.done() is None
    ctx.recorder = None
    manifest = promote(ctx, world.registry)
    assert manifest is not None
    assert (manifest.outputs["decision"], manifest.outputs["version"]) == ("promoted", 2)
    assert (world.alias, world.numbers) == (2, [1, 2])
    assert ctx.done() == manifest


@pytest.mark.parametrize("sleeps", ["versions", "get_alias", "register"])
def test_a_late_promotion_leaves_the_alias_where_a_person_moved_it_since(
    world: World, monkeypatch: pytest.MonkeyPatch, sleeps: str
) -> None:
    ctx, registry = world.stage(), Registry(world.registry.uri)
    other = StageContext(ctx.frozen, ctx.store, PROMOTE, ctx.work_dir)
    really = getattr(registry, sleeps)
    before: list[Mapping[str, str]] = []

    def asleep(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        manifest = promote(other, world.registry)
        assert manifest is not None
        assert manifest.outputs["decision"] == "promoted"
        world.registry.promote("small", "generator", 1, expected=2)  # rolled back
        before.append(dict(world.registry.get("small", 2).tags))
        return really(*args, **options)

    monkeypatch.setattr(registry, sleeps, asleep)
    with pytest.raises(SupersededError):
        promote(ctx, registry)
    assert (world.alias, world.numbers) == (1, [1, 2])
    assert [dict(world.registry.get("small", 2).tags)] == before


def test_training_that_kept_the_starting_weights_makes_no_new_version(world: World) -> None:
    manifest = promote(world.stage(digest="sha256:000", known={"theta2": BAD}), world.registry)
    assert manifest is not None
    assert (manifest.outputs["decision"], manifest.outputs["version"]) == ("promoted", 1)
    assert "kept the weights of θ0" in manifest.outputs["reason"]
    assert (world.alias, world.numbers) == (1, [1])
    assert "viper.parent_version" not in world.registry.get("small", 1).tags


def test_the_same_weights_from_another_iteration_keep_their_first_lineage(world: World) -> None:
    promote(world.stage("first"), world.registry)
    manifest = promote(world.stage("second"), world.registry)
    assert manifest is not None
    assert manifest.outputs["version"] == 2
    assert world.registry.get("small", 2).tags["viper.iteration"] == "first"


def test_an_evaluation_of_another_model_is_refused(world: World, tmp_path: Path) -> None:
    ctx = world.stage()
    (tmp_path / "store" / "iterations/it/stages/train-operations/manifest.json").unlink()
    StageContext(ctx.frozen, ctx.store, TRAIN_OPERATIONS, tmp_path).finish(
        (), outputs={"model": {"uri": "file:///models/other", "digest": "sha256:fff"}}
    )
    with pytest.raises(StageError, match="the evaluation is of another model"):
        promote(ctx, world.registry)
