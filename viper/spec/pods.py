"""The parts of a pod that a profile may set, under the names and with the meaning that Kubernetes gives them (core/v1).

The local runner reads none of them. Free-form parts (affinity terms, label selectors, `podTemplate`) are checked by the
API server when the Job is made.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo, WithJsonSchema, model_validator

from viper.spec.base import SpecModel, setting
from viper.spec.documents import DEEPEST
from viper.spec.forms import (
    ABSOLUTE_PATH,
    DATA_KEY,
    EXTENDED_RESOURCE,
    LABEL_VALUE,
    LINE,
    NO_NUL,
    NOT_NATIVE,
    OBJECT_NAME,
    OWN_FOLDER,
    QUALIFIED_NAME,
    QUANTITY,
    STORED,
    STRAIGHT,
    TAINT_KEY,
    VARIABLE,
)

#: Variables that the operator sets itself; credentials are never written into a profile.
RESERVED_ENV = ("AWS_", "VIPER_", "HOME", "HF_HUB_OFFLINE")

_SCALES = {
    "": Decimal(1),
    **{s: Decimal(1000) ** i for i, s in enumerate(("n", "u", "m"), start=-3)},
    **{s: Decimal(1000) ** i for i, s in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{s: Decimal(1024) ** i for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def _text(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError(f"write a quantity with a fraction in quotes, as '{value}', or in thousandths, as '500m'")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ())]
    if level:
        raise ValueError(f"mappings and lists are nested more than {DEEPEST} deep")
    return value


#: A part that Kubernetes reads, as deep as a file may be.
FreeForm = Annotated[dict[str, Any], AfterValidator(_shallow)]

#: A quantity: a whole number or a string such as `500m` or `64Gi`.
Quantity = Annotated[
    str,
    StringConstraints(pattern=QUANTITY, max_length=32),
    BeforeValidator(_text),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": QUANTITY, "x-kubernetes-int-or-string": True}
    ),
]


def too_small(quantity: str) -> str:
    """Why a number of bytes cannot be meant; empty when it can."""
    whole = not quantity.endswith(THOUSANDTHS)
    return "" if whole and amount(quantity) >= amount(LEAST_BYTES) else f"({quantity}) {TOO_SMALL}"


def amount(quantity: str) -> Decimal:
    """The number that a valid quantity stands for, in its base unit (cores, bytes, devices)."""
    if found := re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?)", quantity):
        return Decimal(found[1].rstrip(".")) * _SCALES[found[2]]
    return Decimal(quantity)


#: Resources of a container that Kubernetes knows itself, besides cpu and huge pages: in bytes.
BYTES_OF = ("memory", "ephemeral-storage")
HUGE_PAGES = r"hugepages-[0-9]+[KMG]i"
#: Suffixes of thousandths, millionths and billionths.
THOUSANDTHS = ("m", "u", "n")
LEAST_BYTES, LEAST_CPU = "1Mi", "10m"
TOO_SMALL = f"must be bytes, and at least {LEAST_BYTES}: m means thousandths; write 500M, 64Gi or the like"
TOO_LITTLE_CPU = f"must be at least {LEAST_CPU}, the least that Linux grants; m means thousandths of a core"
UNKNOWN = (
    "is no resource of a container: cpu, memory, ephemeral-storage, or the extended resource of a device plugin, such "
    "as nvidia.com/gpu"
)
DIVIDED = "must be a whole number: a device is not divided"
UNEQUAL = "must be the same in requests and limits, which devices cannot exceed; set it in limits, or by gpus"


class ResourceRequirements(SpecModel):
    """Requests and limits of the container, by resource name."""

    requests: dict[str, Quantity] = setting(
        dict, max_length=16, description="Reserved on a node: cpu (cores), memory and ephemeral-storage (bytes), …"
    )
    limits: dict[str, Quantity] = setting(
        dict, max_length=16, description="Upper bounds; beyond the memory limit the pod is killed."
    )

    @model_validator(mode="after")
    def _takes_them(self, info: ValidationInfo) -> Self:
        """What Kubernetes takes of a container, and what a container can start with."""
        for field, quantities in (("requests", self.requests), ("limits", self.limits)):
            for name, quantity in quantities.items() if info.context != STORED else ():
                if problem := self._problem(field, name, quantity):
                    raise ValueError(f"{field}.{name} {problem}")
        return self

    def _problem(self, field: str, name: str, quantity: str) -> str:
        if EXTENDED_RESOURCE.fits(name) and NOT_NATIVE.fits(name):
            if amount(quantity) % 1:
                return f"({quantity}) {DIVIDED}"
            return "" if self.limits.get(name) == quantity else UNEQUAL
        if name == "cpu":
            little = field == "limits" and amount(quantity) < amount(LEAST_CPU)
            return f"({quantity}) {TOO_LITTLE_CPU}" if little else ""
        if name in BYTES_OF:
            return "" if field == "requests" and amount(quantity) == 0 else too_small(quantity)
        return "" if re.fullmatch(HUGE_PAGES, name) else UNKNOWN

    @model_validator(mode="after")
    def _requests_fit(self) -> Self:
        for name, wanted in self.requests.items():
            if name in self.limits and amount(wanted) > amount(self.limits[name]):
                raise ValueError(
                    f"requests.{name} ({wanted}) is more than limits.{name} ({self.limits[name]}); "
                    "lower the request or raise the limit"
                )
        return self


class Toleration(SpecModel):
    """A taint that the pods tolerate."""

    key: str | None = setting(
        None, max_length=316, forms=(TAINT_KEY,), description="Taint key; null: every taint (operator Exists)."
    )
    operator: Literal["Exists", "Equal"] = setting("Equal", description="Whether `value` is compared.")
    value: str | None = setting(
        None, max_length=63, forms=(LABEL_VALUE,), description="Taint value, with operator Equal."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = setting(
        None, description="Taint effect; null: every effect."
    )
    toleration_seconds: int | None = setting(
        None, unit="s", le=2**31 - 1, description="How long a NoExecute taint is tolerated; null: for ever."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value; remove value, or use operator Equal")
        if not self.key and self.operator != "Exists":
            raise ValueError("without a key the operator must be Exists; set key, or operator: Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds only applies to effect NoExecute; set effect: NoExecute, or remove it")
        return self


class Affinity(SpecModel):
    """Scheduling affinity, free-form as in core/v1 `Affinity`."""

    node_affinity: FreeForm | None = setting(None, description="core/v1 NodeAffinity.")
    pod_affinity: FreeForm | None = setting(None, description="core/v1 PodAffinity.")
    pod_anti_affinity: FreeForm | None = setting(None, description="core/v1 PodAntiAffinity.")


class TopologySpreadConstraint(SpecModel):
    """How the pods of a stage are spread over zones, racks or hosts."""

    max_skew: int = setting(1, unit="pods", ge=1, le=2**31 - 1, description="Largest difference between two domains.")
    topology_key: str = setting(
        forms=(QUALIFIED_NAME,), max_length=316, description="Node label whose values are the domains."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = setting(
        "DoNotSchedule", description="Whether pods wait when the constraint cannot be met."
    )
    label_selector: FreeForm | None = setting(
        None, description="meta/v1 LabelSelector of the pods that count; null: those of the stage."
    )


class SecretKeySelector(SpecModel):
    """A key of a secret in the namespace of the iteration."""

    name: str = setting(forms=(OBJECT_NAME,), max_length=253, description="Name of the secret.")
    key: str = setting(pattern=DATA_KEY, max_length=253, description="Key whose content is the value.")
    optional: bool = setting(False, description="Whether the pod starts without the variable when there is no key.")


class EnvVarSource(SpecModel):
    """Where a value comes from."""

    secret_key_ref: SecretKeySelector = setting(description="A key of a secret.")


class EnvVar(SpecModel):
    """An environment variable: a plain value, or a secret's by reference, such as the OPENAI_API_KEY of endpoints.

    The object store's and MLflow's credentials come from the operator's own secret."""

    name: str = setting(pattern=VARIABLE, max_length=128, description="Name of the variable.")
    value: str = setting("", max_length=4096, forms=(NO_NUL,), description="Its value.")
    value_from: EnvVarSource | None = setting(None, description="Source of the value instead of `value`.")

    @model_validator(mode="after")
    def _free(self) -> Self:
        if self.value and self.value_from is not None:
            raise ValueError("value and valueFrom are both set; remove one of them")
        if any(self.name == n or (n.endswith("_") and self.name.startswith(n)) for n in RESERVED_ENV):
            raise ValueError(
                f"name {self.name} is set by the operator (as are AWS_*, VIPER_*, HOME, HF_HUB_OFFLINE); remove it: "
                "credentials come from the operator's secret"
            )
        return self


class LocalObjectReference(SpecModel):
    """An object of the same namespace."""

    name: str = setting(forms=(OBJECT_NAME,), max_length=253, description="Its name.")


class ModelCache(SpecModel):
    """A volume with model weights that is mounted into every pod."""

    claim_name: str = setting(forms=(OBJECT_NAME,), max_length=253, description="Existing PersistentVolumeClaim.")
    mount_path: str = setting(
        "/models",
        pattern=ABSOLUTE_PATH,
        max_length=512,
        forms=(OWN_FOLDER, STRAIGHT, LINE),
        description="Where it is mounted.",
    )
    read_only: bool = setting(True, description="Mounted read-only.")


class PodTemplate(SpecModel):
    """A partial core/v1 `PodTemplateSpec`, merged over the generated one last.

    Maps are merged; containers, volumes, env and mounts are merged by name (the stage's container is `stage`); other
    lists are replaced."""

    metadata: FreeForm | None = setting(None, description="Labels and annotations of the pods.")
    spec: FreeForm | None = setting(None, description="core/v1 PodSpec, as far as it is to be changed.")
