"""The lines of stages in the trees that `viper status` and `kubectl viper status` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from viper.terminal import columns, plain
from viper.words import duration, one_line

if TYPE_CHECKING:
    from rich.text import Text

_MARKS = {
    "Succeeded": ("✔", "green"),
    "Running": ("▶", "cyan"),
    "Failed": ("✘", "red"),
    "Held": ("■", "yellow"),
    "Retrying": ("↻", "yellow"),
    "Suspended": ("‖", "dim"),
}
#: States whose message says nothing that the tree does not show.
_OBVIOUS = ("Waiting", "Suspended", "Succeeded")


def stage_row(name: str, state: str, text: str, seconds: float | None = None, *more: str) -> Sequence[str | Text]:
    """One stage. `seconds`: how long it took or takes; `more`: further columns before the text."""
    from rich.text import Text

    took = "" if seconds is None else duration(seconds, 1)
    return Text.assemble(_MARKS.get(state, " "), " ", plain(name)), state, took, *more, one_line(text)


def stage_lines(rows: Iterable[Sequence[str | Text]]) -> list[Text]:
    """The rows of an iteration's stages, aligned; figures stay where they are from one picture to the next."""
    return columns(rows, right=(2, 3), least={0: 23, 1: 11, 2: 11, 3: 12})


def telling(state: str, message: str) -> str:
    """A stage's message where a person wants to see it."""
    return "" if state in _OBVIOUS else message
