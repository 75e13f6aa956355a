"""When two texts are the same text."""

from __future__ import annotations


def comparable(text: str) -> str:
    """Text without case, punctuation and extra spaces: equal for what a person would call the same sentence."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
