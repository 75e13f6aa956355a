"""Manifests that must be refused, each a valid one with a single mistake.

One table for both places where manifests are checked: the API server (schema and CEL rules of the CRDs) and `viper
render` (the pydantic models).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

#: A value that removes the field.
GONE = object()

ENGINES = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")
SPEC: dict[str, Any] = {"model": "m", "images": {"uri": "smallworld:scenes"}, "engines": ENGINES}

VALID: dict[str, dict[str, Any]] = {
    "ViperIteration": {"metadata": {"name": "turn"}, "spec": SPEC},
    "ViperLoop": {"metadata": {"name": "loop"}, "spec": {"template": SPEC}},
    "ViperProfile": {"metadata": {"name": "a100"}, "spec": {"defaults": {"gpus": 1}}},
}


def valid(kind: str) -> dict[str, Any]:
    """The smallest valid manifest of a kind."""
    return {"apiVersion": "viper.dev/v1alpha1", "kind": kind, **copy.deepcopy(VALID[kind])}


def patched(manifest: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at these paths (keys separated by spaces) set, or removed with `GONE`."""
    made = copy.deepcopy(manifest)
    for path, value in patch.items():
        *parents, last = path.split(" ")
        at = made
        for key in parents:
            at = at.setdefault(key, {})
        if value is GONE:
            del at[last]
        else:
            at[last] = value
    return made


@dataclass(frozen=True)
class Case:
    """A mistake.

    `field`: the path that both messages name; `says`: words of the remedy in both; `server`, `here`: words of one.
    """

    name: str
    patch: dict[str, Any]
    field: str
    says: tuple[str, ...]
    kind: str = "ViperIteration"
    server: tuple[str, ...] = ()
    here: tuple[str, ...] = ()

    @property
    def manifest(self) -> dict[str, Any]:
        return patched(valid(self.kind), self.patch)


def _training(name: str, field: str, value: Any, *says: str) -> Case:
    path = f"spec recipe captions training {field}"
    return Case(name, {path: value}, path.replace(" ", "."), says)


def _quantity(name: str, field: str, value: str) -> Case:
    path = f"spec profile defaults {field}"
    says = "[KMGTPE]i", "such as 500m, 1.5 or 64Gi"
    return Case(name, {path: value}, path.replace(" ", "."), (), server=says[:1], here=says[1:])


def _resources(name: str, field: str, value: Any, *says: str, at: str = "") -> Case:
    return Case(name, {f"spec profile defaults {field}": value}, f"spec.profile.defaults.{at or field}", says)


AT_LEAST, AT_MOST = "greater than or equal to {}", "less than or equal to {}"

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
        (),
        here=("rules, or openai:https://host/v1#model-name",),
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

