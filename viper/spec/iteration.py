"""`ViperIteration` (one turn), `ViperLoop` (several) and `ViperProfile` (where they run), as users write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, ValidationInfo, model_serializer, model_validator

from viper.errors import SpecError
from viper.extensions import written
from viper.methods.stages import DISTRIBUTED, FREEZE, SPLITTABLE, STAGES, Stage, declared
from viper.spec.base import SpecModel, setting
from viper.spec.engines import Engines
from viper.spec.evaluation import URI_LENGTH, Evaluation, Gate
from viper.spec.forms import (
    ALIAS,
    COUNTED,
    LABEL_VALUE,
    MODEL,
    NAME,
    NAME_LENGTH,
    NO_PATH,
    NOT_RESERVED,
    OBJECT_NAME,
    POOL,
    QUALIFIED_NAME,
    STORED,
    WEIGHTS,
)
from viper.spec.profile import CLUSTER, Profile
from viper.spec.recipe import OURS, Recipe

API_VERSION = "viper.dev/v1alpha1"
#: Longest name in a registry or of an engine.
WORD_LENGTH = 250


class Metadata(SpecModel):
    """The part of Kubernetes' ObjectMeta that the local runner uses as well."""

    name: str = setting(pattern=NAME, description="Name, unique among the iterations of a store.")
    namespace: str | None = setting(None, description="Kubernetes namespace; the local runner ignores it.")
    labels: dict[Annotated[str, QUALIFIED_NAME], Annotated[str, LABEL_VALUE]] = setting(dict, description="Labels.")
    annotations: dict[Annotated[str, QUALIFIED_NAME], str] = setting(dict, description="Annotations.")


