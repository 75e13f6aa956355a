"""What every refusal of a command has to be, whatever was refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

#: Exit status of a defect (`viper.cli.door`): never a refusal.
DEFECT = 70


def status_of(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """The exit status, also where argparse decides it."""
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def assert_refused(status: int, error: str, words: str) -> None:
    """Refused with words, on the error output, without a traceback, and not because ViPER has a defect."""
    assert status not in (0, DEFECT), error
    assert "Traceback" not in error
    assert "error: " in error
    assert words in error
    assert len(error) < 8000


def refused(
    main: Callable[[Sequence[str]], int], argv: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> str:
    """Runs the command, which has to be refused; returns what it said."""
    status = status_of(main, argv)
    error = capsys.readouterr().err
    assert_refused(status, error, words)
    return error
