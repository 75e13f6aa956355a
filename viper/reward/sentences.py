"""From an output O to its text sequences S = {s_1 … s_N} (equation 6 counts and measures them).

The paper does not print its splitter; this one is ours. What it decides:

- `<think>…</think>` is reasoning, never scored; the answer is what `viper.reader` says.
- JSON, in a ``` fence or bare, is read by its values: the items of a list, or the string values of an object
  (`{"refinement": [...]}` gives the list's items), one sequence each, never split further. Keys, numbers and prose
  around the JSON are not sequences. JSON that does not parse is plain text, and so are `{}` and `[]` in prose.
- Plain text is split at line breaks, then after sentence punctuation (`. ! ? …` and their full-width forms); bullets
  and numbering in front of a line are dropped where they mark items (`viper.reward.lists`); common abbreviations do
  not end a sentence.
- Text is Unicode NFC with runs of white space as one space. A sequence without a letter, a digit or `∞` is dropped.
- Length is bounded: `MAX_CHARACTERS` of an answer are read, and everything after the first `MAX_SEQUENCES - 1`
  sequences is joined into one last sequence, so that excess text still counts in N and L, and against the score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from viper.reader import END_THINK, THINK, fenced, read
from viper.reward.lists import without_markers
from viper.text import normal

MAX_CHARACTERS = 65_536
MAX_SEQUENCES = 256
_MAX_JSON_STARTS = 8  # how many `{` or `[` are tried as the beginning of bare JSON

_JSON = re.compile(r'\{(?=\s*+["}])|\[(?=\s*+["\[{\]\-\dntf])')
_BREAK = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])[」』”’]*\s*")
_ABBREVIATIONS = {
    *("e.g.", "i.e.", "etc.", "vs.", "cf.", "ca.", "approx.", "resp.", "incl.", "nos.", "fig.", "figs."),
    *("mr.", "mrs.", "ms.", "dr.", "st.", "jr.", "sr.", "prof."),
}
_LONGEST_ABBREVIATION = 16
#: Answers without a letter or digit.
_SIGNS = frozenset("∞∅")


@dataclass(frozen=True)
class ParsedOutput:
    """An output taken apart.

    `problem` says why the output has not the expected form (one closed think block, then an answer); empty when it has.
    """

    reasoning: str
    answer: str
    sentences: tuple[str, ...]
    problem: str

    @property
    def has_expected_form(self) -> bool:
        """R_format of the paper: true when nothing is wrong with the form."""
        return not self.problem


def normalise(text: str) -> str:
    """No control characters, Unicode NFC, white space runs as one space, trimmed; a second pass changes nothing."""
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable() or c.isspace())
    return " ".join(normal("NFC", text).split())


def parse_output(output: str, finished: bool = True) -> ParsedOutput:
    """Splits an output into reasoning, answer and text sequences; never raises, whatever the text is.

    Args:
        finished: False when it was cut off: then it has no answer.
    """
    text = output.strip()
    reading = read(text, finished)
    answer = reading.answer[:MAX_CHARACTERS]
    sentences, is_json = _sequences(answer)
    opened, closed, problem = text.count(THINK), text.count(END_THINK), ""
    if opened != 1 or closed != 1 or not text.startswith(THINK):
        found = f"found {opened} opened and {closed} closed"
        problem = f"expected one {THINK}…{END_THINK} block at the beginning, {found}"
    elif not finished:
        problem = "the output was cut off at the token limit"
    elif not answer:
        problem = f"nothing follows {END_THINK}"
    elif not sentences and not is_json:
        problem = "the answer has no sentence"
    return ParsedOutput(reading.reasoning, answer, sentences, problem)


def split_sentences(answer: str) -> tuple[str, ...]:
    """The text sequences of an answer (no think block in it), in order; see the module's text for the rules."""
    return _sequences(answer.strip()[:MAX_CHARACTERS])[0]


def _sequences(answer: str) -> tuple[tuple[str, ...], bool]:
    """The sequences, and whether they came from JSON."""
    found, value = _json_value(answer)
    raw = list(_leaves(value)) if found else list(_plain_sentences(answer))
    sentences = [s for s in map(normalise, raw) if any(c.isalnum() or c in _SIGNS for c in s)]
    if len(sentences) > MAX_SEQUENCES:
        head = sentences[: MAX_SEQUENCES - 1]
        sentences = [*head, " ".join(sentences[MAX_SEQUENCES - 1 :])]
    return tuple(sentences), found


def _json_value(answer: str) -> tuple[bool, Any]:
    """The last fenced block that holds a JSON object or list, else the first bare one."""
    for block in reversed(list(fenced(answer))):
        found, value = _decode(block.strip())
        if found:
            return True, value
    for _, match in zip(range(_MAX_JSON_STARTS), _JSON.finditer(answer), strict=False):
        found, value = _decode(answer[match.start() :], alone=match.start() == 0)
        if found:
            return True, value
    return False, None


def _decode(text: str, alone: bool = True) -> tuple[bool, Any]:
    if not text.startswith(("{", "[")):
        return False, None
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False, None
    if not value:
        # "{}" and "[]" in prose are LaTeX or a way of speaking: alone they are an answer that lists nothing.
        return alone and not text[end:].strip(), value
    # "[3]" in prose is a footnote, not an answer: a list counts when it holds text.
    if isinstance(value, list) and not any(True for _ in _leaves(value)):
        return False, None
    return True, value


def _leaves(value: Any) -> Iterator[str]:
    """The strings in a JSON value, in order of appearance (json's own recursion limit bounds the depth)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        # Beside the list of flaws, other keys (an "analysis", a "reasoning") are commentary.
        for item in [value["refinement"]] if "refinement" in value else value.values():
            yield from _leaves(item)


def _plain_sentences(text: str) -> Iterator[str]:
    for line, start in without_markers(text.splitlines()):
        begin = 0
        for match in _BREAK.finditer(line, start):
            if _is_abbreviation(line, begin, match.end()):
                continue
            yield line[begin : match.end()]
            begin = match.end()
        yield line[begin:]


def _is_abbreviation(line: str, begin: int, end: int) -> bool:
    """Whether what ends at `end`, white space aside, ends with an abbreviation."""
    while end > begin and line[end - 1].isspace():
        end -= 1
    word = line[max(begin, end - _LONGEST_ABBREVIATION, line.rfind(" ", begin, end) + 1) : end]
    return word.lower().lstrip("(\"'“") in _ABBREVIATIONS
