"""The command line. Only the module of the command that is asked for is imported, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Protocol

from viper import __version__
from viper.errors import ViperError

#: Command: its module in this package, and what it does.
COMMANDS = {
    "run": ("run", "run an iteration or a loop on this machine"),
    "status": ("status", "what is done, what runs, how long it will take"),
    "report": ("report", "write the report page of a run"),
    "render": ("render", "show the fully resolved iterations and what would be run"),
    "explain": ("explain", "describe the fields of a resource"),
    "promote": ("promote", "move the registry alias to a version"),
    "rollback": ("promote", "move the registry alias back to an earlier version"),
    "reward": ("reward", "explain the reward of an output"),
    "smallworld": ("smallworld", "the CPU-sized world: its scenes, its questions, its starter model"),
}


class Command(Protocol):
    """A module of this package."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Adds the parser of its command, with `run` as its default for `run`."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does it; returns the exit status."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """The `viper` command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="viper", description="Vision-language models that raise their own perception (ViPER)."
    )
    parser.add_argument("--version", action="version", version=f"viper {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    command: Command | None = None
    for name, (module, text) in COMMANDS.items():
        if name == wanted:
            command = importlib.import_module(f"viper.cli.{module}")
            command.add_parser(subparsers)
        elif wanted not in COMMANDS or COMMANDS[wanted][0] != module:
            subparsers.add_parser(name, help=text, add_help=False)
    args = parser.parse_args(arguments)
    if command is None:  # parse_args has refused every other name
        raise AssertionError(args.command)
    try:
        return command.run(args)
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `viper status | head`
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
