"""Manifests that must be refused, each a valid one with a single mistake.

One table for all places where manifests are checked: the API server (schema and CEL rules of the CRDs), and `viper
render` and `kubectl viper render` (the pydantic models).
"""

from __future__ import annotations

from typing import Any

from invalid_names import NAMES
from invalid_profiles import PROFILE
from manifest_cases import AT_LEAST, AT_MOST, GONE, Case


def _training(name: str, field: str, value: Any, *says: str) -> Case:
    path = f"spec recipe captions training {field}"
    return Case(name, {path: value}, path.replace(" ", "."), says)


GENERAL = [
    Case("no spec", {"spec": GONE}, "spec", ("equired",)),
    Case(
        "a name with capitals",
        {"metadata name": "Turn_1"},
        "metadata.name",
        (),
        server=("lower case",),
        here=("lower-case",),
    ),
    Case("a name with dots", {"metadata name": "turn.1"}, "metadata.name", ("at most 50 lower-case letters",)),
    Case("a name of 51 letters", {"metadata name": "a" * 51}, "metadata.name", ("at most 50 lower-case letters",)),
    Case("no model", {"spec model": GONE}, "spec.model", ("equired",)),
    Case("an empty model", {"spec model": ""}, "spec.model", ("at least 1",)),
    Case("a model with a slash", {"spec model": "a/b"}, "spec.model", ("a name without '/'",)),
    Case("a model that is a number", {"spec model": 7}, "spec.model", ("string",)),
    Case("a misspelt field", {"spec modle": "m"}, "spec.modle", ("unknown field",)),
    Case("snake case", {"spec recipe cold_start": None}, "spec.recipe.cold_start", ("unknown field",)),
    Case("a field one level too high", {"spec editsPerImage": 3}, "spec.editsPerImage", ("unknown field",)),
    Case("a spec that is a list", {"spec": []}, "spec", (), server=("object",), here=("dictionary",)),
    Case("suspend as a word", {"spec suspend": "yes"}, "spec.suspend", ("boolean",)),
]

GENERATOR = [
    Case("alias and version", {"spec generator": {"alias": "a", "version": 1}}, "spec.generator", ("exactly one",)),
    Case("an empty generator", {"spec generator": {}}, "spec.generator", ("exactly one of alias, version, uri",)),
    Case(
        "initialUri with a version",
        {"spec generator": {"version": 1, "initialUri": "file:///m"}},
        "spec.generator.initialUri",
        ("only makes sense with alias",),
    ),
    Case("version 0", {"spec generator": {"version": 0}}, "spec.generator.version", (AT_LEAST.format(1),)),
    Case("version 'latest'", {"spec generator": {"version": "latest"}}, "spec.generator.version", ("integer",)),
]

IMAGES = [
    Case("no images", {"spec images": GONE}, "spec.images", ("equired",)),
    Case("no pool", {"spec images uri": GONE}, "spec.images.uri", ("equired",)),
    Case("an empty pool", {"spec images uri": ""}, "spec.images.uri", ("at least 1",)),
    Case("a limit of none", {"spec images limit": 0}, "spec.images.limit", (AT_LEAST.format(1),)),
    Case("a limit in words", {"spec images limit": "all"}, "spec.images.limit", ("integer",)),
    Case("a negative offset", {"spec images offset": -1}, "spec.images.offset", (AT_LEAST.format(0),)),
    Case("sides too large", {"spec images maxSide": 10000}, "spec.images.maxSide", (AT_MOST.format(8192),)),
    Case(
        "no side fits",
        {"spec images minSide": 2000},
        "spec.images.minSide",
        ("minSide (2000) is more than maxSide (1536)", "lower one"),
    ),
]

