"""`viper promote` and `viper rollback`: a person moves the registry alias."""

from __future__ import annotations

import argparse
import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.registry import Registry

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
        parser.add_argument("version", nargs="?", type=int, metavar="VERSION", help="registry version")
        parser.add_argument("--reason", default="", metavar="TEXT", help="recorded with the move")


def run(args: argparse.Namespace) -> int:
    """Moves the alias and says from where to where."""
    from viper.cli.render import iterations
    from viper.cli.status import opened
    from viper.registry import Registry

    _, record = opened(args.dir)
    spec = next(iterations(record.resource)).spec
    registry, alias = Registry(record.tracking), spec.promotion.alias
    before = registry.get_alias(spec.model, alias)
    version = args.version or _default(registry, spec.model, alias, before, args.command)
    done = "promoted" if args.command == "promote" else "rolled back"
    move(registry, (spec.model, alias), before, version, f"{done} by {getpass.getuser()}: {args.reason}")
    print(f"{spec.model}@{alias}: version {before} → version {version}")
    return 0


def move(registry: Registry, target: tuple[str, str], before: int | None, version: int, why: str) -> None:
    """Records the move on the version, then moves the alias if it is still at `before`. `target`: model and alias.

    Raises `AliasMovedError`, `MissingError`.
    """
    model, alias = target
    registry.get(model, version)
    now = datetime.now(UTC)
    note = f"{now.isoformat(timespec='seconds')} {alias}: version {before} to {version}, {why}".rstrip(": ")
    registry.set_tags(model, version, {f"viper.alias_move.{now:%Y%m%dT%H%M%SZ}": note})
    registry.promote(model, alias, version, expected=before)


def _default(registry: Registry, model: str, alias: str, before: int | None, command: str) -> int:
    from viper.errors import InputError
    from viper.lineage import PARENT_VERSION

    if command == "promote":
        versions = [v.version for v in registry.versions(model)]
        if versions:
            return max(versions)
        raise InputError(f"the registered model {model} has no version", fix="run an iteration first")
    parent = None if before is None else registry.get(model, before).tags.get(PARENT_VERSION)
    if parent is None:
        raise InputError(
            f"version {before} of {model} names no version that it was made from",
            where=f"models:/{model}@{alias}",
            fix="name the version to go back to",
        )
    return int(parent)
