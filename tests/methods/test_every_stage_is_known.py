"""The contract of a stage's declaration: whoever asks something of a stage has an answer for every one of every recipe,
and for stages that nobody but this file has heard of; nobody else keeps what there is to know of a stage."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from prometheus_client import REGISTRY

from fakes import world
from viper.costs.estimate import Circumstances, iteration_cost
from viper.costs.measured import Measurements
from viper.costs.table import default_table
from viper.doctor import reach
from viper.errors import SpecError, StageError
from viper.iteration.observe import manifest_problem
from viper.iteration.recording import metrics, params, record_stage
from viper.lineage.archive import Records
from viper.lineage.walk import walk
from viper.methods import stages as declarations
from viper.methods.stages import DECLARED, FREEZING, THETA0, Stage, StageNode, stage_graph
from viper.modelcache import ModelCache
from viper.modelcache.needs import engine_fields, stage_models
from viper.modelcache.pull import of_stage
from viper.plan import Done, Observed, ObservedStage, plan
from viper.registry import ModelVersion, Registry
from viper.registry.tags import ITERATION_URI, MANIFEST
from viper.report.collect import collect
from viper.report.table import summary_table
from viper.spec import Profile
from viper.spec.status import IterationStatus
from viper.stage import FrozenIteration, Manifest, ResolvedModel, StageContext
from viper.stage.manifest import has_data, load_manifest
from viper.store import DirectoryStore
from viper_operator.job_specs import JobRequest, stage_job
from viper_operator.metrics import count_ended
from viper_operator.plugin.render import assumed, rendered

ENGINES = {
    "vlm": "transformers",
    "reconstructor": "qwen-image:hf://org/drawing@main",
    "editor": "omnigen2:s3://bucket/editor",
    "similarity": "bge-m3:models:/bge@live",
    "imageSimilarity": "open-clip:hf://org/clip@main",
}
RECIPES: dict[str, dict[str, Any]] = {
    f"{stages}, {schedule}, {'cold start' if cold else 'θ0'}, samples: {use}, attention: {images}": {
        "stages": stages,
        "schedule": schedule,
        **({"coldStart": {"samplesUri": "/lessons.jsonl"}} if cold else {}),
        **({} if use is None else {"external": {"uri": "/samples.jsonl", "use": use}}),
        "analysis": {"attentionImages": images},
    }
    for stages in ("both", "captions", "operations", "mixed")
    for schedule in (("interleaved", "upfront") if stages == "both" else ("interleaved",))
    for cold, use, images in ((0, None, 0), (1, "add", 4), (0, "replace", 4))
}
#: Another method, of which there is nothing in viper.
TOYS = (
    StageNode(Stage("gather", "images", "pages", settings=("images",))),
    StageNode(
        Stage("ask", "rows", "pages", task="questions", engines=("vlm",), second="critic", splittable=True),
        ("gather",),
        THETA0,
    ),
    StageNode(
        Stage(
            "choose",
            "samples",
            "questions",
            task="questions",
            settings=("recipe.captions.samples", "engines.imageSimilarity"),
            engines=("vlm", "image_similarity"),
            second="judge",
            quota="recipe.captions.samples",
            title="Questions",
            texts=("question",),
        ),
        ("ask",),
    ),
    StageNode(
        Stage(
            "teach",
            "model",
            "steps",
            task="questions",
            settings=("recipe.captions.training",),
            engines=("vlm", "similarity"),
            distributed=True,
            training="recipe.captions.training",
            label="θq",
            score="thetaQ",
        ),
        ("choose",),
        THETA0,
        ("choose",),
    ),
    StageNode(
        Stage("look", "maps", "maps", settings=("recipe.analysis",), engines=("vlm",)), ("gather", "teach"), "teach"
    ),
    StageNode(Stage("measure", "scores", "answers", settings=("evaluation",), engines=("vlm",)), ("teach",), "teach"),
    StageNode(Stage("settle", "decision", "", settings=("promotion",)), ("measure", "teach", "look"), "teach"),
)
OUTPUTS: dict[str, dict[str, Any]] = {
    "model": {"model": {"uri": "s3://bucket/trained", "digest": "sha256:1"}, "steps": 3},
    "scores": {"scores": {"theta0": {"overall": {"n": 4, "correct": 2, "accuracy": 0.5, "low": 0.1, "high": 0.9}}}},
    "decision": {"decision": "promoted", "version": 2},
}


def frozen(recipe: dict[str, Any], graph: tuple[StageNode, ...] = ()) -> FrozenIteration:
    """Frozen with its graph, with benchmarks and three models that lie elsewhere."""
    evaluation = {"benchmarks": {"tasks": {"blink": {}}, "datasets": "s3://bucket/data"}}
    one = world.frozen("it", engines=ENGINES, recipe=recipe, evaluation=evaluation)
    roles = {
        role: ResolvedModel(uri=f"s3://bucket/{role}", digest=f"sha256:{role}")
        for role in ("generator", "critic", "judge")
    }
    return one.model_copy(update={**roles, "graph": graph or stage_graph(one.iteration.spec.recipe)})


def done(store: DirectoryStore, one: FrozenIteration) -> dict[str, Manifest]:
    """The manifest of every stage, as it would be stored."""
    world.write(store, one)
    made: dict[str, Manifest] = {}
    for node in one.nodes:
        ctx = StageContext(one, store, node.name, Path("unused"))
        made[node.name] = ctx.finish(node.needs, outputs=OUTPUTS.get(node.stage.makes, {}))  # type: ignore[assignment]
    return made


GRAPHS = {
    **{name: (recipe, ()) for name, recipe in RECIPES.items()},
    "toys": ({"analysis": {"attentionImages": 4}}, TOYS),
}


@pytest.fixture(params=GRAPHS.values(), ids=GRAPHS)
def one(request: pytest.FixtureRequest) -> FrozenIteration:
    return frozen(*request.param)


def test_every_stage_is_in_a_graph_that_is_asked_about() -> None:
    asked = {n.name for recipe in RECIPES.values() for n in frozen(recipe).nodes}
    assert asked == set(DECLARED)
    assert {n.stage.makes for n in TOYS} == {s.makes for s in DECLARED.values()}
    assert not asked & {n.name for n in TOYS}


def test_a_declaration_names_settings_that_there_are(one: FrozenIteration) -> None:
    spec = one.iteration.spec
    for stage in (n.stage for n in one.nodes):
        optional = [path for _, path in stage.optional_engines]
        for path in (*stage.settings, *optional, *filter(None, (stage.training, stage.quota, stage.per_image))):
            spec.value_at(path)
        assert stage.makes != "model" or (stage.label and stage.score)


def test_the_model_cache_brings_what_each_stage_loads(one: FrozenIteration, tmp_path: Path) -> None:
    store, spec = DirectoryStore(tmp_path / "store"), one.iteration.spec
    done(store, one)
    for node in one.nodes:
        pulled = dict(of_stage(f"{store.uri}/iterations/it", node.name))
        assert set(stage_models(spec, node.stage).values()) <= set(pulled)
        fields = engine_fields(spec, node.stage)
        models = {ENGINES["imageSimilarity" if f == "image_similarity" else f].partition(":")[2] for f in fields}
        assert models - {""} <= set(pulled)
        policy = {THETA0: "s3://bucket/generator", None: ""}.get(node.model, "s3://bucket/trained")
        assert (policy in pulled) == bool(policy and "vlm" in fields)
        for role in ("critic", "judge"):
            assert (f"s3://bucket/{role}" in pulled) == (node.stage.second == role)
        assert any(uri.startswith("s3://bucket/data/") for uri in pulled) == (node.stage.makes == "scores")
    with pytest.raises(StageError, match="no stage train"):
        of_stage(f"{store.uri}/iterations/it", "train")


def test_every_stage_is_recorded(one: FrozenIteration, tmp_path: Path) -> None:
    store, spec = DirectoryStore(tmp_path / "store"), one.iteration.spec
    for name, manifest in done(store, one).items():
        node, registry = one.node(name), MagicMock(spec=Registry)
        found = params(spec, node.stage)
        assert "recipe.seed" in found
        assert all(any(f"{key}.".startswith(f"{path}.") for key in found) for path in node.stage.settings)
        record_stage(StageContext(one, store, name, tmp_path), manifest, registry)
        registry.log_params.assert_called_once_with(registry.stage_run.return_value, found)
        data = {call.args[1] for call in registry.log_dataset.call_args_list}
        reads = {f"it/{n}" for n in node.needs if one.node(n).stage.makes != "model"}
        assert data == (set() if node.stage.makes == "decision" else reads)
        runs = [call.args[0] for call in registry.log_curve.call_args_list]
        assert runs.count(one.tracking.parent_run) == (node.stage.makes in ("scores", "decision"))
        assert metrics(manifest)["seconds"] >= 0


def test_any_stage_that_is_done_is_data(one: FrozenIteration, tmp_path: Path) -> None:
    for node in one.nodes:
        store = DirectoryStore(tmp_path / node.name)
        assert not has_data(store, one)
        StageContext(one, store, node.name, Path("unused")).finish(())
        assert has_data(store, one)


def test_doctor_knows_what_each_stage_plans_and_misses(one: FrozenIteration, tmp_path: Path) -> None:
    spec, cache = one.iteration.spec, ModelCache(tmp_path / "models")
    for stage in (FREEZING.stage, *(n.stage for n in one.nodes)):
        roles = {phase.role.replace(" ", "_") for phase in reach.planned(spec, cache, stage)}
        assert roles == set(engine_fields(spec, stage))
        missing = {place.where for place in reach.models_there(spec, cache, stage) if place.problem}
        assert missing == set(stage_models(spec, stage).values())


def test_a_manifest_without_what_its_stage_makes_is_not_believed(one: FrozenIteration, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    made = done(store, one)
    for node in one.nodes:
        digests = {n: made[n].content_digest for n in node.needs}
        stored = load_manifest(store, one.prefix, node.name)
        assert stored is not None
        assert manifest_problem(node, stored, one, digests) == ""
        empty = stored.model_copy(update={"outputs": {}})
        assert bool(manifest_problem(node, empty, one, digests)) == (node.stage.makes in OUTPUTS)


def test_a_plan_holds_what_is_nothing_to_go_on_with(one: FrozenIteration) -> None:
    made = {n.name: ObservedStage(done=Done(accepted=9, train=9, decision="promoted")) for n in one.nodes}
    spec, held = one.iteration.spec, {"images": "NoData", "rows": "NoData", "samples": "TooFewSamples"}
    for node in one.nodes:
        seen = {**made, node.name: ObservedStage(done=Done(decision="held"))}
        found = next(s for s in plan(spec, Observed(seen, nodes=one.nodes), 0.0).stages if s.name == node.name)
        reason = {**held, "decision": "PromotionHeld"}.get(node.stage.makes)
        assert (found.state, found.reason) == (("Held", reason) if reason else ("Succeeded", "ManifestWritten"))


def test_every_stage_is_reported(one: FrozenIteration, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    done(store, one)
    (found,) = collect(store, ["it"]).iterations
    assert [s.name for s in found.stages if s.manifest is not None] == [n.name for n in one.nodes]
    assert [t.stage for t in found.trainings] == [n.name for n in one.nodes if n.data]
    assert (found.images is not None) == any(n.stage.makes == "images" for n in one.nodes)
    assert len(found.funnels) == sum(n.stage.makes == "samples" for n in one.nodes)
    assert found.scores.keys() == {"theta0"}
    assert found.outcome is not None
    named = {n.stage.score: n.stage.label for n in one.nodes if n.stage.makes == "model"}
    assert found.called(named) == named
    assert "it: " in summary_table(store, ["it"])


def test_every_stage_is_in_the_lineage_of_its_version(one: FrozenIteration, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    made = done(store, one)
    uri = f"{store.uri}/iterations/it"
    tags = {ITERATION_URI: uri, **{f"{MANIFEST}{name}": m.content_digest for name, m in made.items()}}
    registry = MagicMock(spec=Registry)
    registry.aliases.return_value = {}
    record = walk(Records(registry), ModelVersion("m", 2, "s3://bucket/trained", "sha256:1", "r", tags))
    assert record.problems == ()
    assert record.iteration is not None
    for node, stage in zip(one.nodes, record.iteration.stages, strict=True):
        assert (stage.name, stage.state) == (node.name, "as recorded")
        assert (stage.made is not None) == (node.stage.makes == "model")
        assert (stage.author is not None) == (node.model is not None)
        assert (stage.critic is not None) == bool(node.stage.second)


def test_every_stage_has_its_cost(one: FrozenIteration) -> None:
    known = Circumstances(default_table(), Measurements())
    costs = iteration_cost(one.iteration.spec, known, one.nodes).stages
    assert [c.name for c in costs] == [n.name for n in one.nodes]
    for node, cost in zip(one.nodes, costs, strict=True):
        assert cost.unit == node.stage.unit
        assert (cost.acceptance is not None) == (node.stage.makes in ("images", "rows", "samples"))
        assert (cost.items.high > 0) == (cost.wall.high > 0) == bool(node.stage.unit)


def test_every_stage_gets_its_job_and_is_counted(one: FrozenIteration) -> None:
    cache = {"defaults": {"modelCache": {"claimName": "models", "readOnly": False}}}
    there = one.iteration.model_copy(
        update={"spec": one.iteration.spec.model_copy(update={"profile": Profile(**cache)})}
    )
    for stage in (n.stage for n in one.nodes):
        job = stage_job(JobRequest(there, "uid", stage), assumed(None))
        pod = job["spec"]["template"]["spec"]
        assert stage.name in pod["containers"][0]["args"]
        wanted = bool(stage_models(there.spec, stage)) or "vlm" in engine_fields(there.spec, stage)
        assert ("initContainers" in pod) == wanted
        labels = {"stage": stage.name, "state": "Succeeded"}
        before = REGISTRY.get_sample_value("viper_stages_finished_total", labels) or 0
        count_ended(IterationStatus(), IterationStatus(stages=[{"name": stage.name, "state": "Succeeded"}]))
        assert REGISTRY.get_sample_value("viper_stages_finished_total", labels) == before + 1


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_plugin_shows_the_job_of_every_stage(recipe: dict[str, Any]) -> None:
    one = frozen(recipe)
    shown = [list(yaml.safe_load_all(text))[-1] for text in rendered(one.iteration, assumed(None))]
    assert [job["metadata"]["name"] for job in shown] == [f"it-{n.name}" for n in (FREEZING, *one.nodes)]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage("x", "rows", "rows", engines=("segmenter",)), "declares the engine 'segmenter'"),
        (Stage("x", "rows", "rows", optional_engines=(("vlm", "recipe.captions.sample"),)), "there is no setting"),
    ],
)
def test_a_declaration_of_what_there_is_not_is_refused(stage: Stage, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        engine_fields(world.iteration("it").spec, stage)


def test_a_role_that_there_is_not_is_refused() -> None:
    with pytest.raises(StageError, match="declares the role 'teacher'"):
        frozen({}).second(Stage("x", "rows", "rows", second="teacher"))


ROOT = Path(__file__).parents[2]
#: Constants of the declarations that are names of stages.
CONSTANTS = {k: v for k, v in vars(declarations).items() if k.isupper() and isinstance(v, str) and v in DECLARED}
#: The same, of the tasks of the paper.
OF_TASKS = {k: v for k, v in CONSTANTS.items() if DECLARED[v].task in ("captions", "operations", "mixed")}


@cache
def sources() -> dict[str, ast.Module]:
    """The modules in which such a name occurs."""
    words = re.compile(rf"\b({'|'.join(CONSTANTS)})\b|[\"']({'|'.join(CONSTANTS.values())})[\"']")
    folders = ("viper", "operator/viper_operator", "jobs/viper_jobs")
    files = {file: file.read_text() for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))}
    return {f.relative_to(ROOT).as_posix(): ast.parse(text) for f, text in files.items() if words.search(text)}


def named(tree: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """The constants, and what they stand for, that occur in a module."""
    for node in ast.walk(tree):
        text = {ast.alias: "name", ast.Attribute: "attr", ast.Name: "id", ast.Constant: "value"}.get(type(node))
        found = None if text is None else getattr(node, text)
        if isinstance(found, str) and (found in constants or found in constants.values()):
            yield found


def tables(tree: ast.AST) -> list[int]:
    """Lines of the dictionaries with two stages among their keys."""
    dictionaries = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return [d.lineno for d in dictionaries if sum(any(named(key, CONSTANTS)) for key in d.keys if key) > 1]


def test_only_methods_and_tasks_name_a_tasks_stage() -> None:
    naming = {name.rpartition("/")[0] for name, tree in sources().items() if any(named(tree, OF_TASKS))}
    assert "viper/methods" in naming
    assert {n for n in naming if n != "viper/methods" and not n.startswith("viper/tasks")} == set()


def test_there_is_one_table_of_stages() -> None:
    assert tables(ast.parse("TABLE = {EVALUATE: 1, 'promote': 2}")) == [1]
    assert {name: found for name, tree in sources().items() if (found := tables(tree))} == {}
