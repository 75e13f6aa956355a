"""`viper promote` and `viper rollback`: a person moves the registry alias."""

from __future__ import annotations

import argparse
from pathlib import Path

from viper.cli.options import version
from viper.cli.person import person

_WHAT = {
    "promote": ("move the registry alias to a version", "Moves the alias to a version, by default the newest one."),
    "rollback": (
        "move the registry alias back to an earlier version",
        "Moves the alias back, by default to the version from which the present one was made.",
    ),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `promote` and `rollback`."""
    for name, (text, description) in _WHAT.items():
        parser = subparsers.add_parser(
            name, help=text, description=f"{description} The move is recorded on the version."
        )
        parser.add_argument("dir", type=Path, metavar="DIR", help="run directory")
        parser.add_argument("version", nargs="?", type=version, metavar="VERSION", help="registry version")
        parser.add_argument("--reason", default="", metavar="TEXT", help="recorded with the move")


def run(args: argparse.Namespace) -> int:
    """Moves the alias and says from where to where."""
    from viper.cli.render import iterations
    from viper.cli.status import opened
    from viper.registry import existing_registry
    from viper.registry.moves import Choice, move_alias
    from viper.store import open_store

    _, record = opened(args.dir)
    spec = next(iterations(record.resource)).spec
    promote = args.command == "promote"
    done = "promoted" if promote else "rolled back"
    choice: Choice = ("newest" if promote else "parent") if args.version is None else args.version
    target = (spec.model, spec.promotion.alias)
    why, store = f"{done} by {person()}: {args.reason}", open_store(record.store)
    print(move_alias(existing_registry(record.tracking), target, choice, why, store=store))
    return 0