ENGINES_AND_EVALUATION = [
    Case("no editor", {"spec engines editor": GONE}, "spec.engines.editor", ("equired",)),
    Case("an empty engine", {"spec engines vlm": ""}, "spec.engines.vlm", ("at least 1",)),
    *(
        Case(f"an endpoint {why}", {"spec engines vlm": name}, "spec.engines.vlm", ("openai:https://host/v1",))
        for why, name in {
            "without an address": "openai:",
            "without a scheme": "openai:host/v1#m",
            "with a password": "openai:https://user:secret@host/v1#m",
            "with a query": "openai:https://host/v1?key=secret#m",
            "with an empty name": "openai:https://host/v1#",
        }.items()
    ),
    *(
        Case(f"a {role} {why}", {f"spec recipe models {role}": name}, f"spec.recipe.models.{role}", ("#model-name",))
        for role in ("critic", "judge")
        for why, name in {
            "behind an endpoint without a name": "openai:https://host/v1",
            "behind no address": "openai:model",
        }.items()
    ),
    Case("an unknown interface", {"spec engines judge": "x"}, "spec.engines.judge", ("unknown field",)),
    Case("answers of no length", {"spec evaluation maxTokens": 0}, "spec.evaluation.maxTokens", (AT_LEAST.format(1),)),
    Case("a set that is a list", {"spec evaluation questions": ["a"]}, "spec.evaluation.questions", ("string",)),
    Case(
        "an unknown benchmark",
        {"spec evaluation benchmarks": {"tasks": {"mmstars": {}}, "datasets": "/data"}},
        "spec.evaluation.benchmarks.tasks",
        ("unknown benchmarks", "mmstar", "crpe_relation"),
    ),
    Case(
        "benchmarks without data",
        {"spec evaluation benchmarks": {"tasks": {"mmstar": {}}}},
        "spec.evaluation.benchmarks.datasets",
        ("must say where the data sets", "set a directory, s3:// or hub"),
    ),
    Case(
        "a floor in points",
        {"spec evaluation benchmarks": {"tasks": {"mmstar": {"floor": 60}}, "datasets": "/data"}},
        "spec.evaluation.benchmarks.tasks.mmstar.floor",
        (AT_MOST.format(1),),
    ),
    Case(
        "a judge without a model",
        {"spec evaluation benchmarks judge": "openai:https://judge/v1"},
        "spec.evaluation.benchmarks.judge",
        ("rules, or openai:https://host/v1#model-name",),
    ),
]

RECIPE = [
    Case("an unknown choice of stages", {"spec recipe stages": "all"}, "spec.recipe.stages", ("captions", "mixed")),
    Case("an unknown schedule", {"spec recipe schedule": "x"}, "spec.recipe.schedule", ("interleaved", "upfront")),
    Case("a negative seed", {"spec recipe seed": -1}, "spec.recipe.seed", (AT_LEAST.format(0),)),
    Case("parts too large", {"spec recipe partSize": 5000}, "spec.recipe.partSize", (AT_MOST.format(4096),)),
    Case("no samples", {"spec recipe captions samples": 0}, "spec.recipe.captions.samples", (AT_LEAST.format(1),)),
    Case(
        "a temperature too high",
        {"spec recipe captions captioning temperature": 3},
        "spec.recipe.captions.captioning.temperature",
        (AT_MOST.format(2),),
    ),
    Case(
        "a nucleus of nothing",
        {"spec recipe captions critique topP": 0},
        "spec.recipe.captions.critique.topP",
        ("greater than 0",),
    ),
    _training(
        "a batch that does not divide", "batchPrompts", 100, "batchPrompts (100)", "multiple of miniBatchPrompts (64)"
    ),
    _training("a group of one", "groupSize", 1, AT_LEAST.format(2)),
    _training("a learning rate in quotes", "learningRate", "1e-6", "number"),
    _training("a learning rate of zero", "learningRate", 0, "greater than 0"),
    _training("clipping everything", "clipLow", 1.0, "less than 1"),
    *(
        Case(
            f"selecting {task} by perception while verl trains",
            {"spec engines trainer": "verl", f"spec recipe {task} training select": "heldOutPerception"},
            f"spec.recipe.{task}.training.select",
            ("heldOutReward or last", "engines.trainer: trl"),
        )
        for task in ("captions", "operations")
    ),
    _training("selecting the best", "select", "best", "heldOutReward", "heldOutPerception"),
    _training("no steps", "steps", 0, AT_LEAST.format(1)),
    Case(
        "an unknown category",
        {"spec recipe operations categoryBalance targets": {"Removing": 1.0}},
        "spec.recipe.operations.categoryBalance.targets",
        ("unknown categories", "the four are", "Editing Background"),
    ),
    Case(
        "shares that do not sum to 1",
        {"spec recipe operations categoryBalance targets": {"Editing Background": 0.5}},
        "spec.recipe.operations.categoryBalance.targets",
        ("sum to 1",),
    ),
    Case(
        "a negative share",
        {"spec recipe operations categoryBalance targets": {"Editing Background": -0.5, "Attribute Tuning": 1.5}},
        "spec.recipe.operations.categoryBalance.targets",
        ("≥ 0",),
    ),
    Case(
        "too many edits of an image",
        {"spec recipe operations editsPerImage": 65},
        "spec.recipe.operations.editsPerImage",
        (AT_MOST.format(64),),
    ),
    Case(
        "nothing passes the filter",
        {"spec recipe validation clip": {"minScore": 0.9, "maxScore": 0.5}},
        "spec.recipe.validation.clip.minScore",
        ("more than maxScore", "lower one"),
    ),
    Case(
        "no edit changes as much",
        {"spec recipe validation change": {"minShare": 0.9, "maxShare": 0.5}},
        "spec.recipe.validation.change.minShare",
        ("more than maxShare", "lower one"),
    ),
    Case(
        "an even number of votes",
        {"spec recipe validation judge votes": 2},
        "spec.recipe.validation.judge.votes",
        ("must be odd",),
    ),
    Case(
        "everything held out",
        {"spec recipe validation heldOutShare": 1},
        "spec.recipe.validation.heldOutShare",
        ("less than 1",),
    ),
    Case("a threshold of zero", {"spec recipe reward tau": 0}, "spec.recipe.reward.tau", ("greater than 0",)),
    Case(
        "a cold start without samples", {"spec recipe coldStart": {}}, "spec.recipe.coldStart.samplesUri", ("equired",)
    ),
]

