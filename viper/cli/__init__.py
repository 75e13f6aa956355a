"""The command line. Only the module of the command that is asked for is imported, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from viper import __version__
from viper.cli.door import through_the_door


class Command(Protocol):
    """A module with a command."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Adds the parser of its command, with `run` as its default for `run`."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does it; returns the exit status."""
        ...


class Program(NamedTuple):
    """A program with commands. `commands`: command → its module and what it does."""

    name: str
    description: str
    commands: Mapping[str, tuple[str, str]]


VIPER = Program(
    "viper",
    "Vision-language models that raise their own perception (ViPER).",
    {
        "run": ("viper.cli.run", "run an iteration or a loop on this machine"),
        "status": ("viper.cli.status", "what is done, what runs, how long it will take"),
        "report": ("viper.cli.report", "write the report page of a run"),
        "render": ("viper.cli.render", "show the fully resolved iterations and what would be run"),
        "plan": ("viper.cli.plan", "what it will take: items, GPU-hours, storage, money"),
        "explain": ("viper.cli.explain", "describe the fields of a resource"),
        "promote": ("viper.cli.promote", "move the registry alias to a version"),
        "rollback": ("viper.cli.promote", "move the registry alias back to an earlier version"),
        "lineage": ("viper.cli.lineage", "where a model version comes from, down to its samples"),
        "reward": ("viper.cli.reward", "explain the reward of an output, calibrate its similarity model"),
        "models": ("viper.cli.models", "the model cache: fill it, see what is there"),
        "doctor": ("viper.cli.doctor", "check this machine or pod: GPUs, memory, disks, libraries, servers, models"),
        "smallworld": ("viper.smallworld.command", "the CPU-sized world: its scenes, its questions, its starter model"),
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """The `viper` command; returns the exit status."""
    return dispatch(VIPER, sys.argv[1:] if argv is None else argv)


def dispatch(program: Program, argv: Sequence[str]) -> int:
    """Runs the command that `argv` names; returns the exit status, errors printed."""
    return through_the_door(program.name, lambda: _dispatch(program, argv))


def _dispatch(program: Program, argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=program.name, description=program.description)
    parser.add_argument("--version", action="version", version=f"{program.name} {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((a for a in argv if not a.startswith("-")), "")
    command: Command | None = None
    for name, (module, text) in program.commands.items():
        if name == wanted:
            command = importlib.import_module(module)
            command.add_parser(subparsers)
        elif wanted not in program.commands or program.commands[wanted][0] != module:
            subparsers.add_parser(name, help=text, add_help=False)
    args = parser.parse_args(argv)
    if command is None:  # parse_args has refused every other name
        raise AssertionError(args.command)
    return command.run(args)
