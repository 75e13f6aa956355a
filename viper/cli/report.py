"""`viper report DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.local import RunRecord


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report`."""
    parser = subparsers.add_parser(
        "report",
        help="write the report page of a run",
        description="Writes one static page (curves, acceptance, accuracy, gallery) from the store of a run, finished "
        "or not, and prints the summary table.",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write it (default: DIR/report)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints where it is; raises `InputError` when nothing has begun, `StageError` at the end when
    an iteration could not be read."""
    from viper.cli.options import folder
    from viper.cli.status import opened, store_of
    from viper.errors import InputError, StageError
    from viper.report.collect import collect
    from viper.report.page import write_page
    from viper.report.table import render

    directory, record = opened(args.dir)
    out = directory.path / "report" if args.out is None else folder(args.out, "--out")
    store = store_of(directory, record)
    found = collect(store, iteration_names(record))
    if not found.iterations and not found.unreadable:
        raise InputError(
            "no iteration of this run has begun: there is nothing to report",
            where=store.uri,
            fix="`viper run` begins it; if it had begun, its store has been moved: put it back",
        )
    print(render(found), end="")
    print(f"\nreport: {write_page(store, found, out, registry_lines=registry_lines(record))}")
    if found.unreadable:
        name, problem = found.unreadable[0]
        raise StageError(
            f"{name} could not be read: {problem}",
            fix="restore it from a copy, or use the release that it needs; the others are reported",
        )
    return 0


def write(record: RunRecord, directory: Path) -> Path:
    """Writes the page of a run and returns its path."""
    from viper.report.page import build
    from viper.store import open_store

    lines = registry_lines(record)
    return build(open_store(record.store), iteration_names(record), directory / "report", registry_lines=lines)


def iteration_names(record: RunRecord) -> list[str]:
    """The iterations of a run, started or not."""
    from viper.cli.render import iterations

    return [i.metadata.name for i in iterations(record.resource)]


def registry_lines(record: RunRecord) -> list[str]:
    """The two lines that browse the registry."""
    from viper.cli.render import iterations

    model = next(iterations(record.resource)).spec.model
    page = f"/#/models/{model}"
    if record.tracking.startswith("http"):
        return [f"open {record.tracking.rstrip('/')}{page}"]
    return [
        f"mlflow server --backend-store-uri {record.tracking} --port 5000",
        f"open http://127.0.0.1:5000{page}",
    ]