PROMOTION = [
    Case(
        "an unknown policy",
        {"spec promotion policy": "auto"},
        "spec.promotion.policy",
        ("Automatic", "Manual", "Never"),
    ),
    Case(
        "an alias with a space", {"spec promotion alias": "a b"}, "spec.promotion.alias", ("beginning with a letter",)
    ),
    Case(
        "a significance of one half",
        {"spec promotion gate significance": 0.5},
        "spec.promotion.gate.significance",
        ("less than 0.5",),
    ),
]

OTHER_KINDS = [
    Case("a loop without a template", {"spec template": GONE}, "spec.template", ("equired",), kind="ViperLoop"),
    Case("a loop of no iterations", {"spec iterations": 0}, "spec.iterations", (AT_LEAST.format(1),), kind="ViperLoop"),
    Case("an endless loop", {"spec iterations": 1001}, "spec.iterations", (AT_MOST.format(1000),), kind="ViperLoop"),
    Case(
        "a loop whose iterations have no room for their numbers",
        {"metadata name": "a" * 49},
        "metadata.name",
        ("too long", "at most 50", "shorten it"),
        kind="ViperLoop",
    ),
    Case(
        "a budget of nothing",
        {"spec budget gpuHours": 0},
        "spec.budget.gpuHours",
        ("greater than 0",),
        kind="ViperLoop",
    ),
    Case(
        "a budget in words",
        {"spec budget": "10h"},
        "spec.budget",
        (),
        kind="ViperLoop",
        server=("object",),
        here=("dict",),
    ),
    Case(
        "a mistake in the template",
        {"spec template images limit": 0},
        "spec.template.images.limit",
        (AT_LEAST.format(1),),
        kind="ViperLoop",
    ),
    Case(
        "a generator in the template",
        {"spec template generator": {}},
        "spec.template.generator",
        ("exactly one",),
        kind="ViperLoop",
    ),
    Case(
        "an unknown stage of a profile",
        {"spec stages": {"train": {}}},
        "spec.stages",
        ("unknown stages",),
        kind="ViperProfile",
    ),
    Case("a profile of words", {"spec defaults gpus": "all"}, "spec.defaults.gpus", ("integer",), kind="ViperProfile"),
    Case(
        "a queue that is no name",
        {"spec queueName": "Team A"},
        "spec.queueName",
        ("lower-case letters",),
        kind="ViperProfile",
    ),
    Case("a recipe in a profile", {"spec recipe": {}}, "spec.recipe", ("unknown field",), kind="ViperProfile"),
]

CASES = [*GENERAL, *GENERATOR, *IMAGES, *ENGINES_AND_EVALUATION, *RECIPE, *PROMOTION, *PROFILE, *OTHER_KINDS, *NAMES]
