"""Asks a model every question of a set, greedily, and compares answers by normalised exact match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest
from viper.evaluation.comparison import normalise
from viper.evaluation.questions import Question
from viper.prompts import PromptSet
from viper.reader import read

__all__ = ["RULES_OF_READING", "Answered", "accuracy", "answer_of", "ask", "normalise"]

#: Raised when answers are read or compared otherwise: what was judged before is judged again, from what is kept.
RULES_OF_READING = 2


@dataclass(frozen=True)
class Answered:
    """What the model said to one question; `prediction` is its answer without the reasoning."""

    question: Question
    prediction: str
    correct: bool


def answer_of(output: str, finished: bool = True) -> str:
    """The answer by the rule of `viper.reader`, empty when there is none; `finished` is False when it was cut off."""
    return read(output, finished).answer


def ask(
    vlm: VisionLanguageModel,
    questions: Sequence[Question],
    prompts: PromptSet,
    *,
    max_tokens: int,
    batch: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> list[Answered]:
    """Answers in the order of `questions`; `on_batch` receives the number of questions just answered."""
    answered: list[Answered] = []
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    for begin in range(0, len(questions), batch):
        chunk = questions[begin : begin + batch]
        requests = [VlmRequest((q.load(),), prompts.render("question", question=q.question)) for q in chunk]
        for q, output in zip(chunk, vlm.generate(requests, sampling), strict=True):
            prediction = answer_of(output.text, output.finished)
            answered.append(Answered(q, prediction, normalise(prediction) == normalise(q.answer)))
        on_batch(len(chunk))
    return answered


def accuracy(answered: Sequence[Answered]) -> float:
    """Share of right answers; 0 when nothing was asked."""
    return sum(a.correct for a in answered) / len(answered) if answered else 0.0
