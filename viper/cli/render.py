"""`viper render FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from viper.words import plural

if TYPE_CHECKING:
    from viper.spec import IterationSpec, ViperIteration, ViperLoop


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `render`."""
    parser = subparsers.add_parser(
        "render",
        help="show the fully resolved iterations and what would be run",
        description="Validates FILE and prints every iteration with all defaults written out, as YAML, followed by its "
        "stages and their commands as comments. Nothing is started or contacted.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML or JSON of one resource")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="run directory (default: runs/<name>)")
    parser.add_argument("--store", metavar="URI", help="object store (default: DIR/store)")


def run(args: argparse.Namespace) -> int:
    """Prints YAML documents."""
    import yaml

    from viper.cli.options import folder
    from viper.iteration.known import check_names
    from viper.spec import load_runnable
    from viper.store import open_store

    resource = load_runnable(args.file)
    directory = folder(args.dir or Path("runs") / resource.metadata.name, "--dir").absolute()
    store = (directory / "store").as_uri() if args.store is None else open_store(args.store).uri
    for number, iteration in enumerate(iterations(resource)):
        if number == 0:  # those of a loop name the same
            check_names(iteration.spec)
            for warning in iteration.spec.warnings():
                print(f"warning: {warning}", file=sys.stderr)
        print("---")
        print(yaml.safe_dump(iteration.dump(), sort_keys=False, allow_unicode=True, width=120), end="")
        for line in commands(iteration, store, directory):
            print(f"# {line}" if line else "#")
    return 0


def iterations(resource: ViperIteration | ViperLoop) -> Iterator[ViperIteration]:
    """The iterations of a resource in order."""
    from viper.spec import ViperIteration

    if isinstance(resource, ViperIteration):
        yield resource
    else:
        for number in range(1, resource.spec.iterations + 1):
            yield resource.iteration(number)


def commands(iteration: ViperIteration, store: str, directory: Path) -> Iterator[str]:
    """The stages, what they wait for, which policy they load, and the command of each of their processes."""
    from viper.local.executor import stage_arguments
    from viper.methods.stages import THETA0, stage_graph
    from viper.plan import StartStage

    spec, name = iteration.spec, iteration.metadata.name
    yield f"The stages of {name}:"
    for number, node in enumerate(stage_graph(spec.recipe), start=1):
        resources = spec.profile.of(node.name)
        policy = {None: "no policy", THETA0: "policy: θ0"}.get(node.model, f"policy: from {node.model}")
        after = f"after {', '.join(node.needs)}" if node.needs else "at once"
        limit = "no deadline" if resources.deadline_seconds is None else f"deadline {resources.deadline_seconds} s"
        yield ""
        yield f"{number}. {node.name}: {after}; {policy}; up to {plural(resources.retries, 'retry')}, {limit}"
        for shard in range(resources.shards):
            action = StartStage(node.name, shard, resources.shards, 1)
            work = directory / "work" / name / node.name
            yield f"   viper-job {' '.join(stage_arguments(store, name, action, work))}"
        if spec.engines.trainer == "verl" and node.stage.distributed:
            yield from verl_commands(spec, node.name, directory / "work" / name / node.name)


def verl_commands(spec: IterationSpec, stage: str, work: Path) -> Iterator[str]:
    """verl's command inside a training stage with every setting, and what of it is not known yet."""
    from viper.training.verl.planned import planned_arguments, planned_steps

    steps = planned_steps(spec, stage)
    known = (
        "one step, say: the data decides"
        if steps is None
        else f"{plural(steps, 'step')}, if validation fills the quota"
    )
    yield f"   which runs verl ({known}):"
    yield "     python -m verl.trainer.main_ppo"
    for argument in planned_arguments(spec, stage, work):
        yield f"       {argument}"
