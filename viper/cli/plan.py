"""`viper plan FILE`: what it will take, before anything runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper.cli.options import real, whole
from viper.terminal import columns
from viper.words import plural

if TYPE_CHECKING:
    from viper.costs import IterationCost, LoopCost, Range, StageCost
    from viper.costs.estimate import Circumstances
    from viper.spec import IterationSpec, ViperIteration, ViperLoop

_HEAD = ("stage", "items", "accepted", "s/item", "pods×GPUs", "wall", "GPU-hours", "storage", "US$")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `plan`."""
    parser = subparsers.add_parser(
        "plan",
        help="what it will take: items, GPU-hours, storage, money",
        description="Prints for every stage how many items it works on, what share is expected to be accepted, how "
        "long it takes on how many GPUs, and what that costs, as ranges; nothing is started. Throughputs are what "
        "the stages of --store measured, else those of a table of published and assumed ones (docs/cost.md).",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML or JSON of one iteration or loop")
    parser.add_argument(
        "--profile", metavar="NAME|FILE", help="run on this profile: a100-8x, cpu-small, or a file with a ViperProfile"
    )
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="table of throughputs, or report of benchmarks/gpu, over the table of ViPER; can be given several times",
    )
    parser.add_argument("--store", metavar="URI", help="object store whose finished stages were measured")
    parser.add_argument("--gpu", metavar="NAME", help="kind of GPU (A100, H100 …), when the profile names none")
    parser.add_argument(
        "--price-per-gpu-hour", type=real(0, 1e6, "price"), metavar="X", help="US$; default: a range by kind of GPU"
    )
    parser.add_argument(
        "--questions",
        type=whole(0, 10**9, "number of questions"),
        metavar="N",
        help="questions that the evaluation asks",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="default: text")


def run(args: argparse.Namespace) -> int:
    """Prints the plan."""
    from viper.costs import iteration_cost, loop_cost
    from viper.iteration.known import check_names
    from viper.spec import ViperLoop

    resource = _resource(args.file, args.profile)
    check_names(resource.spec.template if isinstance(resource, ViperLoop) else resource.spec)
    name = resource.metadata.name
    if isinstance(resource, ViperLoop):
        loop = loop_cost(resource.spec, _known(args, resource.spec.template))
        shown = _loop_lines(name, loop) if args.output == "text" else [json.dumps(_loop_data(name, loop), indent=1)]
    else:
        one = iteration_cost(resource.spec, _known(args, resource.spec))
        shown = _lines(name, one) if args.output == "text" else [json.dumps(_data(name, one), indent=1)]
    for line in shown:
        print(line)
    return 0


def _resource(file: Path, profile: str | None) -> ViperIteration | ViperLoop:
    """The resource with the profile that it is to run on."""
    from viper.costs.profiles import find_profile
    from viper.errors import SpecError
    from viper.spec import ViperLoop, ViperProfile, load_resource

    resource = load_resource(file)
    if isinstance(resource, ViperProfile):
        raise SpecError(
            "a ViperProfile is nothing to run",
            where=str(file),
            fix="give the file of an iteration or loop, and this one as --profile",
        )
    template = resource.spec.template if isinstance(resource, ViperLoop) else resource.spec
    wanted = template.profile_ref if profile is None else profile
    if wanted is None:
        return resource
    template = template.with_profile(
        find_profile(wanted, "--profile" if profile is not None else f"{file}: profileRef")
    )
    if isinstance(resource, ViperLoop):
        return resource.model_copy(update={"spec": resource.spec.model_copy(update={"template": template})})
    return resource.model_copy(update={"spec": template})


def _known(args: argparse.Namespace, spec: IterationSpec) -> Circumstances:
    from viper.costs import Measurements, load_table
    from viper.costs.estimate import Circumstances
    from viper.costs.measured import load_measurements
    from viper.errors import SpecError
    from viper.store import existing_store

    table = load_table(*args.rates)
    if args.gpu is not None and args.gpu not in table.gpus:
        raise SpecError(f"{args.gpu!r} is not in the table", where="--gpu", fix=f"use one of {', '.join(table.gpus)}")
    measured = Measurements() if args.store is None else load_measurements(existing_store(args.store))
    questions = args.questions if args.questions is not None else _questions(spec)
    return Circumstances(table, measured, args.gpu, args.price_per_gpu_hour, questions)


