"""Every path, `path::symbol` and relative link in README.md, CONTRIBUTING.md and docs/ leads somewhere."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([\w./#][^)\s]*)\)")
#: A code span is a path of this project when it starts in one of its folders; placeholders (`runs/NAME`) are not.
PATH = re.compile(r"(?:viper|jobs|tests|docs|benchmarks|examples)/[\w./-]*$")


@cache
def symbols(path: Path) -> frozenset[str]:
    """Top-level names of a module, and `Class.member` for what a class body defines."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [t.id for t in node.targets if isinstance(t, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            found.update(prefix + name for name in names)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(path.read_text("utf-8")).body, "")
    return frozenset(found)


def problems(text: str, page: Path) -> list[str]:
    """What a page names that does not exist."""
    prose, wrong = FENCE.sub("", text), []
    for span in SPAN.findall(prose):
        path, colons, symbol = span.partition("::")
        if not PATH.match(path):
            wrong += [f"{span}: not a path of this project"] if colons else []
        elif not (ROOT / path).exists():
            wrong.append(f"{span}: there is no {path}")
        elif colons and symbol not in symbols(ROOT / path):
            wrong.append(f"{span}: {path} has no {symbol}")
    for target in LINK.findall(SPAN.sub("", prose)):
        if "://" not in target and not target.startswith("#") and not (page.parent / target.partition("#")[0]).exists():
            wrong.append(f"link to {target}: it does not exist")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_names_exists(page: Path) -> None:
    assert problems(page.read_text("utf-8"), page) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`viper/errors.py::ViperError.exit_code` and [a](reward.md#top)", []),
        ("`viper/errors.py::NoSuchError`", ["viper/errors.py::NoSuchError: viper/errors.py has no NoSuchError"]),
        ("`viper/nothing.py`", ["viper/nothing.py: there is no viper/nothing.py"]),
        ("[gone](gone.md)", ["link to gone.md: it does not exist"]),
        ("`elsewhere.py::x`", ["elsewhere.py::x: not a path of this project"]),
        ("pattern `^[a-z]([-a-z]{0,48}[a-z])?$` or ^[a-z]([-a-z]{0,48}[a-z])?$", []),
        ("```\n`viper/nothing.py`\n```\n`viper run FILE`", []),
    ],
)
def test_a_wrong_name_is_found(text: str, wrong: list[str]) -> None:
    assert problems(text, ROOT / "docs" / "page.md") == wrong
