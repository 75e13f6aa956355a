"""The profile: infrastructure. Where and how stages run; it knows nothing of the maths."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import StringConstraints, ValidationError, ValidationInfo, field_validator, model_validator

from viper.spec.base import SpecModel, setting
from viper.spec.forms import (
    DEVICE,
    EXTENDED_RESOURCE,
    IMAGE,
    LABEL_VALUE,
    NOT_NATIVE,
    OBJECT_NAME,
    QUALIFIED_NAME,
    STORED,
)
from viper.spec.pods import (
    Affinity,
    EnvVar,
    LocalObjectReference,
    ModelCache,
    PodTemplate,
    Quantity,
    ResourceRequirements,
    Toleration,
    TopologySpreadConstraint,
    too_small,
)

CLUSTER = "cluster only"


class StageResources(SpecModel):
    """What one stage gets."""

    shards: int = setting(
        1,
        ge=1,
        le=1024,
        description="Processes (pods) the stage is split into, one per device. Only synthesize-captions, "
        "synthesize-operations and validate-operations can be split.",
    )
    nodes: int = setting(
        1,
        unit="pods",
        source=CLUSTER,
        ge=1,
        le=128,
        description="Pods that a training stage spans, as one Ray cluster, each with `gpus`. More than one needs "
        "`workClaim`, and verl as the trainer.",
    )
    threads: int = setting(0, unit="threads", ge=0, le=1024, description="CPU threads per process; 0: all cores.")
    retries: int = setting(
        2, ge=0, le=20, description="Further attempts of a shard after a failure before the iteration fails."
    )
    backoff_seconds: float = setting(
        5.0,
        unit="s",
        ge=0,
        le=3600,
        description="Pause before the first retry; doubles each time. On a cluster the Job controller's 10 s apply.",
    )
    deadline_seconds: int | None = setting(
        None, unit="s", ge=1, le=31_536_000, description="Longest run of one attempt; null: none."
    )
    termination_grace_period_seconds: int = setting(
        60,
        unit="s",
        ge=1,
        le=86_400,
        description="How long a process that is stopped may take to end in order before it is killed. Training stores "
        "its newest checkpoint then, where the store is remote: about 100 GB for 7B with verl.",
    )
    image: str | None = setting(
        None,
        source=CLUSTER,
        min_length=1,
        max_length=512,
        forms=(IMAGE,),
        description="Container image with the stage programs; null: the one the operator was installed with.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = setting(
        None, source=CLUSTER, description="When the image is pulled; null: Kubernetes decides by the tag."
    )
    image_pull_secrets: list[LocalObjectReference] = setting(
        list, source=CLUSTER, max_length=8, description="Secrets for pulling the image, by reference."
    )
    gpus: int = setting(0, unit="GPUs per pod", source=CLUSTER, ge=0, le=64, description="GPUs of every pod.")
    gpu_memory: Quantity | None = setting(
        None,
        unit="bytes",
        description="Memory of one GPU, against which the plan of each phase is checked; null: what the device says.",
    )
    gpu_resource_name: str = setting(
        "nvidia.com/gpu",
        source=CLUSTER,
        forms=(EXTENDED_RESOURCE, NOT_NATIVE),
        max_length=316,
        description="Extended resource that `gpus` counts.",
    )
    resources: ResourceRequirements = setting(
        ResourceRequirements, source=CLUSTER, description="Requests and limits of every pod beside `gpus`."
    )
    shm_size: Quantity | None = setting(
        None,
        unit="bytes",
        source=CLUSTER,
        description="Largest size of /dev/shm, which counts as memory of the pod; null: up to the memory limit.",
    )
    work_size: Quantity | None = setting(
        None, unit="bytes", source=CLUSTER, description="Largest size of the scratch volume /work; null: the node's."
    )
    work_claim: str | None = setting(
        None,
        source=CLUSTER,
        forms=(OBJECT_NAME,),
        max_length=253,
        description="Existing PersistentVolumeClaim for /work instead of a volume of each pod's own; ReadWriteMany "
        "where several nodes share it.",
    )
    model_cache: ModelCache | None = setting(None, source=CLUSTER, description="Volume with model weights; null: none.")
    env: list[EnvVar] = setting(
        list, source=CLUSTER, max_length=64, description="Environment variables, unique by name."
    )
    node_selector: dict[
        Annotated[str, QUALIFIED_NAME], Annotated[str, StringConstraints(max_length=63), LABEL_VALUE]
    ] = setting(dict, source=CLUSTER, max_length=16, description="Labels a node must have to run the pods.")
    tolerations: list[Toleration] = setting(
        list, source=CLUSTER, max_length=16, description="Taints that the pods tolerate."
    )
    affinity: Affinity | None = setting(None, source=CLUSTER, description="Scheduling affinity; null: none.")
    topology_spread_constraints: list[TopologySpreadConstraint] = setting(
        list, source=CLUSTER, max_length=8, description="How the pods are spread over the cluster."
    )
    priority_class_name: str | None = setting(
        None, source=CLUSTER, forms=(OBJECT_NAME,), max_length=253, description="PriorityClass; null: the default one."
    )
    runtime_class_name: str | None = setting(
        None, source=CLUSTER, forms=(OBJECT_NAME,), max_length=253, description="RuntimeClass; null: the default one."
    )
    ttl_seconds_after_finished: int | None = setting(
        604_800,
        unit="s",
        source=CLUSTER,
        ge=0,
        le=31_536_000,
        description="How long finished Jobs, their pods and logs stay; null: as long as the iteration.",
    )
    pod_template: PodTemplate | None = setting(
        None, source=CLUSTER, description="Changes to the generated pod template, merged last; null: none."
    )

    def over(self, defaults: StageResources, context: Any = None) -> StageResources:
        """These resources, with every field that is not set taken from `defaults`; all fields of the result are set.

        `context`: that of the validation in which it happens. Raises `ValueError` when the two do not go together.
        """
        chosen = {n: getattr(self if n in self.model_fields_set else defaults, n) for n in StageResources.model_fields}
        return StageResources.model_validate(chosen, context=context)

    @field_validator("gpu_memory", "shm_size", "work_size", mode="after")
    @classmethod
    def _bytes(cls, size: str | None, info: ValidationInfo) -> str | None:
        if size is not None and info.context != STORED and (problem := too_small(size)):
            raise ValueError(problem.partition(" ")[2])
        return size

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        name = self.gpu_resource_name
        if self.gpus and (name in self.resources.limits or name in self.resources.requests):
            raise ValueError(f"gpus sets {name}, which resources names too; remove one of the two")
        for field, names in (
            ("env", [e.name for e in self.env]),
            ("imagePullSecrets", [s.name for s in self.image_pull_secrets]),
        ):
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"{field} names {', '.join(twice)} twice; keep one of them")
        return self


class Profile(SpecModel):
    """Infrastructure of an iteration, frozen when it starts."""

    device: str = setting("cpu", description="torch device of the engines.", pattern=DEVICE)
    queue_name: str | None = setting(
        None,
        source=CLUSTER,
        forms=(OBJECT_NAME,),
        max_length=63,
        description="Kueue LocalQueue, as label kueue.x-k8s.io/queue-name on every Job; null: not queued.",
    )
    offline: bool = setting(
        True, source=CLUSTER, description="Pods never download from the Hugging Face Hub (HF_HUB_OFFLINE=1)."
    )
    defaults: StageResources = setting(StageResources, description="Resources of every stage.")
    stages: dict[str, StageResources] = setting(
        dict,
        max_length=14,
        description="Resources by stage name, over `defaults`: a field that is set here replaces that of `defaults` as "
        "a whole, every other is taken from there.",
    )

    @field_validator("stages", mode="after")
    @classmethod
    def _over_defaults(cls, stages: dict[str, StageResources], info: ValidationInfo) -> dict[str, StageResources]:
        """Resolves every stage, so that a profile written out and read again is the same."""
        defaults = info.data.get("defaults")
        if not isinstance(defaults, StageResources):  # `defaults` has an error of its own
            return stages
        return {name: _over(name, own, defaults, info.context) for name, own in stages.items()}

    def of(self, stage: str) -> StageResources:
        """The resources of a stage."""
        return self.stages.get(stage, self.defaults)


def _over(stage: str, own: StageResources, defaults: StageResources, context: Any) -> StageResources:
    try:
        return own.over(defaults, context)
    except ValidationError as e:
        problems = "; ".join(str(error["msg"]).removeprefix("Value error, ") for error in e.errors())
        raise ValueError(f"{stage}, together with defaults: {problems}") from None
