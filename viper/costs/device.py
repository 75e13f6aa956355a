"""What the kit of `benchmarks/gpu` measured on one device: time for `viper plan`, memory for `viper doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from viper.errors import SpecError
from viper.spec.documents import read_document, shown

KIND = "viper-device-report"
_FIX = "give the JSON that `python -m benchmarks.gpu run` wrote (docs/gpu.md)"


class Stored(BaseModel):
    """What is stored: fields that a later version adds are left aside."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, allow_inf_nan=False
    )


class MemoryUse(Stored):
    """Whose memory a figure is of. Bytes."""

    interface: str = Field(description="As in `spec.engines`; `trainer` for training.")
    engine: str
    model: str = Field("", description="Shape of the weights, by the name of its configuration.")
    planned: int | None = Field(None, ge=0, description="What the engine's `memory_needed` says for these settings.")
    weights: int = Field(0, ge=0, description="Taken before any work was done.")


class Figure(Stored):
    """One figure: seconds of one call (`rate`), or the most memory that was taken (`memory`)."""

    name: str = Field(min_length=1)
    part: str = ""
    what: str = ""
    unit: Literal["s", "B"]
    value: float = Field(gt=0, le=1e18, description="The median.")
    low: float = Field(gt=0, le=1e18)
    high: float = Field(gt=0, le=1e18)
    repetitions: int = Field(ge=1)
    sure: Literal["high", "medium", "low"]
    why: str = Field("", description="Why it is no surer than that.")
    rate: dict[str, Any] | None = Field(
        None, description="Of seconds: `viper.costs.table.Rate`, as far as it is known."
    )
    memory: MemoryUse | None = None

    @model_validator(mode="after")
    def _placed(self) -> Figure:
        if not self.low <= self.value <= self.high:
            raise ValueError("low, value and high are not in this order")
        if (self.unit == "s") != (self.rate is not None) or (self.unit == "B") != (self.memory is not None):
            raise ValueError("seconds have a `rate`, and bytes have `memory`")
        return self


class Device(Stored):
    """What was measured on."""

    backend: Literal["cuda", "cpu"]
    name: str = Field(min_length=1, description="As the driver names it.")
    memory: int = Field(ge=0, description="Bytes.")


class Part(Stored):
    """What became of a part of the kit."""

    name: str
    state: str
    problem: str = ""


class DeviceReport(Stored):
    """The whole file."""

    kind: Literal["viper-device-report"]
    schema_version: int = Field(ge=1)
    started: str = ""
    tiny: bool = Field(False, description="Shapes of a trial run, which say nothing of real models.")
    device: Device
    versions: dict[str, str] = {}
    parts: tuple[Part, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def memory(self) -> tuple[tuple[Figure, MemoryUse], ...]:
        """The figures of memory."""
        return tuple((f, f.memory) for f in self.figures if f.memory is not None)


def is_report(data: object) -> bool:
    """Whether parsed JSON says that it is such a report."""
    return isinstance(data, dict) and data.get("kind") == KIND


def read_report(data: Any, where: str) -> DeviceReport:
    """A report from parsed JSON; raises `SpecError`."""
    try:
        return DeviceReport.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"is not a report of the kit:\n{problems(error)}", where=where, fix=_FIX) from None


def load_report(path: Path) -> DeviceReport:
    """The report in a file; raises `SpecError`."""
    data = read_document(path)
    if not is_report(data):
        raise SpecError(f"does not say that it is a {KIND!r}", where=str(path), fix=_FIX)
    return read_report(data, str(path))


def problems(error: ValidationError) -> str:
    """The first twenty problems, one a line."""
    found = error.errors(include_url=False, include_input=False)
    lines = [f"  {shown('.'.join(map(str, e['loc'])) or 'the file')}: {e['msg']}" for e in found[:20]]
    return "\n".join([*lines, *([f"  … and {len(found) - 20} more"] if len(found) > 20 else [])])
