"""The second filter on edits: a vision-language model sees original, edited image and instruction, and votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from viper.engines.base import VisionLanguageModel, VlmRequest
from viper.prompts import PromptSet
from viper.spec.recipe import JudgeSettings
from viper.tasks.structured import Reply, Verdict, ask, reader, request_schema


@dataclass(frozen=True)
class Judgement:
    """The majority's verdict: `valid` of `votes` said valid, `readable` could be read. `reason` is a vote's against."""

    votes: int
    readable: int
    valid: int
    attempts: int
    reason: str

    @property
    def problem(self) -> str:
        """`judge-rejected`, `invalid-json` when no verdict could be read, empty when a majority accepts."""
        if 2 * self.valid > self.votes:
            return ""
        return "judge-rejected" if self.readable else "invalid-json"


def judge(
    vlm: VisionLanguageModel,
    prompts: PromptSet,
    edits: Sequence[tuple[Image.Image, Image.Image, str]],
    settings: JudgeSettings,
    seed: Callable[[int], int],
) -> list[Judgement]:
    """One judgement per edit (original, edited, instruction). All votes on all edits are one batch; a vote that cannot
    be read is asked again, and counts as a vote against when it never can."""
    form = request_schema(Verdict)
    requests = [
        VlmRequest((original, edited), prompts.render("judge", instruction=instruction), form)
        for original, edited, instruction in edits
        for _ in range(settings.votes)
    ]
    answers = ask(vlm, requests, reader(Verdict), settings.sampling, seed)
    return [tally(answers[i : i + settings.votes]) for i in range(0, len(answers), settings.votes)]


def tally(answers: Sequence[Reply[Verdict]]) -> Judgement:
    """Counts the votes on one edit."""
    verdicts = [a.value for a in answers if a.value is not None]
    against = [v.reason for v in verdicts if not v.is_valid and v.reason]
    unread = [a.problem for a in answers if a.value is None]
    return Judgement(
        votes=len(answers),
        readable=len(verdicts),
        valid=sum(v.is_valid for v in verdicts),
        attempts=sum(a.attempts for a in answers),
        reason=next(iter([*against, *unread]), ""),
    )