class GeneratorRef(SpecModel):
    """Which model is θ0: an alias or a version of `spec.model` in the registry, or a URI outside it."""

    alias: str | None = setting(
        None,
        min_length=1,
        max_length=WORD_LENGTH,
        forms=(ALIAS, NOT_RESERVED),
        description="Registry alias, resolved once when the iteration starts.",
    )
    version: int | None = setting(None, ge=1, le=2**31 - 1, description="Registry version.")
    uri: str | None = setting(
        None,
        min_length=1,
        max_length=URI_LENGTH,
        forms=WEIGHTS,
        description=f"Model directory: file://, s3://, hf://org/name@revision or {written('models')}.",
    )
    initial_uri: str | None = setting(
        None,
        min_length=1,
        max_length=URI_LENGTH,
        forms=WEIGHTS,
        description="Registered as the first version when the alias does not exist yet.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(x is not None for x in (self.alias, self.version, self.uri)) != 1:
            raise ValueError("set exactly one of alias, version, uri")
        if self.initial_uri is not None and self.alias is None:
            raise ValueError("initialUri only makes sense with alias")
        return self


class Images(SpecModel):
    """The image pool. Order is by name; a folder is listed once, when the iteration first reads it."""

    uri: str = setting(
        min_length=1,
        max_length=URI_LENGTH,
        forms=POOL,
        description=f"Folder of images (file://, s3://) or {written('pools')}.",
    )
    limit: int | None = setting(None, unit="images", ge=1, le=10**9, description="Use at most this many.")
    offset: int = setting(0, unit="images", ge=0, le=10**15, description="Skip this many first.")
    min_side: int = setting(32, unit="px", source=OURS, ge=8, le=65_536, description="Smaller images are rejected.")
    max_side: int = setting(
        1536,
        unit="px",
        source=OURS,
        ge=32,
        le=8192,
        description="Larger images are scaled down to this longer side.",
    )
    max_pixels: int = setting(
        100_000_000,
        unit="px",
        source=OURS,
        ge=1024,
        le=2**31 - 1,
        description="Images with more pixels are rejected before they are decoded (decompression bombs).",
    )

    def most(self) -> int:
        """As many images as there can be, as far as the specification tells."""
        drawn = re.search(rf"{COUNTED}([0-9]{{1,9}})", self.uri)
        return min(self.limit or 10**9, int(drawn[1]) if drawn else 10**9)

    @model_validator(mode="after")
    def _sides(self) -> Self:
        if self.min_side > self.max_side:
            raise ValueError(
                f"minSide ({self.min_side}) is more than maxSide ({self.max_side}); lower one or raise the other"
            )
        return self


class Promotion(SpecModel):
    """What happens to the final checkpoint."""

    policy: Literal["Automatic", "Manual", "Never"] = setting(
        "Automatic",
        description="Automatic: registered, and the alias moves unless the gate holds it. Manual: registered, a person "
        "moves the alias. Never: registered without ever moving the alias.",
    )
    alias: str = setting(
        "generator", forms=(ALIAS, NOT_RESERVED), max_length=WORD_LENGTH, description="Alias that is moved."
    )
    gate: Gate = setting(Gate, description="When promotion is held back.")


class IterationSpec(SpecModel):
    """One turn of self-evolution."""

    model: str = setting(
        min_length=1,
        max_length=WORD_LENGTH,
        forms=(MODEL, NO_PATH),
        description="Registered model name in MLflow.",
    )
    generator: GeneratorRef = setting(lambda: GeneratorRef(alias="generator"), description="θ0.")
    images: Images = setting(description="Image pool.")
    engines: Engines = setting(description="Engines.")
    recipe: Recipe = setting(Recipe, description="What is learnt, and how.")
    profile: Profile = setting(Profile, description="Where it runs.")
    profile_ref: str | None = setting(
        None,
        source=CLUSTER,
        forms=(OBJECT_NAME,),
        max_length=253,
        description="Name of a ViperProfile in the namespace, instead of `profile`; read when the iteration starts.",
    )
    evaluation: Evaluation = setting(Evaluation, description="Held-out questions and benchmarks.")
    promotion: Promotion = setting(Promotion, description="What happens to θ2.")
    suspend: bool = setting(False, description="Stop running stages and keep their work.")

    @model_validator(mode="after")
    def _one_profile(self, info: ValidationInfo) -> Self:
        if self.profile_ref is not None and "profile" in self.model_fields_set:
            raise ValueError("set either profile or profileRef, not both; remove one of them")
        _check_stages(self.profile, "profile", frozen=info.context == STORED)
        if problem := self.too_many_nodes(self.profile):
            raise ValueError(f"profile.{problem}")
        return self

    @model_validator(mode="after")
    def _selectable(self) -> Self:
        """verl's GPUs are taken while it trains: nothing can be asked of its checkpoints."""
        for task, training in (
            ("captions", self.recipe.captions.training),
            ("operations", self.recipe.operations.training),
        ):
            if self.engines.trainer == "verl" and training.select == "heldOutPerception":
                raise ValueError(
                    f"recipe.{task}.training.select must be heldOutReward or last: the trainer verl cannot measure "
                    "perception while it trains; or set engines.trainer: trl"
                )
        return self

    @model_validator(mode="after")
    def _shards_have_images(self, info: ValidationInfo) -> Self:
        if info.context != STORED and (problem := self.too_many_shards(self.profile)):
            raise ValueError(f"profile.{problem}")
        return self

    def too_many_shards(self, profile: Profile) -> str:
        """Why a profile asks for more shards than there is work for; empty when it does not, or nobody knows."""
        images = self.images.most()
        for name, resources in profile.stages.items():
            path = shared_per_image(declared(name))
            most = images * (self.value_at(path) if path else 1)
            if resources.shards > most:
                return (
                    f"stages.{name}.shards ({resources.shards}) must not be more shards than there are images or "
                    f"edits ({most}): the others would have nothing to do; lower it, or raise images.limit"
                )
        return ""

    def too_many_nodes(self, profile: Profile) -> str:
        """Why a profile asks for more nodes than the trainer can use; empty when it does not."""
        if self.engines.trainer.partition(":")[0] == "verl":
            return ""
        for name, resources in profile.stages.items():
            if resources.nodes > 1:
                return (
                    f"stages.{name}.nodes must be 1: the trainer {self.engines.trainer} works on one node; "
                    "set engines.trainer: verl"
                )
        return ""

    @model_serializer(mode="wrap")
    def _without_unread_profile(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With `profileRef` there is no profile of its own to write out."""
        written: dict[str, Any] = handler(self)
        if self.profile_ref is not None:
            written.pop("profile", None)
        return written

    def warnings(self) -> tuple[str, ...]:
        """What is allowed and seldom meant, as a person reads it before anything is paid for."""
        asked = self.evaluation.questions or self.evaluation.benchmarks.tasks
        if asked or self.promotion.policy != "Automatic" or self.promotion.gate.unmeasured == "Promote":
            return ()
        return (
            "evaluation.questions and evaluation.benchmarks.tasks ask nothing: the promotion will be held, and a loop "
            "ends there; ask something, or set promotion.gate.unmeasured: Promote",
        )

    def with_profile(self, profile: Profile) -> IterationSpec:
        """The same with `profileRef` resolved; raises `SpecError` when the two do not go together."""
        if problem := self.too_many_nodes(profile) or self.too_many_shards(profile):
            raise SpecError(problem, where=f"spec.profileRef: {self.profile_ref}")
        return self.model_copy(update={"profile": profile, "profile_ref": None})


def shared_per_image(stage: Stage) -> str:
    """Path of how many of what the shards of a stage share come from one image; one where empty. What makes rows shares
    images, and what makes samples the rows of those."""
    return stage.per_image if stage.makes == "samples" else ""


def _check_stages(profile: Profile, path: str, *, frozen: bool = False) -> None:
    """Raises `ValueError` for stages that do not exist, or that cannot be split. A frozen iteration may have stages of
    its own (`viper.stage.frozen`)."""
    unknown = sorted(set(profile.stages) - {FREEZE, *STAGES})
    if unknown and not frozen:
        raise ValueError(f"{path}.stages names unknown stages {unknown}; the stages are {[FREEZE, *STAGES]}")
    able = ", ".join(SPLITTABLE)
    if profile.defaults.shards > 1:
        raise ValueError(f"{path}.defaults.shards must be 1: set shards in {path}.stages, for any of {able}")
    ours = {name: own for name, own in profile.stages.items() if name not in unknown}
    for name, resources in ours.items():
        if resources.shards > 1 and not declared(name).splittable:
            raise ValueError(f"{path}.stages.{name}.shards must be 1: only {able} can be split")
    able = ", ".join(DISTRIBUTED)
    if profile.defaults.nodes > 1:
        raise ValueError(f"{path}.defaults.nodes must be 1: set nodes in {path}.stages, for any of {able}")
    for name, resources in ours.items():
        if resources.nodes > 1 and not declared(name).distributed:
            raise ValueError(f"{path}.stages.{name}.nodes must be 1: only {able} can span several nodes")
        if resources.nodes > 1 and resources.work_claim is None:
            raise ValueError(
                f"{path}.stages.{name}.workClaim must name a ReadWriteMany claim: "
                f"its {resources.nodes} nodes share /work"
            )


class ViperIteration(SpecModel):
    """`kind: ViperIteration`."""

    api_version: Literal["viper.dev/v1alpha1"] = setting(description="API version.")
    kind: Literal["ViperIteration"] = setting(description="Kind.")
    metadata: Metadata = setting(description="Metadata.")
    spec: IterationSpec = setting(description="Desired state.")


class Budget(SpecModel):
    """What a loop may use."""

    gpu_hours: float | None = setting(
        None,
        unit="GPU-hours",
        source=CLUSTER,
        gt=0,
        le=1e9,
        description="No further iteration starts once the loop's Jobs have used as much, or when less is left than an "
        "iteration has taken on average; null: no limit.",
    )


class LoopSpec(SpecModel):
    """A template and how often it is run; the next iteration starts when one is promoted."""

    iterations: int = setting(3, ge=1, le=1000, description="Number of iterations; stops earlier on hold or failure.")
    rotate_images: bool = setting(
        True, description="Iteration i skips (i-1)·limit further images, so that each sees fresh ones."
    )
    budget: Budget = setting(Budget, description="When to stop for what it costs.")
    suspend: bool = setting(False, description="Suspend the current iteration and start no further one.")
    template: IterationSpec = setting(description="Spec of every iteration.")

    @model_validator(mode="after")
    def _evolves(self, info: ValidationInfo) -> Self:
        """Every iteration begins from what the one before made; with policy `Never` none is meant to."""
        generator, promotion = self.template.generator, self.template.promotion
        if info.context == STORED or promotion.policy == "Never":
            return self
        if generator.alias is None:
            raise ValueError(
                "template.generator must be an alias: from a fixed version or URI every iteration would begin anew, "
                "and nothing would evolve; set template.generator.alias, with initialUri for the first one"
            )
        if generator.alias != promotion.alias:
            raise ValueError(
                f"template.promotion.alias must be that of template.generator ({generator.alias}), or no iteration "
                "would begin from what the one before made; use one alias for both, or policy: Never"
            )
        return self


class ViperLoop(SpecModel):
    """`kind: ViperLoop`."""

    api_version: Literal["viper.dev/v1alpha1"] = setting(description="API version.")
    kind: Literal["ViperLoop"] = setting(description="Kind.")
    metadata: Metadata = setting(description="Metadata.")
    spec: LoopSpec = setting(description="Desired state.")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        longest = f"{self.metadata.name}-{self.spec.iterations}"
        if len(longest) > NAME_LENGTH:
            raise ValueError(
                f"metadata.name is too long: its last iteration would be called {longest}, and a name has at most "
                f"{NAME_LENGTH} characters; shorten it by {len(longest) - NAME_LENGTH}"
            )
        return self

    def iteration(self, number: int) -> ViperIteration:
        """The `number`-th iteration (from 1), named `<loop>-<number>`; with its own recipe seed."""
        template = self.spec.template
        images = template.images
        if self.spec.rotate_images and images.limit is not None:
            images = images.model_copy(update={"offset": images.offset + (number - 1) * images.limit})
        recipe = template.recipe.model_copy(update={"seed": template.recipe.seed + number - 1})
        return ViperIteration(
            api_version=API_VERSION,
            kind="ViperIteration",
            metadata=self.metadata.model_copy(
                update={
                    "name": f"{self.metadata.name}-{number}",
                    "labels": {**self.metadata.labels, "viper.dev/loop": self.metadata.name},
                }
            ),
            spec=template.model_copy(
                update={"images": images, "recipe": recipe, "suspend": template.suspend or self.spec.suspend}
            ),
        )


class ViperProfile(SpecModel):
    """`kind: ViperProfile`: infrastructure that several iterations share, by `profileRef`."""

    api_version: Literal["viper.dev/v1alpha1"] = setting(description="API version.")
    kind: Literal["ViperProfile"] = setting(description="Kind.")
    metadata: Metadata = setting(description="Metadata.")
    spec: Profile = setting(description="The profile.")

    @model_validator(mode="after")
    def _known_stages(self) -> Self:
        _check_stages(self.spec, "spec")
        return self
