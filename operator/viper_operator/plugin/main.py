"""`kubectl viper`: the command line for a cluster. As with `viper`, only the command that is asked for is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from viper.cli import Program, dispatch

_PACKAGE = "viper_operator.plugin"
KUBECTL_VIPER = Program(
    "kubectl viper",
    "Self-evolution of vision-language models (ViPER) on this cluster.",
    {
        "status": (f"{_PACKAGE}.status", "loops, iterations and stages: what is done, what runs, what is wrong"),
        "logs": (f"{_PACKAGE}.logs", "print the log of a stage"),
        "suspend": (f"{_PACKAGE}.suspend", "stop the running stages of an iteration or a loop and keep their work"),
        "resume": (f"{_PACKAGE}.suspend", "go on with a suspended iteration or loop"),
        "retry": (f"{_PACKAGE}.retry", "try a failed or held iteration again"),
        "promote": (f"{_PACKAGE}.promote", "move the registry alias to the version that an iteration made"),
        "rollback": (f"{_PACKAGE}.promote", "move the registry alias back to an earlier version"),
        "render": (f"{_PACKAGE}.render", "show the Jobs that the operator would create"),
        "explain": ("viper.cli.explain", "describe the fields of a resource"),
        "version": (f"{_PACKAGE}.version", "versions of this command, the operator and the cluster"),
    },
)

#: Options with a value that may stand before the command, as kubectl allows.
_WITH_VALUE = ("-n", "--namespace", "--context", "--kubeconfig")


def main(argv: Sequence[str] | None = None) -> int:
    """The `kubectl viper` command; returns the exit status."""
    return dispatch(KUBECTL_VIPER, command_first(sys.argv[1:] if argv is None else argv))


def command_first(argv: Sequence[str]) -> list[str]:
    """The arguments with the command before the options that precede it: `-n viper status` → `status -n viper`."""
    i = 0
    while i < len(argv) and argv[i].startswith("-"):
        i += 2 if argv[i] in _WITH_VALUE else 1
    if i >= len(argv):
        return list(argv)
    return [argv[i], *argv[:i], *argv[i + 1 :]]


if __name__ == "__main__":
    sys.exit(main())