def _questions(spec: IterationSpec) -> int | None:
    """Questions of an extension or of a local JSONL file; other sets are not opened."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(spec.evaluation.questions)
    except ValueError:  # brackets that are no address: the evaluation will say so
        return None
    from viper.extensions import reader

    if reader("questions", spec.evaluation.questions) is not None:
        from viper.evaluation.questions import load_questions

        return len(load_questions(spec.evaluation.questions, "test"))
    file = Path(unquote(parts.path))
    if parts.scheme not in ("", "file") or not parts.path or not file.is_file():
        return None
    from viper.errors import InputError
    from viper.jsonl import Lines

    try:
        return len(Lines(str(file), file.read_bytes()))
    except (InputError, OSError):  # freezing says what is wrong with it
        return None


# ---- for people ----------------------------------------------------------------------------------------------------


def _lines(name: str, cost: IterationCost) -> Iterator[str]:
    yield f"{name}: one iteration on {cost.gpu}"
    yield ""
    yield from _table(cost)
    yield ""
    yield from _explained(cost)


def _loop_lines(name: str, loop: LoopCost) -> Iterator[str]:
    one = loop.iteration
    several = plural(loop.iterations, "iteration")
    yield f"{name}: {several} on {one.gpu}" + ("" if loop.iterations == 1 else "; each:")
    yield ""
    yield from _table(one)
    yield ""
    money = "" if one.money is None else f", US$ {_show(one.money * loop.iterations)}"
    wall = _duration(one.wall * loop.iterations)
    yield (
        f"{'In all' if loop.iterations == 1 else f'All {several}'}: {wall}, {_show(loop.gpu_hours)} GPU-hours, "
        f"{_bytes(one.storage * loop.iterations)}{money}"
    )
    if loop.budget is not None:
        yield f"Budget: {loop.budget:,g} GPU-hours, {_affordable(loop)}"
    yield ""
    yield from _explained(one)


def _affordable(loop: LoopCost) -> str:
    if loop.affordable is None:
        return "and no GPU is used"
    worst, best = loop.affordable
    enough = f"{worst}" if worst == best else f"{worst} to {best}"
    if worst >= loop.iterations:
        return "enough for all iterations"
    if not best:
        return "not enough for a single iteration; raise budget.gpuHours"
    return f"enough for {enough} of {plural(loop.iterations, 'iteration')}"


def _table(cost: IterationCost) -> Iterator[str]:
    from rich.rule import Rule

    money = "" if cost.money is None else _show(cost.money)
    total = ("in all", "", "", "", "", _duration(cost.wall), _show(cost.gpu_hours), _bytes(cost.storage), money)
    rule = [Rule(characters="-")] * len(_HEAD)
    yield from map(str, columns([_HEAD, rule, *map(_row, cost.stages), rule, total], right=range(1, len(_HEAD))))


def _row(stage: StageCost) -> tuple[str, ...]:
    if not stage.items.high:
        return (stage.name, "–", *[""] * 7)
    return (
        stage.name,
        f"{_show(stage.items, whole=True)} {stage.unit}",
        "" if stage.acceptance is None else _percent(stage.acceptance),
        _show(stage.seconds_per_item),
        f"{stage.shards}×{stage.gpus}",
        _duration(stage.wall),
        _show(stage.gpu_hours) if stage.gpus else "",
        _bytes(stage.storage) if stage.storage.high else "",
        "" if stage.money is None else _show(stage.money),
    )


def _explained(cost: IterationCost) -> Iterator[str]:
    for text in cost.assumptions:
        yield f"! {text}"
    for stage in cost.stages:
        for note in stage.notes:
            yield f"! {stage.name}: {note}"
    yield "Known from:"
    for stage in cost.stages:
        if stage.sources:
            yield f"  {stage.name}: {'; '.join(stage.sources)}"


def _number(value: float, *, whole: bool = False) -> str:
    if whole or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def _show(value: Range, *, whole: bool = False) -> str:
    low, high = (_number(v, whole=whole) for v in (value.low, value.high))
    return low if low == high else f"{low}–{high}"


def _percent(value: Range) -> str:
    low, high = (f"{100 * v:.0f}" for v in (value.low, value.high))
    return f"{low} %" if low == high else f"{low}–{high} %"


def _scaled(value: Range, units: Sequence[tuple[float, str]]) -> str:
    """In the largest unit that the middle fills."""
    size, unit = next(((s, u) for s, u in units if value.middle >= s), units[-1])
    return f"{_show(value / size)} {unit}"


def _duration(seconds: Range) -> str:
    return _scaled(seconds, ((172800, "d"), (7200, "h"), (120, "min"), (1, "s")))


def _bytes(size: Range) -> str:
    return _scaled(size, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")))


# ---- for programs --------------------------------------------------------------------------------------------------


def _pair(value: Range | None) -> list[float] | None:
    return None if value is None else [round(value.low, 6), round(value.high, 6)]


def _data(name: str, cost: IterationCost) -> dict[str, Any]:
    return {"name": name, "gpu": cost.gpu, "iteration": _iteration_data(cost)}


def _loop_data(name: str, loop: LoopCost) -> dict[str, Any]:
    budget = None
    if loop.budget is not None:
        affordable = None if loop.affordable is None else list(loop.affordable)
        budget = {"gpuHours": loop.budget, "iterations": affordable}
    money = loop.iteration.money
    return {
        **_data(name, loop.iteration),
        "iterations": loop.iterations,
        "total": {
            "wallSeconds": _pair(loop.iteration.wall * loop.iterations),
            "gpuHours": _pair(loop.gpu_hours),
            "bytes": _pair(loop.iteration.storage * loop.iterations),
            "money": _pair(None if money is None else money * loop.iterations),
        },
        "budget": budget,
    }


def _iteration_data(cost: IterationCost) -> dict[str, Any]:
    return {
        "stages": [
            {
                "name": s.name,
                "unit": s.unit,
                "items": _pair(s.items),
                "acceptance": _pair(s.acceptance),
                "secondsPerItem": _pair(s.seconds_per_item),
                "shards": s.shards,
                "gpus": s.gpus,
                "wallSeconds": _pair(s.wall),
                "gpuHours": _pair(s.gpu_hours),
                "bytes": _pair(s.storage),
                "money": _pair(s.money),
                "sources": list(s.sources),
                "notes": list(s.notes),
            }
            for s in cost.stages
        ],
        "wallSeconds": _pair(cost.wall),
        "gpuHours": _pair(cost.gpu_hours),
        "bytes": _pair(cost.storage),
        "money": _pair(cost.money),
        "assumptions": list(cost.assumptions),
    }
