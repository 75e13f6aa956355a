"""`viper doctor [FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.doctor import Facts, Finding, MeasuredMemory
    from viper.methods.stages import Stage
    from viper.spec import IterationSpec


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine or pod: GPUs, memory, disks, libraries, servers, models",
        description="Compares the machine or pod that it runs on with what a profile and a file want, and says what to "
        "change. Nothing is loaded, started or downloaded.",
        epilog="exit status: 0 unless a check fails; warnings do not count",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="YAML or JSON of one iteration or loop")
    parser.add_argument("--profile", metavar="NAME|FILE", help="a100-8x, cpu-small, or a file with a ViperProfile")
    parser.add_argument("--stage", metavar="STAGE", help="only what this stage gets and needs")
    parser.add_argument("--store", metavar="URI", help="object store (default: $VIPER_STORE)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow (default: $MLFLOW_TRACKING_URI)")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="scratch of stages (default: temporary folder)")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="versions to compare with (default: the image's)")
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="report of benchmarks/gpu, whose memory takes the place of estimates; can be given several times",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="form of the output")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 when a check fails."""
    from viper.cli.options import folder
    from viper.doctor import Wanted, examine, wanted_by
    from viper.errors import SpecError
    from viper.methods.stages import declared

    stage = None if args.stage is None else declared(args.stage)
    if args.work_dir is not None:
        folder(args.work_dir, "--work-dir")
    if args.lock is not None and not args.lock.is_file():
        raise SpecError("there is no such file", where=f"--lock {args.lock}")
    spec = _spec(args.file)
    if args.profile is not None:
        from viper.costs.profiles import find_profile

        wanted = wanted_by(find_profile(args.profile), args.stage)
    elif spec is not None and spec.profile_ref is None:
        wanted = wanted_by(spec.profile, args.stage)
    else:
        wanted = Wanted()
    found = examine(gather(args, spec, stage), wanted)
    if args.output == "json":
        print(json.dumps([asdict(f) for f in found], indent=1))
    else:
        from viper.terminal import console

        for line in table(found, console(sys.stdout).width if sys.stdout.isatty() else 10**6):
            print(line)
    return int(any(f.level == "fail" for f in found))


def gather(args: argparse.Namespace, spec: IterationSpec | None, stage: Stage | None) -> Facts:
    """The facts of this machine, of the servers, and of what the file needs."""
    from viper.doctor import Facts, reach
    from viper.doctor import gather as here
    from viper.errors import SpecError
    from viper.modelcache import model_cache

    measured = [memory for file in args.measured for memory in _measured(file)]
    gpus, driver, no_gpus = here.nvidia()
    locked, lock = here.locked(args.lock)
    if args.lock is not None and not locked:
        fix = "give a file with lines such as torch==2.9.1"
        raise SpecError("pins no library", where=f"--lock {args.lock}", fix=fix)
    named = here.settings()
    store = named.get("store") or None if args.store is None else args.store
    tracking = named.get("tracking") or None if args.tracking_uri is None else args.tracking_uri
    servers = [] if store is None else [reach.store_answers(store)]
    servers += [] if tracking is None else [reach.mlflow_answers(tracking)]
    cache = model_cache()
    return Facts(
        cpus=here.cpus(),
        memory=here.memory(),
        shm=here.volume(Path("/dev/shm")),  # noqa: S108
        work=here.volume(args.work_dir or Path(tempfile.gettempdir())),
        cache=here.volume(cache.root),
        nvidia_smi=no_gpus,
        driver=driver,
        gpus=gpus,
        torch_cuda=here.torch_cuda(),
        libraries=here.installed(),
        locked=locked,
        lock=lock,
        servers=tuple(servers if spec is None else [*servers, *reach.endpoints(spec)]),
        models=() if spec is None else tuple(reach.models_there(spec, cache, stage)),
        phases=() if spec is None else tuple(reach.planned(spec, cache, stage)),
        measured=tuple(measured),
    )


def _measured(file: Path) -> Iterator[MeasuredMemory]:
    """The figures of memory of a report; raises `SpecError`."""
    from viper.costs.device import load_report
    from viper.doctor import MeasuredMemory

    report = load_report(file)
    for figure, of in report.memory:
        yield MeasuredMemory(
            figure.name,
            report.device.name,
            of.interface,
            of.engine,
            int(figure.value),
            int(figure.high),
            of.weights,
            of.planned,
            report.tiny,
        )


def table(found: Sequence[Finding], width: int) -> Iterator[str]:
    """One line for each finding, what to change below it, and the sum."""
    from rich.cells import cell_len

    from viper.terminal import columns

    name = max(cell_len(f.check) for f in found)
    rows = ((f.level, f.check, f.found + (f"  (wanted: {f.wanted})" if f.wanted else "")) for f in found)
    for finding, line in zip(found, columns(rows, least={0: 4}), strict=True):
        yield str(line)
        if finding.fix and finding.level != "ok":
            indent = " " * (name + 8)
            yield from textwrap.wrap(
                f"→ {finding.fix}",
                max(width, 60),
                initial_indent=indent,
                subsequent_indent=indent + "  ",
                break_long_words=False,  # a command stays one to copy
                break_on_hyphens=False,
            )
    counts = {level: sum(f.level == level for f in found) for level in ("ok", "warn", "fail")}
    yield ", ".join(f"{number} {level}" for level, number in counts.items())


def _spec(file: Path | None) -> IterationSpec | None:
    from viper.spec import ViperLoop, load_runnable

    if file is None:
        return None
    resource = load_runnable(file)
    return resource.spec.template if isinstance(resource, ViperLoop) else resource.spec
