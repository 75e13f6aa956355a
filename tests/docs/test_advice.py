"""What a person is told to do keeps what was made: no message says to delete data."""

from __future__ import annotations

import re

import pytest

from support.literals import ROOT, SOURCES, messages

_DATA = r"(?:files?|folders?|objects?|director(?:y|ies)|models?|stores?|databases?|manifests?|caches?|buckets?|runs?)"
#: Verbs of loss with data as their object; `it` counts where something is then made anew.
DELETES = re.compile(
    rf"\b(?:remove|delete|erase|wipe|rm -r\w*)\s+(?:(?:the|this|that|its|all|any|old|whole|stored|work"
    rf"|damaged|\{{\}})\s+)*(?:{_DATA}\b|(?:it|them|\{{\}})\s+(?:and|to|if)\b)",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "text",
    [
        "{} ({}; remove this file to run the stage again)",
        "run the stage again; if it ends like this again, remove the work directory",
        "the stored copy is damaged: remove it and upload the directory again",
        "restore it, or remove it to start anew",
        "remove the object; the next attempt makes it again",
        "remove {} and pull again",
        "enlarge the volume, or remove models that are no longer used",
        "remove the directory there and upload it again",
        "if you are sure, remove it and `kubectl viper retry`",
    ],
)
def test_what_was_said_before_would_be_found(text: str) -> None:
    assert DELETES.search(text)


@pytest.mark.parametrize(
    "text", ["remove one of them", "remove spec.engines.generation.minPixels", "delete the iteration's annotation"]
)
def test_a_setting_may_go(text: str) -> None:
    assert not DELETES.search(text)


def test_no_message_advises_to_delete_data() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:120]}"
        for path in SOURCES
        for line, text in messages(path)
        if "smallworld" not in path.parts and DELETES.search(text)
    ]
    assert found == []


def test_no_page_about_failures_advises_it() -> None:
    text = (ROOT / "docs" / "failure-modes.md").read_text("utf-8")
    assert [line for line in text.splitlines() if DELETES.search(line)] == []
