"""Trees for a terminal: what `viper status` and `kubectl viper status` print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from viper.words import duration, one_line

_MARKS = {"Succeeded": "✔", "Running": "▶", "Failed": "✘", "Held": "■", "Retrying": "↻", "Suspended": "‖"}
#: States whose message says nothing that the tree does not show.
_OBVIOUS = ("Waiting", "Suspended", "Succeeded")


class Node(NamedTuple):
    """A line, what is below it, and notes: lines without a branch of their own."""

    text: str
    children: tuple[Node, ...] = ()
    notes: tuple[str, ...] = ()


def tree(node: Node) -> Iterator[str]:
    """The lines of a tree."""
    yield node.text
    yield from _below(node, "")


def _below(node: Node, indent: str) -> Iterator[str]:
    for note in node.notes:
        yield f"{indent}{'│' if node.children else ' '}    ! {note}"
    for i, child in enumerate(node.children):
        last = i == len(node.children) - 1
        yield f"{indent}{'└─' if last else '├─'} {child.text}"
        yield from _below(child, f"{indent}{'   ' if last else '│  '}")


def stage_line(name: str, state: str, text: str, seconds: float | None = None, *more: str) -> str:
    """One stage. `seconds`: how long it took or takes; `more`: further columns before the text."""
    took = "" if seconds is None else duration(seconds, 1)
    columns = [f"{_MARKS.get(state, ' ')} {name:22} {state:11} {took:>12}", *more, one_line(text)]
    return "  ".join(columns).rstrip()


def telling(state: str, message: str) -> str:
    """A stage's message where a person wants to see it."""
    return "" if state in _OBVIOUS else message
