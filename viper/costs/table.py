"""The table of throughputs: what one call of an engine takes on which GPU, and how anybody knows."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError

from viper.costs.device import DeviceReport, is_report, problems, read_report
from viper.costs.ranges import Range
from viper.errors import SpecError
from viper.spec.base import SpecModel, setting
from viper.spec.documents import documents, read_document, shown

Work = Literal[
    "decode", "write", "reconstruct", "check", "edit", "compare", "train", "finetune", "answer", "score", "embed"
]
#: Where there is no GPU.
CPU = "cpu"
#: Assumed where neither the profile nor the caller says which GPU it is.
DEFAULT_GPU = "A100"
#: No figure of ours has more: sums and products of such stay numbers.
LARGEST = 1e15
_Pair = tuple[float, float]


def _ordered(pair: _Pair) -> _Pair:
    if not 0 <= pair[0] <= pair[1] <= LARGEST:
        raise ValueError(f"is [least, most], from 0 to {LARGEST:g}")
    return pair


def _positive(pair: _Pair) -> _Pair:
    if not pair[0] > 0:
        raise ValueError("is [least, most], more than 0")
    return _ordered(pair)


_Amounts = Annotated[_Pair, AfterValidator(_ordered)]
_Speeds = Annotated[_Pair, AfterValidator(_positive)]


class Sourced(SpecModel):
    """A figure and where it is from: `measured` by the kit on a device, `published` by somebody, or `assumed` by us.

    What stages measured is in the store.
    """

    kind: Literal["measured", "published", "assumed"] = setting(description="How it is known.")
    source: str = setting(min_length=1, description="Who measured or published it, of what; or why it is assumed.")


class Rate(Sourced):
    """Seconds of one call of one engine. They are scaled in proportion to what they were taken at (`steps` …
    `rollouts`, `gpus`); `batch` … `factors` say which of several rates is nearest. Null: does not count.
    """

    work: Work = setting(description="What is done.")
    engine: str | None = setting(None, description="Engine by name, without the place of its model; null: any.")
    gpu: str = setting(description="GPU, as in `gpus`; `cpu`: none.")
    seconds: _Speeds = setting(unit="s", description="Least and most.")
    steps: int | None = setting(None, ge=1, description="Denoising steps.")
    passes: int | None = setting(None, ge=1, description="Passes of the model a step (guidance).")
    megapixels: float | None = setting(None, gt=0, description="Millions of pixels of the image.")
    billions: float | None = setting(None, gt=0, description="Parameters of the model, in billions.")
    rollouts: int | None = setting(None, ge=1, description="Outputs of a training step.")
    gpus: int = setting(1, ge=1, description="GPUs that worked together for that long.")
    batch: int | None = setting(None, ge=1, description="Calls that were worked on at once.")
    images: int | None = setting(None, ge=1, description="Images that one call sees.")
    tokens: int | None = setting(None, ge=1, description="Tokens of one output.")
    factors: tuple[str, ...] = setting((), description="`factors` of the table that are in the seconds already.")


class Gpu(Sourced):
    """A kind of GPU."""

    product: str = setting(description="Part of the node label nvidia.com/gpu.product.")
    speed: _Speeds = setting(description="Speed at this work, an A100's being 1.")
    price: _Amounts = setting(unit="US$ per GPU-hour", description="What an hour of it costs.")


class Figure(Sourced):
    """Any other figure."""

    value: _Amounts = setting(description="Least and most.")

    @property
    def range(self) -> Range:
        """As a range."""
        return Range(*self.value)


_BY_NAME = ("gpus", "factors", "calls", "acceptance", "startup", "storage")


class RateTable(SpecModel):
    """`rates.yaml`; what a file of one's own does not have is taken from it."""

    version: Literal[1] = setting(description="Version of this format.")
    gpus: dict[str, Gpu] = setting(dict, description="Kinds of GPUs by name.")
    rates: list[Rate] = setting(list, description="Throughputs.")
    factors: dict[str, Figure] = setting(
        dict, description="What settings multiply seconds by: cache, offload.model, offload.sequential, compile."
    )
    calls: dict[str, Figure] = setting(
        dict, description="Calls of an engine for each item, where the recipe leaves it open."
    )
    acceptance: dict[str, Figure] = setting(dict, description="Share of a stage's rows that it accepts, by stage.")
    startup: dict[str, Figure] = setting(dict, description="Seconds to load the models, for each pod: gpu, cpu.")
    storage: dict[str, Figure] = setting(
        dict, description="Bytes: photo and png per pixel, weights and state per parameter."
    )
    notes: list[str] = setting(list, description="What a person should know of this table.")

    def gpu_of(self, product: str) -> str | None:
        """The kind of GPU that a node label names."""
        return next((name for name, gpu in self.gpus.items() if gpu.product.lower() in product.lower()), None)

    def fitting(self, work: Work, engine: str, gpu: str) -> list[Rate]:
        """The rates of an engine on a GPU: rather of this very engine than of any, rather of this GPU than of another.

        Several are of the same engine and GPU with other settings. Empty when there is none; a rate of a CPU says
        nothing about a GPU, nor the other way round.
        """
        fit = [
            r for r in self.rates if r.work == work and r.engine in (engine, None) and (r.gpu == CPU) == (gpu == CPU)
        ]
        best = min(fit, key=lambda r: (r.engine is None, r.gpu != gpu), default=None)
        return [r for r in fit if best is not None and (r.engine, r.gpu) == (best.engine, best.gpu)]

    def laid_over(self, base: RateTable) -> RateTable:
        """This table, and of `base` what it says nothing about: rates by work, engine and GPU, the rest by name."""
        own = {(r.work, r.engine, r.gpu) for r in self.rates}
        rates = [*self.rates, *(r for r in base.rates if (r.work, r.engine, r.gpu) not in own)]
        named = {n: {**getattr(base, n), **getattr(self, n)} for n in _BY_NAME}
        return base.model_copy(update={"rates": rates, "notes": [*base.notes, *self.notes], **named})

    def relative(self, of: str, to: str) -> Range:
        """How many times as fast GPU `to` is as GPU `of`."""
        if of == to:
            return Range(1, 1)
        return Range(*self.gpus[to].speed) / Range(*self.gpus[of].speed)


