"""`viper-registry promote|rollback`: moves a registry alias on behalf of a person, where MLflow can be reached."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from viper.cli.options import version
from viper.registry import Registry
from viper.registry.moves import Choice, move_alias
from viper.store import open_store
from viper_jobs.main import exit_status


def main(argv: Sequence[str] | None = None, *, registry: Callable[[str], Registry] = Registry) -> int:
    """Moves the alias and says from where to where; returns the exit status as `viper-job` does."""
    parser = argparse.ArgumentParser(prog="viper-registry", description="Moves a registry alias and records the move.")
    parser.add_argument("command", choices=("promote", "rollback"), help="what is recorded, and which version is meant")
    parser.add_argument("--tracking", required=True, metavar="URI", help="MLflow's tracking URI")
    here = os.environ.get("VIPER_STORE", "")
    parser.add_argument("--store", default=here, metavar="URI", help="where movers lock (default: $VIPER_STORE)")
    parser.add_argument("--model", required=True, metavar="NAME", help="registered model")
    parser.add_argument("--alias", required=True, metavar="NAME", help="the alias to move")
    parser.add_argument(
        "--version",
        type=version,
        metavar="N",
        help="where to (promote: the newest; rollback: what the present one was made from)",
    )
    parser.add_argument("--by", required=True, metavar="WHO", help="the person, recorded")
    parser.add_argument("--reason", default="", metavar="TEXT", help="recorded")
    parser.add_argument("--request", default="", metavar="ID", help="done once, however often it is started")
    parser.add_argument("--termination-log", type=Path, metavar="FILE", help="receives the last error as JSON")
    args = parser.parse_args(argv)
    promote = args.command == "promote"
    choice: Choice = ("newest" if promote else "parent") if args.version is None else args.version
    why = f"{'promoted' if promote else 'rolled back'} by {args.by}: {args.reason}"

    def work() -> None:
        target = (args.model, args.alias)
        store = open_store(args.store) if args.store else None
        print(move_alias(registry(args.tracking), target, choice, why, store=store, request=args.request))

    return exit_status(work, args.termination_log)


if __name__ == "__main__":
    sys.exit(main())
