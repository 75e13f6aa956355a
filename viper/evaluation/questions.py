"""Question sets: a JSONL file with images beside it, or an extension's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from viper.errors import InputError
from viper.evaluation.comparison import normalise
from viper.evaluation.statistics import OVERALL
from viper.extensions import Uris, reader, written
from viper.images import decode
from viper.ingest.checked import checked, image_beside
from viper.jsonl import read_rows
from viper.store import ObjectStore

SetName = Literal["selection", "test"]


@dataclass(frozen=True)
class Question:
    """One held-out question. `load` decodes its image to RGB; `image_digest` is the sha256 of what is decoded."""

    question_id: str
    domain: str
    kind: str
    question: str
    answer: str
    image_digest: str
    load: Callable[[], Image.Image]


class QuestionRow(BaseModel):
    """One line of a question file. `image` is a path below the file's folder; `set` is `test` unless given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question_id: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    kind: str = ""
    image: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    set: SetName = "test"


def load_questions(uri: str, name: SetName = "test", limit: int | None = None) -> list[Question]:
    """The questions of one set, in order.

    Args:
        uri: a JSONL file (a path, file:// or s3://) of `QuestionRow`s, or of an extension's scheme.
        name: `test` for reports, `selection` for choosing training steps; the two never share a question.
        limit: take at most this many, drawn by the digest of their ids: neither order nor domain decides.

    Raises:
        InputError: when the file or rows of it cannot be used, naming file and line; when the set is empty.
    """
    own = own_set(uri)
    found = _from_file(uri, name) if own is None else cast(list[Question], own.open(uri, name))
    if not found:
        raise InputError(
            f"there is no {name} question",
            where=uri,
            fix=f'give rows "set": "{name}"' if name == "selection" else "give at least one row",
        )
    return sample(found, limit)


def own_set(uri: str) -> Uris | None:
    """The extension's questions that a URI names, None for a file; raises `InputError` where the extension has none."""
    own = reader("questions", uri)
    if own is not None and not own.fits(uri):
        raise InputError("there is no such question set", where=uri, fix=f"use {written('questions')} or a JSONL file")
    return own


def sample(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """At most `limit` questions, those whose ids have the smallest sha256, in their original order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    drawn = sorted(questions, key=lambda q: hashlib.sha256(q.question_id.encode()).digest())[:limit]
    ids = {q.question_id for q in drawn}
    return [q for q in questions if q.question_id in ids]


def set_digest(questions: Sequence[Question]) -> str:
    """sha256 over everything that is asked and expected, hexadecimal."""
    rows = [[q.question_id, q.domain, q.kind, q.question, q.answer, q.image_digest] for q in questions]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _from_file(uri: str, name: SetName) -> list[Question]:
    def convert(store: ObjectStore, row: QuestionRow) -> tuple[SetName, Question]:
        if problem := _domain_problem(row.domain):
            raise InputError(problem)
        text, (image,) = checked(store, row.question, row.answer, [row.image])
        if not normalise(row.answer):  # what a model does not say would be right
            raise InputError("the answer is empty")
        # What was answered to a picture lying on its side is no answer to the picture.
        digest = hashlib.sha256(image.data if image.upright else b"upright\n" + image.data).hexdigest()
        load = partial(_load, store, row.image)
        return row.set, Question(row.question_id, row.domain, row.kind, text, row.answer, digest, load)

    return [question for owner, question in read_rows(uri, QuestionRow, convert, "question_id") if owner == name]


def _domain_problem(domain: str) -> str:
    """Why scores cannot be kept under a domain; empty where they can. MLflow's name for it is the record's."""
    if not domain.strip():
        return f"domain: {domain!r} names nothing; write a word"
    if domain == OVERALL:
        return f"domain: {domain!r} is what the score of all questions is called; choose another word"
    return ""


def _load(store: ObjectStore, key: str) -> Image.Image:
    return decode(image_beside(store, key))
