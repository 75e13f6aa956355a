"""`viper status [DIR]`: read from the store, whoever runs the stages."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper.cli.tree import stage_lines, stage_row, telling
from viper.terminal import printed, tree

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from viper.local import RunDirectory, RunRecord
    from viper.plan import Plan, StageStatus
    from viper.spec import ViperIteration
    from viper.stage import ProgressRecord
    from viper.store import ObjectStore

#: Outcome of an iteration that is there and cannot be read.
UNREADABLE = "unreadable"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `status`."""
    parser = subparsers.add_parser(
        "status",
        help="what is done, what runs, how long it will take",
        description="Shows iterations and stages with state, progress, rate, time left and what they made.",
    )
    parser.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="run directory (default: the latest in runs/)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Prints the tree; raises `StageError` at the end when an iteration could not be read."""
    from viper.errors import StageError

    directory, record = opened(args.dir or latest())
    states = list(observe(directory, record, store_of(directory, record)))
    if args.json:
        print(json.dumps({"store": record.store, "tracking": record.tracking, "iterations": states}, indent=1))
    else:
        print(f"{directory.path}" + ("" if directory.busy() else "  (nothing runs here now)"))
        for state in states:
            print(printed(_tree(state), sys.stdout))
    for state in states:
        if state["outcome"] == UNREADABLE:
            raise StageError(
                f"{state['name']} could not be read: {state['message']}",
                fix="restore it from a copy, or use the release that it needs; the others are shown",
            )
    return 0


def opened(path: Path) -> tuple[RunDirectory, RunRecord]:
    """A run directory and its record; raises `InputError` when nothing was started there."""
    from viper.cli.options import folder
    from viper.errors import InputError
    from viper.local import RunDirectory

    directory = RunDirectory(folder(path, "DIR"))
    record = directory.record()
    if record is None:
        raise InputError("nothing was started in this directory", where=str(path), fix="`viper run FILE --dir DIR`")
    return directory, record


def store_of(directory: RunDirectory, record: RunRecord) -> ObjectStore:
    """The store of a run, to be read; raises `NotFoundError` where it is missing and nobody is about to make it, or
    lacks what has run."""
    from viper.store import existing_store, open_store

    store = open_store(record.store) if directory.busy() else existing_store(record.store)
    directory.check(store)
    return store


def observe(directory: RunDirectory, record: RunRecord, store: ObjectStore) -> Iterator[dict[str, Any]]:
    """The state of every iteration as plain data."""
    from viper.cli.render import iterations
    from viper.errors import NewerFormError, StageError

    for iteration in iterations(record.resource):
        try:
            yield _iteration(iteration, directory, store)
        except (StageError, NewerFormError) as error:
            text = f"{error.where}: {error.what}" if error.where else error.what
            nothing: dict[str, Any] = {"generator": None, "stages": []}
            yield {"name": iteration.metadata.name, "outcome": UNREADABLE, "message": text, **nothing}


def _iteration(iteration: ViperIteration, directory: RunDirectory, store: ObjectStore) -> dict[str, Any]:
    from viper.errors import StageError
    from viper.iteration.observe import StoreObserver
    from viper.plan import plan
    from viper.stage import load_frozen

    name = iteration.metadata.name
    frozen = load_frozen(store, name, error=StageError)
    if frozen is None:
        return {"name": name, "outcome": "notStarted", "message": "", "generator": None, "stages": []}
    observer = StoreObserver(store, frozen)
    spec = iteration.spec
    made = plan(frozen.iteration.spec, observer.observe(suspend=spec.suspend), time.time())
    active = not made.finished and directory.busy()
    stages = []
    for status in made.stages:
        shards = frozen.iteration.spec.profile.of(status.name).shards
        record = None if status.done else observer.progress(status.name, shards)
        stages.append(_stage(status, record, active=active))
    generator = frozen.generator
    return {
        "name": name,
        "outcome": "interrupted" if made.outcome == "running" and not active else made.outcome,
        "message": _message(made),
        "generator": {"uri": generator.uri, "version": generator.version, "digest": generator.digest},
        "stages": stages,
    }


def _message(made: Plan) -> str:
    return made.summary.message if made.finished else ""


def _stage(status: StageStatus, progress: ProgressRecord | None, *, active: bool) -> dict[str, Any]:
    state = status.state.value
    # The store does not know of processes; a stage that is ready while a runner works here, and reports, runs.
    if state == "Pending" and progress is not None:
        state = "Running" if active else "Interrupted"
    entry: dict[str, Any] = {"name": status.name, "state": state, "message": status.message}
    if status.done is not None:
        done = status.done
        entry |= {
            "accepted": done.accepted,
            "rejected": dict(done.rejected),
            "seconds": done.seconds,
            "made": done.headline,
            "version": done.version,
        }
    if progress is not None:
        entry["progress"] = progress.dump() | {"line": progress.line()}
    return entry


def _tree(state: dict[str, Any]) -> Tree:
    """An iteration and its stages, one line each."""
    generator = state["generator"]
    origin = ""
    if generator is not None:
        origin = f"θ0: {'version ' + str(generator['version']) if generator['version'] else generator['uri']}"
    title = "  ".join(x for x in (state["name"], state["outcome"], origin, state["message"]) if x)
    return tree(title, map(tree, stage_lines(map(_row, state["stages"]))))


def _row(stage: dict[str, Any]) -> Sequence[str | Text]:
    if "made" in stage:
        return stage_row(stage["name"], stage["state"], stage["made"], stage["seconds"])
    if "progress" in stage:
        return stage_row(stage["name"], stage["state"], stage["progress"]["line"])
    return stage_row(stage["name"], stage["state"], telling(stage["state"], stage["message"]))


def latest() -> Path:
    """The run directory that was started last; raises `InputError` when there is none."""
    from viper.errors import InputError

    runs = sorted(Path("runs").glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise InputError("there is no run here", where="runs/", fix="name a run directory: `viper status DIR`")
    return runs[-1].parent
