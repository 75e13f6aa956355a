"""What people write is shown as it is, aligned, whole; colours only where they are wanted."""

from __future__ import annotations

import io
import re
import unicodedata

import pytest
from rich.text import Text

from viper.terminal import columns, folded, printed, rewritten, tree

NAMES = {
    "greek": "θ1 → θ0",
    "marks": "✔ ■ ‖",
    "wide": "数据集 カタ",
    "combining": unicodedata.normalize("NFD", "éàü"),
    "markup": "[red]x[/red] [/] [link=x]",
    "emoji names": ":smile: :warning:",
    "bracket at the end": "a\\[",
    "empty": "",
    "long": "word " * 1000 + "x" * 3000,
}


def cells(text: str) -> int:
    """Cells of a terminal, told by the database of Unicode."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_columns_begin_in_the_same_cell_and_hold_what_was_given(name: str) -> None:
    lines = [str(line) for line in columns([("name", "5", "END"), (name, "12345", "END")], right=(1,))]
    assert len(lines) == 2
    first = max(cells(name), 4)
    assert [cells(line) for line in lines] == [first + 2 + 5 + 2 + 3] * 2
    assert lines[1].startswith(name)
    assert lines[0].endswith("      5  END")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_tree_shows_what_it_was_given(name: str) -> None:
    shown = printed(tree(name, [tree(f"a{name}", [tree("below")], [f"n{name}"]), tree("z")], ["root"]))
    assert [line.rstrip() for line in shown.split("\n")] == [
        line.rstrip()
        for line in (name, "│    ! root", f"├─ a{name}", f"│  │    ! n{name}", "│  └─ below", "└─ z")
    ]  # fmt: skip


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "COLUMNS": "20"}, False),
    ],
    ids=["terminal", "no-color", "dumb", "file", "forced"],
)
def test_colours_are_for_terminals_that_want_them(
    out: io.StringIO, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"NO_COLOR": "", "TERM": "xterm-256color"} | environment).items():
        monkeypatch.setenv(name, value)
    shown = printed(tree(Text.assemble(("✔", "green"), " done " * 20)), out)
    assert ("\x1b[" in shown) is coloured
    assert re.sub(r"\x1b\[\d+m", "", shown) == ("✔" + " done " * 20).rstrip()


def test_branches_are_plain_where_the_encoding_has_no_others() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    shown = printed(tree("a", [tree("b", [tree("c")]), tree("θ")]), out)
    assert shown == "a\n+- b\n|  `- c\n`- θ"
    print(shown, file=out, flush=True)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_folded_text_is_as_wide_as_asked_and_loses_nothing(name: str) -> None:
    lines = str(folded(name, 20)).split("\n")
    assert max(map(cells, lines)) <= 20
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    ["a\x1b[31mred", "a\x1b]0;title\x07", "a\x9b2J", "a\x07\x08", "a\tb", "a\rb", "a\ud83d", "a\u2028b", "a\vb\x85c\n"],
    ids=ascii,
)
def test_what_a_name_holds_is_not_carried_out(text: str) -> None:
    for shown in (
        printed(tree(text, [tree(f"x{text}", (), [text])])),
        "\n".join(map(str, columns([(text, "END"), ("b", "END")]))),
        str(folded(text, 20)),
        rewritten(text, Terminal()).removeprefix("\r\x1b[K"),
    ):
        assert shown.encode().startswith(b"a")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f…]", shown)
