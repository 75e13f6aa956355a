"""What reads text of models and strangers takes time that grows with its length, not with its square.

Each function gets texts that are made to be looked at again and again. Eight times the letters may take at most three
times as long as eight times (processor time, so that a machine at work on other things does not matter); with the
square it would be 64 times. What takes no time at all at full length is not compared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from viper.analysis.reasoning import count_words
from viper.engines.chat_api import read_completion, server_message
from viper.errors import ViperError
from viper.evaluation.comparison import normalise as compared
from viper.images import Unusable
from viper.ingest.rows import prompt_of
from viper.jsonl import parsed
from viper.prompts import without_marks
from viper.reader import fenced, objects, read
from viper.reward.lists import without_markers
from viper.reward.sentences import normalise, parse_output, split_sentences
from viper.smallworld.reading import read_caption, read_instruction
from viper.store import split_iteration_path
from viper.tasks.captions.flawless import says_none
from viper.tasks.captions.validation import clean_flaws
from viper.tasks.external.unwrapped import unwrapped
from viper.tasks.structured import CategoryChoice, Critique, Verdict, parse
from viper.tasks.text import comparable
from viper.text import clean, load_json
from viper_jobs.main import parse_shard, split_iteration_uri

#: Letters of a text.
LONG = 16_384
#: Seconds of processor time that are nothing at this length: its square would take longer.
NOTHING = 0.05

#: What is repeated, what stands before and after it.
PUMPS: dict[str, tuple[str, str, str]] = {
    "an unclosed fence": ("a", "```", ""),
    "a fence's language": ("-", "```", "\n"),
    "fences": ("``` ", "", ""),
    "backticks": ("`", "", "x"),
    "opened reasoning": ("<think>", "", ""),
    "ended reasoning": ("</think>", "", ""),
    "half a mark": ("<think", "", ""),
    "braces": ("{", "", ""),
    "braces and blanks": ("{ ", "", ""),
    "objects in objects": ('{"a":', "", ""),
    "objects that break off": ('{"a" ', "", ""),
    "one text": ("x", '{"a": "', ""),
    "empty objects": ("{}", "", ""),
    "brackets": ("[", "", ""),
    "bracket pairs": ("()", "", ""),
    "nested brackets": ("(", "", ")" * 1000 + "5"),
    "dots": (".", "", "5"),
    "quotes after stops": ('"', ".", "x"),
    "stops and quotes": ('."', "", ""),
    "quotes after a digit": ('"', "5", ""),
    "abbreviations": ("e.g. ", "", ""),
    "one long word": ("a", "", ". b"),
    "blanks": (" ", "a", "b"),
    "line breaks": ("\n", "a", "b"),
    "blanks and breaks": (" \n", "- ", "5"),
    "bullets": ("- 5\n", "", ""),
    "numbers": ("1. a\n", "", ""),
    "hashes": ("#", "", " a"),
    "digits": ("1", "-", ""),
    "numbers with points": ("1.", "", ""),
    "dollars": ("$ ", "", ""),
    "dollars around": ("$a", "", " $"),
    "boxes": ("\\boxed{", "", ""),
    "boxes and brackets": ("\\boxed{}", "", "x"),
    "backslashes": ("\\", "", ""),
    "slashes": ("/", "", "iterations"),
    "iterations": ("iterations/", "", "/x//"),
    "marks of images": ("<image>", "", "x"),
    "breaks before a mark": ("\n", "What?", "<image>"),
    "blanks before a mark": (" ", "What?", "<image>x"),
    "marks of tokens": ("<|", "", ""),
    "wide marks of tokens": ("｜", "<", ""),
    "marks between sentences": (".<image> ", "", "x"),
    "breaks after a mark": ("\n", "What?<image>", "x"),
    "keys and quotes": (',"', "{}", "is_valid"),
    "marks of thoughts": ("<|begin_of_", "", ""),
    "quads": ("\\quad\\text{ ", "\\boxed{3}", ""),
    "accents": ("\u0300\u0316", "a", ""),
    "superscripts": ("²", "1", ""),
    "halves": ("\ud83d", "", ""),
    "signs": ("-", "", "5"),
    "commas": ("1,", "(", ")"),
    "nothing": ("no ", "", "flaws"),
    "zoom": ("zoom a ", "", ""),
    "apostrophes": ("a'", "", ""),
    "equations": ("cuda\n", "", ""),
    "escapes": ("\\u0000", '"', ""),
}


def pumped(name: str, letters: int) -> str:
    """An input of about that many letters."""
    repeated, before, after = PUMPS[name]
    return before + repeated * (letters // len(repeated)) + after


READERS: dict[str, Callable[[str], Any]] = {
    "reasoning": read,
    "fences": lambda text: list(fenced(text)),
    "objects": objects,
    "critique": lambda text: parse(Critique, text),
    "verdict": lambda text: parse(Verdict, text),
    "category": lambda text: parse(CategoryChoice, json.dumps({"chosen_category": text})),
    "flaws": lambda text: parse(Critique, json.dumps({"refinement": [text[:4096]] * 64})),
    "none": says_none,
    "clean": clean,
    "json": load_json,
    "rows": parsed,
    "output": parse_output,
    "sentences": split_sentences,
    "lists": lambda text: list(without_markers(text.splitlines())),
    "normal form": normalise,
    "comparison": compared,
    "same text": comparable,
    "captions": lambda text: clean_flaws([text, "A dog."], text),
    "unwrapped": unwrapped,
    "prompt": lambda text: prompt_of(text, text.count("<image>")),
    "marks": without_marks,
    "words": lambda text: count_words([f"<think>{text}</think>a"]),
    "small caption": read_caption,
    "small instruction": read_instruction,
    "completion": lambda text: read_completion(text.encode("utf-8", "replace")),
    "server's error": lambda text: server_message(text.encode("utf-8", "replace")),
    "iteration": split_iteration_path,
    "iteration of a job": split_iteration_uri,
    "shard": parse_shard,
}


def spent(read: Callable[[str], Any], text: str) -> float:
    """Seconds of processor time."""
    begin = time.process_time()
    with suppress(ViperError, ValueError, Unusable):
        read(text)
    return time.process_time() - begin


def grows_with_the_square(read: Callable[[str], Any], name: str, long: int = LONG) -> bool:
    """Whether a text of eight times the length takes more than 24 times as long, whenever one looks."""
    for _ in range(3):
        whole = spent(read, pumped(name, long))
        if whole < NOTHING or whole < 24 * spent(read, pumped(name, long // 8)):
            return False
    return True


@pytest.mark.parametrize("reader", READERS)
def test_time_grows_with_the_length(reader: str) -> None:
    assert [name for name in PUMPS if grows_with_the_square(READERS[reader], name)] == []


def test_the_pattern_that_was_there_is_found_out() -> None:
    pattern = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)```", re.DOTALL)
    assert grows_with_the_square(pattern.findall, "an unclosed fence", 4096)
