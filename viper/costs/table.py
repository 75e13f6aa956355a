"""The table of throughputs: what one call of an engine takes on which GPU, and how anybody knows."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ValidationError, model_validator

from viper.costs.ranges import Range
from viper.errors import SpecError
from viper.spec.base import SpecModel, setting
from viper.spec.documents import documents, read_document, shown

Work = Literal["decode", "write", "reconstruct", "check", "edit", "compare", "train", "finetune", "answer"]
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
    """A figure and where it is from: `published` by somebody, or `assumed` by us. Measured ones are in the store."""

    kind: Literal["published", "assumed"] = setting(description="How it is known.")
    source: str = setting(min_length=1, description="Who published it, of what; or why it is assumed.")


class Rate(Sourced):
    """Seconds of one call of one engine. They are scaled in proportion to what they were taken at (`steps` … `gpus`);
    null: does not count."""

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


class RateTable(SpecModel):
    """`rates.yaml`."""

    version: Literal[1] = setting(description="Version of this format.")
    gpus: dict[str, Gpu] = setting(description="Kinds of GPUs by name.")
    rates: list[Rate] = setting(description="Throughputs.")
    factors: dict[str, Figure] = setting(
        description="What settings multiply seconds by: cache, offload.model, offload.sequential, compile."
    )
    calls: dict[str, Figure] = setting(description="Calls of an engine for each item, where the recipe leaves it open.")
    acceptance: dict[str, Figure] = setting(description="Share of a stage's rows that it accepts, by stage.")
    startup: dict[str, Figure] = setting(description="Seconds to load the models, for each pod: gpu, cpu.")
    storage: dict[str, Figure] = setting(description="Bytes: photo and png per pixel, weights and state per parameter.")

    @model_validator(mode="after")
    def _known_gpus(self) -> Self:
        unknown = sorted({r.gpu for r in self.rates} - {CPU, *self.gpus})
        if unknown:
            raise ValueError(f"rates name {', '.join(unknown)}, of which gpus says nothing")
        return self

    def gpu_of(self, product: str) -> str | None:
        """The kind of GPU that a node label names."""
        return next((name for name, gpu in self.gpus.items() if gpu.product.lower() in product.lower()), None)

    def rate(self, work: Work, engine: str, gpu: str) -> Rate | None:
        """The rate of an engine on a GPU: rather of this very engine than of any, rather of this GPU than of another.

        None when there is none; a rate of a CPU says nothing about a GPU, nor the other way round.
        """
        fit = [
            r for r in self.rates if r.work == work and r.engine in (engine, None) and (r.gpu == CPU) == (gpu == CPU)
        ]
        return min(fit, key=lambda r: (r.engine is None, r.gpu != gpu), default=None)

    def relative(self, of: str, to: str) -> Range:
        """How many times as fast GPU `to` is as GPU `of`."""
        if of == to:
            return Range(1, 1)
        return Range(*self.gpus[to].speed) / Range(*self.gpus[of].speed)


@cache
def default_table() -> RateTable:
    """The table that comes with ViPER."""
    (data,) = documents((files("viper.costs") / "rates.yaml").read_bytes(), "rates.yaml")
    return _parse(data, "rates.yaml")


def load_table(path: Path | None = None) -> RateTable:
    """The default table, or that of a YAML or JSON file; raises `SpecError`."""
    if path is None:
        return default_table()
    table, own = _parse(read_document(path), str(path)), default_table()
    for field in ("factors", "calls", "acceptance", "startup", "storage"):
        if missing := sorted(set(getattr(own, field)) - set(getattr(table, field))):
            raise SpecError(
                f"has no {field}: {', '.join(missing)}", where=str(path), fix="viper/costs/rates.yaml has every figure"
            )
    if DEFAULT_GPU not in table.gpus:
        raise SpecError(
            f"says nothing of the {DEFAULT_GPU}", where=f"{path} gpus", fix="plans are reckoned with it by default"
        )
    return table


def _parse(data: Any, where: str) -> RateTable:
    try:
        return RateTable.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(f"  {shown('.'.join(map(str, e['loc'])))}: {e['msg']}" for e in error.errors()[:20])
        raise SpecError(
            f"is not a table of rates:\n{problems}", where=where, fix="viper/costs/rates.yaml is an example"
        ) from None
