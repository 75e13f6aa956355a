"""What modules say: the texts in their source, as a person would read them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from viper.words import plural_of

ROOT = Path(__file__).parents[2]
#: Modules whose texts a person can meet.
SOURCES = sorted(p for folder in ("viper", "jobs", "operator") for p in (ROOT / folder).rglob("*.py"))
#: What is filled in later: by an f-string (`{}` of `messages`), `%` of the log, `str.format`.
_FILLED = re.compile(r"\{\w*\}|%(?:\.\d+)?[sdrfg](?![a-z])")


@cache
def tree_of(path: Path) -> ast.Module:
    """The module, parsed."""
    return ast.parse(path.read_text("utf-8"))


def messages(path: Path) -> list[tuple[int, str]]:
    """Line and text of every string of a module but docstrings; what is filled in is `{}`."""
    tree = tree_of(path)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    found, inside = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node)}
            found.append((node.lineno, template(node)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            found.append((node.lineno, node.value))
    return found


def template(text: ast.JoinedStr) -> str:
    """An f-string with `{}` for what is filled in; a number that brings its noun (`viper.words.plural`) has several."""
    return "".join(str(p.value) if isinstance(p, ast.Constant) else _filled(p) for p in text.values)


def _filled(part: ast.expr) -> str:
    call = part.value if isinstance(part, ast.FormattedValue) else part
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "plural"):
        return "{}"
    noun = call.args[1]
    return f"{{}} {plural_of(str(noun.value))}" if isinstance(noun, ast.Constant) else "{}"


def shown(text: str) -> str:
    """A template as pages write it: `…` for what is filled in, single blanks."""
    return " ".join(_FILLED.sub("…", text).split())