PROFILE = [
    Case("an unknown device", {"spec profile device": "gpu"}, "spec.profile.device", ("cpu, cuda or cuda:",)),
    Case(
        "a profile and a reference",
        {"spec profile": {"device": "cpu"}, "spec profileRef": "a100"},
        "spec.profileRef",
        ("either profile or profileRef", "remove one"),
    ),
    Case("a reference that is no name", {"spec profileRef": "A 100"}, "spec.profileRef", ("lower-case letters",)),
    Case(
        "an unknown stage",
        {"spec profile stages": {"train": {}}},
        "spec.profile.stages",
        ("unknown stages", "train-captions"),
    ),
    Case(
        "training in shards",
        {"spec profile stages": {"train-captions": {"shards": 2}}},
        "spec.profile.stages",
        ("shards must be 1", "only synthesize-captions"),
    ),
    Case(
        "everything in shards",
        {"spec profile defaults shards": 4},
        "spec.profile.defaults",
        ("defaults.shards must be 1", "synthesize-captions"),
    ),
    Case(
        "GPUs of the defaults, named again by a stage",
        {
            "spec profile defaults gpus": 1,
            "spec profile stages": {"evaluate": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
        },
        "spec.profile.stages",
        ("together with defaults", "remove one of the two"),
    ),
    Case(
        "evaluation on several nodes",
        {"spec profile": {"defaults": {"workClaim": "work"}, "stages": {"evaluate": {"nodes": 2}}}},
        "spec.profile.stages",
        ("nodes must be 1", "only train-captions"),
    ),
    Case(
        "everything on several nodes",
        {"spec profile defaults nodes": 2},
        "spec.profile.defaults",
        ("defaults.nodes must be 1", "train-captions"),
    ),
    Case(
        "nodes that share nothing",
        {"spec engines trainer": "verl", "spec profile": {"stages": {"train-captions": {"nodes": 2}}}},
        "spec.profile.stages",
        ("workClaim must name a ReadWriteMany claim",),
    ),
    Case(
        "nodes for a trainer that works on one",
        {"spec profile": {"stages": {"train-captions": {"nodes": 2, "workClaim": "work"}}}},
        "spec.profile",
        ("nodes must be 1", "the trainer trl works on one node", "set engines.trainer: verl"),
    ),
    _resources("no nodes", "nodes", 0, AT_LEAST.format(1)),
    _resources("a claim that is no name", "workClaim", "My Claim", "lower-case letters"),
    _resources("no shards", "shards", 0, AT_LEAST.format(1)),
    _resources("too many retries", "retries", 21, AT_MOST.format(20)),
    _resources("a deadline of no time", "deadlineSeconds", 0, AT_LEAST.format(1)),
    _resources("a deadline with a unit", "deadlineSeconds", "2h", "integer"),
    _resources("a negative pause", "backoffSeconds", -1, AT_LEAST.format(0)),
    _resources("negative GPUs", "gpus", -1, AT_LEAST.format(0)),
    Case(
        "GPUs named twice",
        {"spec profile defaults": {"gpus": 1, "resources": {"requests": {"nvidia.com/gpu": 1}}}},
        "spec.profile.defaults",
        ("gpus sets nvidia.com/gpu", "remove one of the two"),
    ),
    _resources("an image with a space", "image", "a b", "without spaces"),
    _resources("an unknown pull policy", "imagePullPolicy", "Sometimes", "Always", "IfNotPresent"),
    _quantity("a memory of letters", "resources limits memory", "lots"),
    _quantity("a negative request", "resources requests cpu", "-1"),
    _resources(
        "a request above its limit",
        "resources",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1000M"}},
        "lower the request",
        at="resources.requests",
    ),
    _quantity("a shared memory of letters", "shmSize", "big"),
    _resources(
        "a variable from something else than a secret",
        "env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}, "configMapKeyRef": {}}}],
        "unknown field",
        at="env[0].valueFrom.configMapKeyRef",
    ),
    _resources(
        "a value beside the secret that it comes from",
        "env",
        [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "remove one of them",
        at="env[0].value",
    ),
    _resources(
        "a secret that is no name",
        "env",
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "My Secret", "key": "k"}}}],
        "lower-case letters",
        at="env[0].valueFrom.secretKeyRef.name",
    ),
    _resources(
        "credentials in the environment",
        "env",
        [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}],
        "remove it",
        "operator's secret",
        at="env[0].name",
    ),
    _resources("a variable twice", "env", [{"name": "A"}, {"name": "A"}], "env names", "twice; keep one", at="env"),
    _resources("a variable that is no name", "env", [{"name": "1A"}], "not beginning with a digit", at="env[0].name"),
    Case(
        "a pull secret as a string",
        {"spec profile defaults imagePullSecrets": ["s"]},
        "spec.profile.defaults.imagePullSecrets[0]",
        (),
        server=("object",),
        here=("dict",),
    ),
    _resources(
        "a toleration of all with a value",
        "tolerations",
        [{"operator": "Exists", "value": "x"}],
        "remove value",
        at="tolerations[0].value",
    ),
    _resources(
        "a toleration without a key", "tolerations", [{"effect": "NoSchedule"}], "set key", at="tolerations[0].operator"
    ),
    _resources(
        "a toleration of an unknown effect",
        "tolerations",
        [{"key": "a", "effect": "Never"}],
        "NoSchedule",
        "NoExecute",
        at="tolerations[0].effect",
    ),
    _resources(
        "a time for no eviction",
        "tolerations",
        [{"key": "a", "tolerationSeconds": 3}],
        "set effect: NoExecute",
        at="tolerations[0].tolerationSeconds",
    ),
    _resources("an unknown affinity", "affinity", {"gpuAffinity": {}}, "unknown field", at="affinity.gpuAffinity"),
    _resources(
        "spreading over nothing",
        "topologySpreadConstraints",
        [{"maxSkew": 1}],
        "equired",
        at="topologySpreadConstraints[0].topologyKey",
    ),
    _resources("a cache without a claim", "modelCache", {"mountPath": "/m"}, "equired", at="modelCache.claimName"),
    _resources(
        "a cache at a relative path",
        "modelCache",
        {"claimName": "c", "mountPath": "m"},
        "an absolute path",
        at="modelCache.mountPath",
    ),
    _resources(
        "a pod template with containers at its root",
        "podTemplate",
        {"containers": []},
        "unknown field",
        at="podTemplate.containers",
    ),
    _resources("a negative time to live", "ttlSecondsAfterFinished", -1, AT_LEAST.format(0)),
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

CASES = [*GENERAL, *GENERATOR, *IMAGES, *ENGINES_AND_EVALUATION, *RECIPE, *PROMOTION, *PROFILE, *OTHER_KINDS]
