"""Structured outputs: JSON out of model text, its schema, and bounded further attempts for what cannot be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema

from viper.engines.base import Sampling, VisionLanguageModel, VlmOutput, VlmRequest
from viper.spec.recipe import CATEGORIES, SamplingSettings

#: Greedy decoding would repeat the output that could not be read, so that further attempts sample.
RETRY_TEMPERATURE = 0.7
_MAX_CHARACTERS = 65_536
_MAX_STARTS = 32  # how many `{` are tried as the beginning of an object
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)```", re.DOTALL)

#: Longest sentence, and most flaws of one critique: what is longer is a loop, and structured decoding ends it there.
MAX_TEXT, MAX_FLAWS = 4096, 64

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT)]
#: Text that is asked for and not used: bounded where decoding follows the schema, of any length where it does not.
Aside = Annotated[str, WithJsonSchema({"type": "string", "maxLength": MAX_TEXT})]


def _category(value: Any) -> Any:
    """The category a model names, whatever the case, numbering or quotes around it."""
    said = " ".join(str(value).casefold().split())
    named = [c for c in CATEGORIES if c.casefold() in said]
    if len(named) != 1:
        raise ValueError(f"is not one of {list(CATEGORIES)}")
    return named[0]


class Output(BaseModel):
    """Keys beyond those named are ignored."""

    model_config = ConfigDict(extra="ignore")


class Critique(Output):
    """`{"refinement": [str, …]}`: one string per flaw of the caption; empty when it is perfect."""

    refinement: list[Text] = Field(max_length=MAX_FLAWS)


class CategoryChoice(Output):
    """The edit category that the model chose; its analysis and reasoning are asked for, not used further."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    analysis: Aside = ""
    chosen_category: Annotated[
        str, BeforeValidator(_category), WithJsonSchema({"type": "string", "enum": list(CATEGORIES)})
    ]
    reasoning: Aside = ""


class Instruction(Output):
    """The entity to edit and the instruction for the editor."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    entity_to_edit: Text = ""
    editing_instruction: Text


class Verdict(Output):
    """The judge's verdict on an edit."""

    is_valid: bool
    reason: Text | None = None


class Unreadable(ValueError):  # noqa: N818 - an answer, not a fault
    """A model output that cannot be used; the text says why."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came of one request: `value` is None when no attempt could be read; `problem` is the last one's.

    `attempts` counts the tries, `seed` is the batch seed of the last one.
    """

    value: T | None
    attempts: int
    seed: int
    problem: str = ""


def stored(answer: Answer[M]) -> dict[str, Any]:
    """An answer as plain data; see `restored`."""
    value = None if answer.value is None else answer.value.model_dump(mode="json")
    return {"value": value, "attempts": answer.attempts, "seed": answer.seed, "problem": answer.problem}


def restored(data: Mapping[str, Any], model: type[M]) -> Answer[M]:
    """The answer that `stored` was given."""
    value = None if data["value"] is None else model.model_validate(data["value"])
    return Answer(value, data["attempts"], data["seed"], data["problem"])


def objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in model text, in the order in which they should be tried.

    Reasoning up to the last `</think>` is skipped; fenced blocks come first, then every `{` that starts an object
    which is not inside an earlier one. Prose around them is ignored.
    """
    text = text[-_MAX_CHARACTERS:].rpartition("</think>")[2]
    for block in (*_FENCE.findall(text), text):
        position, starts = block.find("{"), 0
        while position >= 0 and starts < _MAX_STARTS:
            starts += 1
            try:
                value, end = json.JSONDecoder(strict=False).raw_decode(block, position)
            except (ValueError, RecursionError):
                end = position + 1
            else:
                if isinstance(value, dict):
                    yield value
            position = block.find("{", end)


def parse(model: type[M], text: str) -> M:
    """The first JSON object in `text` that has the form of `model`; raises `Unreadable`."""
    problem = "no JSON object"
    for value in objects(text):
        try:
            return model.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    raise Unreadable(problem)


def reader(model: type[M]) -> Callable[[VlmOutput], M]:
    """Reads outputs that should be `model` as JSON."""
    return lambda output: parse(model, output.text)


def read_text(output: VlmOutput) -> str:
    """Reads a plain text output; raises `Unreadable` when it is empty or was cut off."""
    text = output.text.rpartition("</think>")[2].strip()
    if not any(c.isalnum() for c in text):
        raise Unreadable("empty")
    if not output.finished:
        raise Unreadable("cut off at the token limit")
    return text


def ask(
    vlm: VisionLanguageModel,
    requests: Sequence[VlmRequest],
    read: Callable[[VlmOutput], T],
    sampling: SamplingSettings,
    seed: Callable[[int], int],
) -> list[Answer[T]]:
    """One answer per request, in order.

    The first attempt is one batch of all requests; each further one, up to `sampling.attempts`, is one batch of those
    that could not be read. `seed(attempt)` is the seed of a batch.
    """
    answers: list[Answer[T]] = [Answer(None, 0, 0)] * len(requests)
    open_requests = list(range(len(requests)))
    for attempt in range(1, sampling.attempts + 1):
        if not open_requests:
            break
        temperature = sampling.temperature if attempt == 1 else max(sampling.temperature, RETRY_TEMPERATURE)
        batch_seed = seed(attempt)
        settings = Sampling(temperature, sampling.top_p, sampling.max_tokens, batch_seed)
        outputs = vlm.generate([requests[i] for i in open_requests], settings)
        failed = []
        for i, output in zip(open_requests, outputs, strict=True):
            try:
                if output.note:
                    raise Unreadable(output.note)
                answers[i] = Answer(read(output), attempt, batch_seed)
            except Unreadable as error:
                answers[i] = Answer(None, attempt, batch_seed, str(error))
                failed.append(i)
        open_requests = failed
    return answers


def request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema for structured decoding, properties in the order in which they should be written."""
    return model.model_json_schema(mode="serialization")