@cache
def default_table() -> RateTable:
    """The table that comes with ViPER."""
    (data,) = documents((files("viper.costs") / "rates.yaml").read_bytes(), "rates.yaml")
    return _validated(data, "rates.yaml")


def load_table(*paths: Path) -> RateTable:
    """The default table, and over it those of files, the later over the earlier ones.

    A file is a table of rates (YAML or JSON, whole or in part) or a report of the kit (`DeviceReport`). Raises
    `SpecError`.
    """
    table = default_table()
    for path in paths:
        data, where = read_document(path), str(path)
        own = _measured(read_report(data, where), table, where) if is_report(data) else _validated(data, where)
        table = own.laid_over(table)
        if unknown := sorted({rate.gpu for rate in own.rates} - {CPU, *table.gpus}):
            raise SpecError(
                f"rates name {shown(', '.join(unknown))}, of which gpus says nothing",
                where=where,
                fix=f"use one of {', '.join((CPU, *table.gpus))}, or describe it under `gpus`",
            )
        if unknown := sorted({name for rate in own.rates for name in rate.factors} - set(table.factors)):
            raise SpecError(f"rates name the factor {shown(unknown[0])}, of which factors says nothing", where=where)
    return table


def _validated(data: Any, where: str) -> RateTable:
    try:
        return RateTable.model_validate(data)
    except ValidationError as error:
        raise SpecError(
            f"is not a table of rates:\n{problems(error)}",
            where=where,
            fix="viper/costs/rates.yaml is an example; a report of the kit says what it is under `kind`",
        ) from None


def _measured(report: DeviceReport, table: RateTable, where: str) -> RateTable:
    """What a device needed, as rates of kind `measured`."""
    device = report.device
    gpu = CPU if device.backend == "cpu" else table.gpu_of(device.name)
    if gpu is None:
        raise SpecError(
            f"was measured on {device.name!r}, which is none of {', '.join(table.gpus)}",
            where=where,
            fix="describe it under `gpus` of a table of rates, and give that file as --rates before this one",
        )
    rates = []
    for number, figure in enumerate(report.figures):
        if figure.rate is None:
            continue
        known = {"kind": "measured", "gpu": gpu, "seconds": (figure.low, figure.high)}
        try:
            rates.append(Rate.model_validate({**figure.rate, **known, "source": f"{figure.name} on {device.name}"}))
        except ValidationError as error:
            raise SpecError(f"figures.{number}.rate cannot be read:\n{problems(error)}", where=where) from None
    notes = [f"{where} was measured with tiny shapes: it says nothing of real models"] if report.tiny else []
    return RateTable(version=1, rates=rates, notes=notes)
