"""What a schema cannot say of the resources: CEL rules.

Every rule mirrors a validator of the pydantic model it is listed under, in the same words as far as CEL can say them
(tests/operator/test_invalid_manifests.py holds the two against each other), or protects what an iteration was started
with. CEL treats a null in a nullable field as an absent one, so that `has` is enough.
"""

from __future__ import annotations

from viper.methods.stages import DECLARED, DISTRIBUTED, FREEZE, SPLITTABLE, STAGES
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.evaluation import Benchmarks
from viper.spec.forms import COUNTED, NAME, NAME_LENGTH, WORDS
from viper.spec.iteration import (
    GeneratorRef,
    Images,
    IterationSpec,
    LoopSpec,
    ViperIteration,
    ViperLoop,
    ViperProfile,
    shared_per_image,
)
from viper.spec.pods import (
    BYTES_OF,
    LEAST_CPU,
    RESERVED_ENV,
    TOO_LITTLE_CPU,
    UNEQUAL,
    EnvVar,
    ResourceRequirements,
    Toleration,
)
from viper.spec.profile import Profile, StageResources
from viper.spec.recipe import (
    CATEGORIES,
    CategoryBalance,
    ChangeFilter,
    ClipFilter,
    JudgeSettings,
    TrainingSettings,
)
from viper_operator.cel import NATIVE, Rule, at, at_least, fits, listed, size, taken, unique

_KNOWN = (FREEZE, *STAGES)
_ABLE, _SPANNING = ", ".join(SPLITTABLE), ", ".join(DISTRIBUTED)
_RESERVED = " || ".join(
    f"self.name.startsWith('{n}')" if n.endswith("_") else f"self.name == '{n}'" for n in RESERVED_ENV
)


def _selectable(task: str) -> Rule:
    """verl cannot measure the perception of its checkpoints."""
    where = f"recipe.{task}.training.select"
    return Rule(
        f"self.engines.trainer != 'verl' || self.{where} != 'heldOutPerception'",
        f"{where} must be heldOutReward or last: the trainer verl cannot measure perception while it trains; or set "
        "engines.trainer: trl",
        field=where,
    )


def _several_nodes(profile: str) -> str:
    return f"(has({profile}.stages[k].nodes) && {profile}.stages[k].nodes > 1)"


#: The value that counts for stage k of a profile: its own, or that of `defaults`.
_OWN_GPUS = "(has(self.stages[k].gpus) ? self.stages[k].gpus : self.defaults.gpus)"
_OWN_NAME = "(has(self.stages[k].gpuResourceName) ? self.stages[k].gpuResourceName : self.defaults.gpuResourceName)"


def _names_gpus(resources: str, name: str) -> str:
    return f"({name} in {resources}.limits || {name} in {resources}.requests)"


_TWICE = (
    f"self.stages.exists(k, {_OWN_GPUS} > 0 && (has(self.stages[k].resources) ? "
    f"{_names_gpus('self.stages[k].resources', _OWN_NAME)} : {_names_gpus('self.defaults.resources', _OWN_NAME)}))"
)

#: Of what the shards of stage k share, how many come from one image.
_PER_IMAGE = "1"
for _stage in DECLARED.values():
    if _path := shared_per_image(_stage):
        _PER_IMAGE = f"(k == '{_stage.name}' ? self.{_path} : {_PER_IMAGE})"

#: Images, or edits, that there can be (`viper.spec.iteration.Images.most`).
_MOST = (
    "[has(self.images.limit) ? self.images.limit : 1000000000, "
    f"self.images.uri.matches('{COUNTED}[0-9]') ? "
    "int(self.images.uri.find('[?&]count=[0-9]{1,9}').substring(7)) : 1000000000].min() * "
    f"{_PER_IMAGE}"
)
_NEVER = "self.template.promotion.policy == 'Never'"

