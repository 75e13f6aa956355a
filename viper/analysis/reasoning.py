"""Words of the reasoning before and after a training stage, with the verbs of visual operations marked. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from viper.reward.sentences import normalise, parse_output
from viper.stored import known

#: What a model says it does to look closer (the paper names scan, zoom in, focus on): what it is called → its forms.
OPERATIONS: dict[str, str] = {
    "scan": r"scan(?:s|ned|ning)?",
    "zoom in": r"zoom(?:s|ed|ing)?(?: \w+)? in(?:to)?(?: on)?",
    "zoom out": r"zoom(?:s|ed|ing)? out",
    "focus on": r"focus(?:es|sed|ed|ing|sing)?(?: \w+)? (?:up)?on",
    "look at": r"look(?:s|ed|ing)?(?: \w+)? at",
    "look for": r"look(?:s|ed|ing)? for",
    "look closely": r"look(?:s|ed|ing)? (?:more )?close(?:ly|r)|(?:take|taking|took) a (?:closer|careful|second) look",
    "examine": r"(?:re-?)?examin(?:e|es|ed|ing)",
    "inspect": r"inspect(?:s|ed|ing)?",
    "observe": r"observ(?:e|es|ed|ing)",
    "compare": r"compar(?:e|es|ed|ing)",
    "check": r"(?:re-?|double[- ]?)?check(?:s|ing)?",  # "checked" is mostly a pattern
    "verify": r"verif(?:y|ies|ied|ying)",
    "search": r"search(?:es|ed|ing)?",
    "locate": r"locat(?:e|es|ed|ing)",
    "identify": r"identif(?:y|ies|ied|ying)",
    "notice": r"notic(?:e|es|ed|ing)",
    "count": r"(?:re-?)?count(?:s|ed|ing)?",
    "measure": r"measur(?:e|es|ed|ing)",
    "trace": r"trac(?:e|es|ed|ing)",
    "go over": r"(?:go|goes|going|went) (?:over|through)",
}
_TOKEN = re.compile(
    "|".join(f"(?P<o{i}>\\b(?:{forms})\\b)" for i, forms in enumerate(OPERATIONS.values()))
    + r"|(?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)"
)
_NAMES = tuple(OPERATIONS)
#: Words that say nothing alone; they count as tokens and stay out of the cloud.
_STOP = frozenset(resources.files(__package__).joinpath("stopwords.txt").read_text("utf-8").split())


@dataclass(frozen=True)
class Words:
    """What was said in the reasoning of some outputs. `tokens`: all words; `words`: without those that say nothing and
    without operations; `operations`: by what they are called."""

    outputs: int
    tokens: int
    words: Mapping[str, int]
    operations: Mapping[str, int]

    def per_thousand(self, operation: str) -> float:
        """How often an operation is named in a thousand words."""
        return 1000 * self.operations.get(operation, 0) / self.tokens if self.tokens else 0.0

    @property
    def operation_rate(self) -> float:
        """Operations of all kinds in a thousand words."""
        return 1000 * sum(self.operations.values()) / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Reasoning:
    """Of a training stage: the outputs of its first step, written by the model it starts from, and of its last one."""

    first_step: int
    last_step: int
    before: Words
    after: Words

    def dump(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "steps": [self.first_step, self.last_step],
            "before": vars(self.before),
            "after": vars(self.after),
            "operationsPerThousand": {"before": self.before.operation_rate, "after": self.after.operation_rate},
        }

    @classmethod
    def load(cls, text: str | bytes) -> Reasoning:
        """Reads what `dump` wrote as JSON; raises `ValueError` for anything else."""
        try:
            found = json.loads(text)
            first, last = found["steps"]
            return cls(int(first), int(last), *(Words(**known(Words, found[of])) for of in ("before", "after")))
        except (KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ValueError(f"is no count of words: {e}") from e


def count_words(outputs: Iterable[str], most: int = 400) -> Words:
    """Counts over the reasoning of outputs; of words the `most` frequent ones are kept."""
    words: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    number = tokens = 0
    for output in outputs:
        number += 1
        for found in _TOKEN.finditer(normalise(parse_output(output).reasoning).casefold()):
            tokens += len(found[0].split())
            kind = found.lastgroup or ""
            if kind != "word":
                operations[_NAMES[int(kind[1:])]] += 1
            elif _says_something(found[0]):
                words[found[0]] += 1
    kept = sorted(words.items(), key=lambda w: (-w[1], w[0]))[:most]
    return Words(number, tokens, dict(kept), dict(sorted(operations.items(), key=lambda o: (-o[1], o[0]))))


def _says_something(word: str) -> bool:
    stem = re.split("['’]", word)[0]  # I'm, let's, it's
    return word not in _STOP and stem not in _STOP and len(stem) > 1


def reasoning_of(rollouts: Iterable[bytes]) -> Reasoning | None:
    """Compares the first with the last step of a training stage's rollouts.

    Args:
        rollouts: JSON rows with `step` and `output`, in the order of the steps; rows that are none are left out.

    None when there are no rollouts of two steps.
    """
    first: list[str] = []
    last: list[str] = []
    begin = end = -1
    for line in rollouts:
        row = _row(line)
        if row is None:
            continue
        step, output = row
        if begin < 0:
            begin = step
        if step == begin:
            first.append(output)
        else:
            if step != end:
                end, last = step, []
            last.append(output)
    if begin < 0 or not last:
        return None
    return Reasoning(begin, end, count_words(first), count_words(last))


def _row(line: bytes) -> tuple[int, str] | None:
    try:
        row = json.loads(line)
        return int(row["step"]), str(row["output"])
    except (ValueError, KeyError, TypeError):
        return None
