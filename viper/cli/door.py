"""The one door out of a program: whatever happens inside becomes an exit status and, for a person, a line or two.

Statuses: 0 done; those of `viper.errors` for what is told with its fix; 1 for what the system refuses (a file, a full
disk); 2 for arguments; 70 for a defect of ViPER, whose traceback goes into a file; 130 Ctrl-C; 141 nobody reads on.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from viper import __version__
from viper.errors import ViperError

#: Exit status for a defect of ViPER (EX_SOFTWARE of sysexits.h).
DEFECT = 70


def through_the_door(program: str, work: Callable[[], int]) -> int:
    """Does the work; returns its exit status, or tells what prevented it and returns that status. Never raises an
    `Exception`; argparse's `SystemExit` passes."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    if sys.stdout is None:  # `viper … >&-`: the next file that is opened would become the output
        print("error: the standard output is closed\n  → send it to a file, or to /dev/null", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a test's stand-in, or a stream in use
            # → and θ where the locale has no such letters, and names that are not UTF-8.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    leaving: SystemExit | None = None
    try:
        try:
            status = work()
        except SystemExit as error:  # argparse has said why
            leaving, status = error, 0
        sys.stdout.flush()
    except BrokenPipeError:  # `viper status | head`
        _silence(sys.stdout)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        leaving, (status, text) = None, told(program, error)
        try:
            print(f"error: {text}", file=sys.stderr, flush=True)
        except OSError:  # nobody reads it
            _silence(sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _silence(sys.stdout)
    if leaving is not None:
        raise leaving
    return status


def told(program: str, error: Exception) -> tuple[int, str]:
    """Exit status and text of an error. A defect's traceback is written into a file, which the text names."""
    if isinstance(error, ViperError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno is not None:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes | os.PathLike)]
        where = f"{' and '.join(names)}: " if names else ""
        return 1, f"{where}{os.strerror(error.errno)}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "viper").startswith("viper"):
        return 1, f"the library {error.name} is not installed\n  → pip install 'viper[cpu]', or use a stage image"
    if isinstance(error, MemoryError):
        return 1, "this machine has not enough memory for it"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    what = what if len(what) <= 300 else f"{what[:300]}…"
    return DEFECT, f"{program} has a defect: {what}\n  → please report it{_kept(program, error)}"


def _kept(program: str, error: Exception) -> str:
    """Where the traceback is."""
    lines = [f"{program} {__version__}, Python {sys.version}\n", *traceback.format_exception(error)]
    try:
        descriptor, name = tempfile.mkstemp(prefix="viper-defect-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
    except OSError:
        return "; its traceback could not be kept: set TMPDIR to a folder that can be written and run this again"
    return f" with {name}, which has the traceback"


def _silence(stream: TextIO) -> None:
    """Nothing more is written: the interpreter would complain of it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