RULES: dict[type, tuple[Rule, ...]] = {
    GeneratorRef: (
        Rule(
            "[has(self.alias), has(self.version), has(self.uri)].exists_one(set, set)",
            "set exactly one of alias, version, uri",
        ),
        Rule("!has(self.initialUri) || has(self.alias)", "initialUri only makes sense with alias", field="initialUri"),
    ),
    Images: (
        Rule(
            "self.minSide <= self.maxSide",
            "'minSide (%d) is more than maxSide (%d); lower one or raise the other'"
            ".format([self.minSide, self.maxSide])",
            expression=True,
            field="minSide",
        ),
    ),
    TrainingSettings: (
        Rule(
            "self.batchPrompts % self.miniBatchPrompts == 0",
            "'batchPrompts (%d) must be a multiple of miniBatchPrompts (%d)'"
            ".format([self.batchPrompts, self.miniBatchPrompts])",
            expression=True,
            field="batchPrompts",
        ),
    ),
    CategoryBalance: (
        Rule(
            f"self.targets.all(k, k in {listed(CATEGORIES)})",
            f"unknown categories; the four are {', '.join(CATEGORIES)}",
            field="targets",
        ),
        Rule(
            "self.targets.all(k, self.targets[k] >= 0.0) && "
            "self.targets.map(k, self.targets[k]).sum() > 0.999999 && "
            "self.targets.map(k, self.targets[k]).sum() < 1.000001",
            "shares must be ≥ 0 and sum to 1",
            field="targets",
        ),
    ),
    ChangeFilter: (
        Rule(
            "self.minShare <= self.maxShare",
            "minShare is more than maxShare, so that nothing would pass; lower one or raise the other",
            field="minShare",
        ),
    ),
    ClipFilter: (
        Rule(
            "self.minScore <= self.maxScore",
            "minScore is more than maxScore, so that nothing would pass; lower one or raise the other",
            field="minScore",
        ),
    ),
    Benchmarks: (
        Rule(
            f"self.tasks.all(k, k in {listed(BENCHMARKS)})",
            f"tasks names unknown benchmarks; the benchmarks are {', '.join(BENCHMARKS)}",
            field="tasks",
        ),
        Rule(
            "self.tasks.size() == 0 || self.datasets != ''",
            "datasets must say where the data sets of the benchmarks are; set a directory, s3:// or hub",
            field="datasets",
        ),
    ),
    JudgeSettings: (Rule("self.votes % 2 == 1", "votes must be odd, so that a majority exists", field="votes"),),
    ResourceRequirements: (
        *taken("requests"),
        *taken("limits"),
        Rule(
            f"!('cpu' in self.limits) || {at_least(at('limits', 'cpu'), LEAST_CPU)}",
            f"limits.cpu {TOO_LITTLE_CPU}",
            field="limits",
        ),
        Rule(
            f"self.requests.all(k, {NATIVE} || (k in self.limits && (type(self.requests[k]) != int || "
            "type(self.limits[k]) != int || int(self.requests[k]) == int(self.limits[k]))))",
            f"requests of a device {UNEQUAL}",
            field="requests",
        ),
        *(fits(r) for r in ("cpu", *BYTES_OF)),
    ),
    LoopSpec: (
        Rule(
            f"{_NEVER} || has(self.template.generator.alias)",
            "template.generator must be an alias: from a fixed version or URI every iteration would begin anew, and "
            "nothing would evolve; set template.generator.alias, with initialUri for the first one",
            field="template.generator",
        ),
        Rule(
            f"{_NEVER} || !has(self.template.generator.alias) || "
            "self.template.generator.alias == self.template.promotion.alias",
            "'template.promotion.alias must be that of template.generator (' + self.template.generator.alias + "
            "'), or no iteration would begin from what the one before made; use one alias for both, or policy: Never'",
            expression=True,
            field="template.promotion.alias",
        ),
    ),
    Toleration: (
        Rule(
            "self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists takes no value; remove value, or use operator Equal",
            field="value",
        ),
        Rule(
            "(has(self.key) && self.key != '') || self.operator == 'Exists'",
            "without a key the operator must be Exists; set key, or operator: Exists",
            field="operator",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds only applies to effect NoExecute; set effect: NoExecute, or remove it",
            field="tolerationSeconds",
        ),
    ),
    EnvVar: (
        Rule(
            f"!({_RESERVED})",
            "self.name + ' is set by the operator (as are AWS_*, VIPER_*, HOME, HF_HUB_OFFLINE); remove it: "
            "credentials come from the operator\\'s secret'",
            expression=True,
            field="name",
        ),
        Rule(
            "!(has(self.value) && self.value != '' && has(self.valueFrom))",
            "value and valueFrom are both set; remove one of them",
            field="value",
        ),
    ),
    StageResources: (
        unique("env", "a variable"),
        unique("imagePullSecrets", "a secret"),
        *(size(field) for field in ("gpuMemory", "shmSize", "workSize")),
    ),
    Profile: (
        Rule(
            f"self.stages.all(k, k in {listed(_KNOWN)})",
            f"stages names unknown stages; the stages are {', '.join(_KNOWN)}",
            field="stages",
        ),
        Rule(
            "self.defaults.shards == 1",
            f"defaults.shards must be 1: set shards in stages, for any of {_ABLE}",
            field="defaults",
        ),
        Rule(
            f"self.stages.all(k, !has(self.stages[k].shards) || self.stages[k].shards == 1 || "
            f"k in {listed(SPLITTABLE)})",
            f"shards must be 1: only {_ABLE} can be split",
            field="stages",
        ),
        Rule(
            "self.defaults.nodes == 1",
            f"defaults.nodes must be 1: set nodes in stages, for any of {_SPANNING}",
            field="defaults",
        ),
        Rule(
            f"self.stages.all(k, !{_several_nodes('self')} || k in {listed(DISTRIBUTED)})",
            f"nodes must be 1: only {_SPANNING} can span several nodes",
            field="stages",
        ),
        Rule(
            f"self.stages.all(k, !{_several_nodes('self')} || has(self.stages[k].workClaim) || "
            "has(self.defaults.workClaim))",
            "workClaim must name a ReadWriteMany claim where a stage has several nodes: they share /work",
            field="stages",
        ),
        Rule(
            f"self.defaults.gpus == 0 || !{_names_gpus('self.defaults.resources', 'self.defaults.gpuResourceName')}",
            "'gpus sets ' + self.defaults.gpuResourceName + ', which resources names too; remove one of the two'",
            expression=True,
            field="defaults",
        ),
        Rule(
            f"!{_TWICE}",
            "a stage has, together with defaults, GPUs by gpus and by resources too; remove one of the two",
            field="stages",
        ),
    ),
    IterationSpec: (
        Rule(
            "!(has(self.profile) && has(self.profileRef))",
            "set either profile or profileRef, not both; remove one of them",
            field="profileRef",
        ),
        Rule(
            "self.engines.trainer == 'verl' || self.engines.trainer.startsWith('verl:') || !has(self.profile) || "
            f"self.profile.stages.all(k, !{_several_nodes('self.profile')})",
            "'nodes must be 1: the trainer ' + self.engines.trainer + ' works on one node; set engines.trainer: verl'",
            expression=True,
            field="profile",
        ),
        *(_selectable(task) for task in ("captions", "operations")),
        Rule(
            f"!has(self.profile) || self.profile.stages.all(k, !has(self.profile.stages[k].shards) || "
            f"self.profile.stages[k].shards <= {_MOST})",
            "stages must not have more shards than there are images or edits: the others would have nothing to do; "
            "lower shards, or raise images.limit",
            field="profile.stages",
        ),
    ),
}

