"""Text for a terminal, by rich: columns and trees, measured in the cells that are shown (CJK, combining accents).

Nothing is read as markup or emoji, moves the cursor, is wrapped, or cut. Colours only on a terminal that has them and
without `NO_COLOR`; plain letters for branches where the encoding has no others. rich is imported by what prints, so
that `--help` need not wait for it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from viper.text import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
    from rich.tree import Tree

#: Columns of what may be as wide as it needs to be.
_ENDLESS = 2**31
_GUIDES, _ASCII_GUIDES = ("   ", "│  ", "├─ ", "└─ "), ("   ", "|  ", "+- ", "`- ")


def console(out: TextIO, *, width: int | None = None) -> Console:
    """A console for `out`; `width` is the terminal's if not given."""
    from rich.console import Console

    made = Console(
        file=out,
        force_terminal=out.isatty(),
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        width=width,
        height=None if width is None else 25,  # without one, a dumb terminal has 80 columns whatever is asked
        markup=False,
        emoji=False,
        highlight=False,
    )
    made.on_broken_pipe = _broken_pipe  # type: ignore[method-assign]
    return made


def _broken_pipe() -> NoReturn:
    raise BrokenPipeError  # the door knows what to do


def plain(text: str | Text) -> Text:
    """The text as it is shown: without what a terminal would carry out."""
    from rich.text import Text

    # rich measures lines by `splitlines` and breaks them at \n alone.
    return text if isinstance(text, Text) else Text("\n".join(clean(text).replace("\t", " ").splitlines()))


def printed(shown: RenderableType, out: TextIO | None = None) -> str:
    """What to write to `out` (none: a plain file of UTF-8) for it; no blanks at the end of a line, nor a newline."""
    on = console(io.StringIO() if out is None else out, width=_ENDLESS)
    with on.capture() as captured:
        on.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n"))


def columns(
    rows: Iterable[Sequence[RenderableType]],
    *,
    right: Collection[int] = (),
    least: Mapping[int, int] | None = None,
    indent: int = 0,
    gap: int = 2,
) -> list[Text]:
    """The rows as lines: columns as wide as their widest cell.

    Args:
        rows: cells, as many in each row; one of several lines makes a row of several.
        right: columns that are aligned at their right end.
        least: cells that a column has at least.
        indent: blanks before the first column.
        gap: blanks between two columns.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[plain(c) if isinstance(c, str) else c for c in row] for row in rows]
    table = Table.grid(padding=(0, gap, 0, 0))
    for i in range(max(map(len, cells), default=0)):
        table.add_column(justify="right" if i in right else "left", min_width=(least or {}).get(i), no_wrap=True)
    for row in cells:
        table.add_row(*row)
    lines = []
    for segments in console(io.StringIO(), width=_ENDLESS).render_lines(table, pad=False) if cells else ():
        line = Text.assemble(" " * indent, *((s.text, s.style or "") for s in segments))
        line.rstrip()
        lines.append(line)
    return lines


def tree(label: str | Text, children: Iterable[Tree] = (), notes: Sequence[str] = ()) -> Tree:
    """A line, what is below it, and notes: lines without a branch of their own."""
    from rich.text import Text
    from rich.tree import Tree

    below = list(children)
    made = Tree(Text("\n").join(map(plain, (label, *(f"{'│' if below else ' '}    ! {note}" for note in notes)))))
    made.TREE_GUIDES, made.ASCII_GUIDES = [_GUIDES] * 3, _ASCII_GUIDES
    made.children.extend(below)
    return made


def folded(text: str, width: int) -> Text:
    """The text in lines of at most so many cells."""
    from rich.text import Text

    lines = plain(text).wrap(console(io.StringIO()), width)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def rewritten(text: str, terminal: TextIO) -> str:
    """What to write for a line in place of the terminal's last one: cut where the terminal ends."""
    line = plain(text)
    line.truncate(console(terminal).width - 1, overflow="ellipsis")
    return f"\r\x1b[K{line}"
