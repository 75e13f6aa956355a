"""`viper run FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from viper.cli.options import folder, whole

if TYPE_CHECKING:
    from viper.local import LocalRun, RunDirectory, RunResult

#: Exit statuses beside 0 (finished) and those of `viper.errors`.
HELD, SUSPENDED, FAILED, STOPPED = 8, 9, 7, 128


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `run`."""
    parser = subparsers.add_parser(
        "run",
        help="run an iteration or a loop on this machine",
        description="Runs a ViperIteration or ViperLoop with processes on this machine. Run again after any "
        "interruption, it goes on where it stopped.",
        epilog="exit status: 0 finished; 2-7 an error (7: a stage failed); 8 held, a person has to decide; "
        "9 suspended; 130 and 143 stopped by Ctrl-C and SIGTERM",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML or JSON of one resource")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="run directory (default: runs/<name>)")
    parser.add_argument("--store", metavar="URI", help="object store: path, file:// or s3:// (default: DIR/store)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow: sqlite:/// or http:// (default: DIR/mlflow.db)")
    parser.add_argument(
        "--parallel",
        type=whole(1, 1024, "number of processes"),
        default=1,
        metavar="N",
        help="stage processes at a time (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs it and prints the summary."""
    from viper.cli.console import Console
    from viper.cli.render import iterations
    from viper.local import LocalRun, RunDirectory, Stopped
    from viper.spec import load_runnable

    resource = load_runnable(args.file)
    directory = RunDirectory(folder(args.dir or Path("runs") / resource.metadata.name, "--dir"))
    _check_places(args)
    with directory.lock():
        _forget_what_never_began(directory, args)
        record = directory.open(resource, args.store, args.tracking_uri)
        for warning in next(iterations(record.resource)).spec.warnings():
            print(f"warning: {warning}", file=sys.stderr)
        console = Console(sys.stdout)
        local = LocalRun(directory, record, console, parallel=args.parallel)
        try:
            try:
                result = local.run()
            finally:
                console.finish()
        except (Stopped, KeyboardInterrupt) as stop:
            print(f"\nstopped; what is done is kept. To go on:\n  {_again(args)}")
            return STOPPED + (stop.signal if isinstance(stop, Stopped) else 2)
        _conclude(local, result, args)
    return {"held": HELD, "suspended": SUSPENDED, "running": SUSPENDED, "failed": FAILED}.get(result.last.outcome, 0)


def _check_places(args: argparse.Namespace) -> None:
    """What cannot be reached is not remembered. Raises `StoreError`, `RegistryError` for what is no URI."""
    from viper.registry import Registry
    from viper.store import DirectoryStore, open_store

    if args.store is not None:
        store = open_store(args.store)
        if isinstance(store, DirectoryStore):
            folder(store.root, "--store")
        next(store.list("iterations/"), None)
    if args.tracking_uri is not None:
        Registry(args.tracking_uri)


def _forget_what_never_began(directory: RunDirectory, args: argparse.Namespace) -> None:
    """Other places than those that were recorded may be named as long as nothing has begun: the first were a slip."""
    from viper.cli.render import iterations
    from viper.errors import StoreError
    from viper.store import open_store

    record = directory.record()
    if record is None or (args.store is None and args.tracking_uri is None):
        return
    first = next(iterations(record.resource)).metadata.name
    try:
        store = open_store(record.store)
        directory.check(store)
        begun = store.stat(f"iterations/{first}/iteration.json") is not None
    except StoreError:
        return  # nobody can tell, or it has begun and its store is not there
    if not begun:
        (directory.path / "run.json").unlink()


def _again(args: argparse.Namespace) -> str:
    words = ["viper", "run", str(args.file)]
    for option, value in (("--dir", args.dir), ("--store", args.store), ("--tracking-uri", args.tracking_uri)):
        words += [option, str(value)] if value is not None else []
    return " ".join(words)


def _conclude(local: LocalRun, result: RunResult, args: argparse.Namespace) -> None:
    from viper.cli.report import registry_lines, write
    from viper.report.table import summary_table

    print()
    print(summary_table(local.store, result.names), end="")
    print(f"\nreport: {write(local.record, local.directory.path)}")
    print("the registry, its versions with their data, parents and scores:")
    for line in registry_lines(local.record):
        print(f"  {line}")
    condition = result.condition
    if condition.status != "True":
        print(f"\n{condition.reason}: {condition.message}")
    if result.last.outcome == "failed":
        print(f"once the cause is removed, go on with:\n  {_again(args)}")