#: An iteration may be corrected until its first Job is made, and after it failed before a stage was done.
_OPEN = (
    "!has(oldSelf.status) || (!has(oldSelf.status.generator) && ("
    "(has(oldSelf.status.outcome) && oldSelf.status.outcome == 'Failed') || "
    "!has(oldSelf.status.stages) || !oldSelf.status.stages.exists(s, has(s.job)))) || "
    "(has(oldSelf.status.outcome) && oldSelf.status.outcome == 'Failed' && has(oldSelf.status.stages) && "
    "oldSelf.status.stages.size() > 0 && "
    f"!oldSelf.status.stages.exists(s, s.name != '{FREEZE}' && s.state == 'Succeeded'))"
)


def _frozen(model: type[IterationSpec | LoopSpec], editable: set[str], noun: str, unless: str) -> tuple[Rule, ...]:
    rules = []
    for name, field in model.model_fields.items():
        alias = field.alias or name
        if name in editable:
            continue
        new, old = f"self.spec.{alias}", f"oldSelf.spec.{alias}"
        same = f"{new} == {old}"
        if not field.is_required():
            same = f"has({new}) == has({old}) && (!has({new}) || {same})"
        message = (
            f"spec.{alias} cannot be changed once the {noun} has started; restore it, or create another {noun} "
            "under a new name"
        )
        rules.append(Rule(f"{unless} || ({same})", message))
    return tuple(rules)


_NAME_RULE = Rule(f"self.metadata.name.matches('{NAME}')", f"metadata.name must be {WORDS[NAME]}")

#: Rules at the root of a resource, where the old object, its status and `metadata.name` are in reach.
ROOT_RULES: dict[type, tuple[Rule, ...]] = {
    ViperIteration: (_NAME_RULE, *_frozen(IterationSpec, {"suspend"}, "iteration", _OPEN)),
    ViperLoop: (
        _NAME_RULE,
        Rule(
            f"self.metadata.name.size() + (self.spec.iterations < 10 ? 2 : self.spec.iterations < 100 ? 3 : "
            f"self.spec.iterations < 1000 ? 4 : 5) <= {NAME_LENGTH}",
            "metadata.name is too long: its last iteration, called by this name, '-' and its number, has at most "
            f"{NAME_LENGTH} characters; shorten it",
        ),
        *_frozen(
            LoopSpec,
            {"iterations", "budget", "suspend"},
            "loop",
            "!has(oldSelf.status) || !has(oldSelf.status.current)",
        ),
    ),
    ViperProfile: (),
}
