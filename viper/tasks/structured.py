"""Structured outputs: JSON out of model text, its schema, and bounded further attempts for what cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema

from viper.engines.base import Sampling, VisionLanguageModel, VlmOutput, VlmRequest
from viper.reader import EMPTY, Object, objects, read
from viper.spec.recipe import CATEGORIES, SamplingSettings
from viper.tasks.captions.flawless import says_none

#: Greedy decoding would repeat the output that could not be read, so that further attempts sample.
RETRY_TEMPERATURE = 0.7

#: Longest sentence, and most flaws of one critique: what is longer is a loop, and structured decoding ends it there.
MAX_TEXT, MAX_FLAWS = 4096, 64

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Form = TypeVar("Form", bound="Output")
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT)]
#: Text that is asked for and not used: bounded where decoding follows the schema, of any length where it does not.
Aside = Annotated[str, WithJsonSchema({"type": "string", "maxLength": MAX_TEXT})]


def _category(value: Any) -> Any:
    """The category a model names, whatever the case, blanks and signs between its words, numbering or quotes."""
    said = _letters(str(value))
    named = [c for c in CATEGORIES if _letters(c) in said]
    if len(named) != 1:
        raise ValueError(f"is not one of {list(CATEGORIES)}")
    return named[0]


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.casefold()))


def _flaws(value: Any) -> Any:
    """A list of flaws without the items that say that there is none; one such text alone is the empty list."""
    if isinstance(value, str) and says_none(value):
        return []
    if isinstance(value, list):
        return [item for item in value if not (isinstance(item, str) and says_none(item))]
    return value


class Output(BaseModel):
    """Keys beyond those named are ignored. `decides` is the key that makes two answers the same or different ones."""

    model_config = ConfigDict(extra="ignore")
    decides: ClassVar[str]


class Critique(Output):
    """`{"refinement": [str, …]}`: one string per flaw of the caption; empty when it is perfect.

    Items that say that there is no flaw (`None`, `N/A.`) are none.
    """

    decides: ClassVar[str] = "refinement"
    refinement: Annotated[list[Text], BeforeValidator(_flaws)] = Field(max_length=MAX_FLAWS)


class CategoryChoice(Output):
    """The edit category that the model chose; its analysis and reasoning are asked for, not used further."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)
    decides: ClassVar[str] = "chosen_category"

    analysis: Aside = ""
    chosen_category: Annotated[
        str, BeforeValidator(_category), WithJsonSchema({"type": "string", "enum": list(CATEGORIES)})
    ]
    reasoning: Aside = ""


class Instruction(Output):
    """The entity to edit, null as empty (a background is none), and the instruction for the editor."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)
    decides: ClassVar[str] = "editing_instruction"

    entity_to_edit: Annotated[Text, BeforeValidator(lambda value: "" if value is None else value)] = ""
    editing_instruction: Text


class Verdict(Output):
    """The judge's verdict on an edit."""

    decides: ClassVar[str] = "is_valid"
    is_valid: bool
    reason: Text | None = None


class Unreadable(ValueError):  # noqa: N818 - an answer, not a fault
    """A model output that cannot be used; the text says why."""


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What came of one request: `value` is None when no attempt could be read; `problem` is the last one's.

    `attempts` counts the tries, `seed` is the batch seed of the last one.
    """

    value: T | None
    attempts: int
    seed: int
    problem: str = ""


def stored(answer: Reply[M]) -> dict[str, Any]:
    """An answer as plain data; see `restored`."""
    value = None if answer.value is None else answer.value.model_dump(mode="json")
    return {"value": value, "attempts": answer.attempts, "seed": answer.seed, "problem": answer.problem}


def restored(data: Mapping[str, Any], model: type[M]) -> Reply[M]:
    """The answer that `stored` was given."""
    value = None if data["value"] is None else model.model_validate(data["value"])
    return Reply(value, data["attempts"], data["seed"], data["problem"])


def parse(model: type[Form], text: str, finished: bool = True) -> Form:
    """The one JSON object of the form of `model` in what a model wrote, wherever it stands in the answer.

    Args:
        finished: False when the text was cut off.

    Raises:
        Unreadable: there is no answer, or none of the form; or two of them say different things.
    """
    reading = read(text, finished)
    if reading.problem not in ("", EMPTY):
        raise Unreadable(reading.problem)
    try:
        there = objects(reading.answer)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    found: list[Form] = []
    problem = ""
    for one in there:
        if model.decides in one.twice:
            raise Unreadable(f"an object says two things in {model.decides}")
        try:
            found.append(model.model_validate(one.value))
        except ValidationError as error:
            first = error.errors()[0]
            problem = problem or f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            if model.decides in map(str.casefold, one.value):
                raise Unreadable(problem) from None
    if not found:
        if model is Critique and _is_plain(reading.answer) and says_none(reading.answer):
            return model.model_validate({model.decides: []})
        raise Unreadable(problem or "no JSON object")
    if _decides_elsewhere(model.decides, reading.answer, there):
        raise Unreadable(f"beside it an object that cannot be read has {model.decides}")
    said = [getattr(one, model.decides) for one in found]
    if any(other != said[0] for other in said):
        raise Unreadable(f"{len(found)} objects differ in {model.decides}")
    return found[0]


def _decides_elsewhere(key: str, answer: str, there: Sequence[Object]) -> bool:
    """Whether the key stands in what looks like an object and is none: what it says there counts as much."""
    ends = [0, *(one.end for one in there)]
    begins = [*(one.begin for one in there), len(answer)]
    quoted = "[\"'“”‘’`\\\\]"
    written = re.compile(rf"(?:\{{\s*+{quoted}*+|,\s*+{quoted}++){key}{quoted}*+\s*+[:：=]", re.IGNORECASE)
    return any(written.search(answer, end, begin) for end, begin in zip(ends, begins, strict=True))


def _is_plain(answer: str) -> bool:
    """Whether an answer is words, not an object that cannot be read."""
    return any(map(str.isalnum, answer)) and not {"{", "}"} & set(answer)


def reader(model: type[Form]) -> Callable[[VlmOutput], Form]:
    """Reads outputs that should be `model` as JSON."""
    return lambda output: parse(model, output.text, output.finished)


def read_text(output: VlmOutput) -> str:
    """Reads a plain text output; raises `Unreadable` when there is no answer, or no letter or digit in it."""
    reading = read(output.text, output.finished)
    if reading.answer and not any(c.isalnum() for c in reading.answer):
        raise Unreadable(EMPTY)
    if reading.problem:
        raise Unreadable(reading.problem)
    return reading.answer


def ask(
    vlm: VisionLanguageModel,
    requests: Sequence[VlmRequest],
    read: Callable[[VlmOutput], T],
    sampling: SamplingSettings,
    seed: Callable[[int], int],
) -> list[Reply[T]]:
    """One answer per request, in order.

    The first attempt is one batch of all requests; each further one, up to `sampling.attempts`, is one batch of those
    that could not be read. `seed(attempt)` is the seed of a batch.
    """
    answers: list[Reply[T]] = [Reply(None, 0, 0)] * len(requests)
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
                answers[i] = Reply(read(output), attempt, batch_seed)
            except Unreadable as error:
                answers[i] = Reply(None, attempt, batch_seed, str(error))
                failed.append(i)
        open_requests = failed
    return answers


def request_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema for structured decoding, properties in the order in which they should be written."""
    return model.model_json_schema(mode="serialization")
