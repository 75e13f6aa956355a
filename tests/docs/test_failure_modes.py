"""docs/failure-modes.md and the code say the same: every reason has a row, every quoted message is one that is said."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from support.literals import ROOT, SOURCES, messages, shown, tree_of
from viper.plan import Outcome, State

PAGE = ROOT / "docs" / "failure-modes.md"
#: Where statuses, conditions, Events and termination messages are made; the plugin only shows them.
PLACES = {"viper_operator", "viper_jobs", "plan"}
EXECUTORS = [p for p in SOURCES if PLACES & set(p.relative_to(ROOT).parts) and "plugin" not in p.parts]
#: Position of the reason in what carries one.
CARRIERS = {
    "Condition": 2,
    "StatusCondition": 2,
    "StageStatus": 2,
    "Said": 1,
    "Exit": 2,
    "StopStage": 2,
    "Event": 1,
    "leave_message": 1,
    "explained": 1,
    "_explained": 2,
    "Problem": 0,
    "RefusedError": 0,
    "SpecProblemError": 0,
}
#: Words of Kubernetes, Kueue and KubeRay, which the operator passes on as they are.
PASSED_ON = {
    "FailedCreate",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "FailedMount",
    "Evicted",
    "BackoffLimitExceeded",
}
#: What is no reason: types of conditions, kinds.
OTHER_NAMES = {
    *("Succeeded", "Held", "Suspended", "GeneratorCurrent", "InternalError"),
    *("ViperIteration", "ViperLoop", "ViperProfile", "RayJob"),
}
#: Stages' states and iterations' outcomes, which are reasons where nothing else is.
STATES = {s.value for s in State} | {outcome.capitalize() for outcome in get_args(Outcome)}
REASON = re.compile(r"[A-Z][A-Za-z]*[a-z]")
SEVERAL_WORDS = re.compile(r"[A-Z]+[a-z]+(?:[A-Z]+[a-z]+)+")
SPAN = re.compile(r"`([^`\n]+)`")
QUOTED = re.compile(r'"([^"\n]+)"')


# ---- what the code says ----------------------------------------------------------------------------------------------


@cache
def _constants() -> dict[str, str]:
    """Names of modules that stand for a text."""
    return {
        target.id: node.value.value
        for path in EXECUTORS
        for node in tree_of(path).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _texts(node: ast.expr | None) -> Iterator[str]:
    """The reasons that an expression can amount to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from [node.value] if REASON.fullmatch(node.value) else []
    elif isinstance(node, ast.Name) and node.id in _constants():
        yield from [_constants()[node.id]] if REASON.fullmatch(_constants()[node.id]) else []
    elif isinstance(node, ast.IfExp):
        yield from [*_texts(node.body), *_texts(node.orelse)]
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _texts(value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        yield from _texts(node.args[1] if len(node.args) > 1 else None)


def _reason_in(node: ast.AST) -> Iterator[str]:
    """The reasons that stand at the place of one in this piece of code."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        place = CARRIERS.get(name)
        if place is not None:
            yield from _texts(node.args[place] if len(node.args) > place else None)
            yield from (r for k in node.keywords if k.arg == "reason" for r in _texts(k.value))
    elif isinstance(node, ast.Tuple) and len(node.elts) in (2, 3):
        # (reason, message), and (state, reason, message). A single word is no message, unless it goes on a sentence.
        *_, reason, message = node.elts
        word = isinstance(message, ast.Constant) and " " not in str(message.value)
        goes_on = word and re.fullmatch(r"[a-z]+", str(getattr(message, "value", "")))
        yield from (r for r in _texts(reason) if not word or (goes_on and SEVERAL_WORDS.fullmatch(r)))
    elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "reason" for t in node.targets):
        yield from _texts(node.value)


@cache
def reasons() -> dict[str, str]:
    """Every reason that a status, condition or Event can have by the code of an executor, and where."""
    return dict.fromkeys(STATES, "viper/plan/types.py") | {
        reason: f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for path in EXECUTORS
        for node in ast.walk(tree_of(path))
        for reason in _reason_in(node)
    }


@cache
def errors() -> dict[str, str]:
    """Every class of errors that a program can end with, by whose name it is called in a status, and where."""
    bases = {
        node.name: ({b.id for b in node.bases if isinstance(b, ast.Name)}, path)
        for path in SOURCES
        if "viper_operator" not in path.parts
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef)
    }
    found = {"ViperError"}
    while new := {name for name, (of, _) in bases.items() if of & found} - found:
        found |= new
    return {n: str(bases[n][1].relative_to(ROOT)) for n in found if n != "ViperError" and not n.startswith("_")}


@cache
def templates() -> tuple[str, ...]:
    return tuple({shown(text) for path in SOURCES for _, text in messages(path)})


def is_said(fragment: str) -> bool:
    """Whether it is a part of something that the code says, `…` standing for what is filled in."""
    wanted = " ".join(fragment.split())
    return any(wanted in text or wanted.strip("… ") in text for text in templates())


# ---- what the page says ----------------------------------------------------------------------------------------------


def rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Of each row of each table: what its first column holds by its heading, and its cells."""
    heading = ""
    for line in text.splitlines():
        if not line.startswith("|"):
            heading = ""
            continue
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not heading:
            heading = cells[0]
        elif not set(cells[0]) <= set("-: "):
            yield heading, cells


@cache
def documented() -> frozenset[str]:
    """Reasons that have a row."""
    return frozenset(
        span
        for heading, cells in rows(PAGE.read_text("utf-8"))
        if heading.startswith(("reason", "error"))
        for span in SPAN.findall(cells[0])
    )


def quoted(page: Path) -> list[str]:
    """Messages as the page quotes them: between straight quotes, and in the first column of tables of messages."""
    text = page.read_text("utf-8")
    found = [q for line in text.splitlines() for q in QUOTED.findall(SPAN.sub("", line))]
    for heading, cells in rows(text):
        if heading == "message":
            found += SPAN.findall(cells[0])
    return found


def test_every_reason_that_the_operator_can_give_has_a_row() -> None:
    assert len(reasons()) > 40
    missing = {r: where for r, where in reasons().items() if r not in documented()}
    assert missing == {}, "give each a row in docs/failure-modes.md"


def test_every_error_that_ends_a_program_has_a_row() -> None:
    missing = {name: where for name, where in errors().items() if name not in documented()}
    assert missing == {}, "give each a row in docs/failure-modes.md"


def test_every_row_is_of_a_reason_that_there_is() -> None:
    assert documented() - set(reasons()) - set(errors()) - PASSED_ON == set()


def test_reasons_in_the_text_are_ones_that_there_are() -> None:
    named = {s for s in SPAN.findall(PAGE.read_text("utf-8")) if SEVERAL_WORDS.fullmatch(s)}
    assert named - set(reasons()) - set(errors()) - PASSED_ON - OTHER_NAMES == set()


def test_every_message_that_the_page_quotes_is_one_that_the_code_says() -> None:
    messages = quoted(PAGE)
    assert len(messages) > 30
    assert [m for m in messages if not is_said(m)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("another attempt was first", True),
        ("another attempt came first", False),
        ("iteration … trains the same model now", True),
        ("iteration demo trains the same model now", False),
        ("… is version … now", True),
    ],
)
def test_what_is_said_is_told_from_what_is_not(text: str, said: bool) -> None:
    assert is_said(text) is said


def test_reasons_are_found_where_they_are_given() -> None:
    ways = ast.parse(
        "def f():\n"
        "    Condition('Succeeded', 'False', 'OneReason' if x else 'AnotherReason', '')\n"
        "    a = state, 'ThirdReason', f'{x} waits'\n"
        "    reason = said or 'FourthReason'\n"
        "    return 'FifthReason', 'waits for nothing'\n"
    )
    found = {reason for node in ast.walk(ways) for reason in _reason_in(node)}
    assert found == {"OneReason", "AnotherReason", "ThirdReason", "FourthReason", "FifthReason"}
