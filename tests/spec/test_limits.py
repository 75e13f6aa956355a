"""Everything in a spec has an upper limit, and whatever is legal can be handed to a program."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from viper.errors import SpecError
from viper.spec import ViperIteration, ViperLoop, ViperProfile
from viper.spec.packed import LARGEST, PIECE, pack, pieces_of, unpack, variables
from viper.spec.status import IterationStatus, LoopStatus

#: Text whose form is Kubernetes' business, or that is bounded by the file it stands in (`viper.spec.documents`).
FREE = ("Metadata.", "Affinity.", "TopologySpreadConstraint.label_selector", "PodTemplate.")


def limits(annotation: Any, found: tuple[Any, ...], path: str) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Every plain type below an annotation, with its path and what bounds it; values of maps, not their keys."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        told = [m for one in inner[1:] for m in (one.metadata if isinstance(one, FieldInfo) else (one,))]
        yield from limits(inner[0], (*found, *told), path)
    elif origin in (Union, UnionType):
        for one in inner:
            yield from limits(one, found, path)
    elif origin in (list, tuple):
        yield path, list, found
        yield from limits(inner[0], (), path)
    elif origin is dict:
        yield path, dict, found
        yield from limits(inner[1], (), path)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from fields(annotation)
    elif annotation not in (bool, NoneType, Any) and origin is not Literal:
        yield path, annotation, found


def fields(model: type[BaseModel]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    for name, field in model.model_fields.items():
        assert isinstance(field, FieldInfo)
        yield from limits(field.annotation, tuple(field.metadata), f"{model.__name__}.{name}")


def bounded(kind: Any, found: tuple[Any, ...]) -> bool:
    if kind in (int, float):
        return any(getattr(m, n, None) is not None for m in found for n in ("le", "lt"))
    sized = any(getattr(m, "max_length", None) is not None for m in found)
    return sized or any(isinstance(m, StringConstraints) and m.max_length is not None for m in found)


@pytest.mark.parametrize("model", [ViperIteration, ViperLoop, ViperProfile])
def test_every_number_list_map_and_text_of_a_spec_has_an_upper_limit(model: type[BaseModel]) -> None:
    known = {path for path, _, _ in fields(model)}
    assert len(known) > 20
    free = {path for path, kind, found in fields(model) if not bounded(kind, found) and not path.startswith(FREE)}
    patterned = {p for p, k, found in fields(model) if k is str and any("pattern" in repr(m) for m in found)}
    assert free - patterned == set()


@pytest.mark.parametrize("model", [IterationStatus, LoopStatus])
def test_every_number_of_a_status_has_one_too(model: type[BaseModel]) -> None:
    assert {p for p, kind, found in fields(model) if kind in (int, float) and not bounded(kind, found)} == set()


TEXTS = {
    "empty": "",
    "plain": "{}",
    "not ASCII": "ß漢🐍" * 50_000,
    "what Kubernetes would expand": "$(AWS_SECRET_ACCESS_KEY) $(HOME) $$(X)" * 1000,
    "quotes and lines": '"\\\n\t\x00' * 10_000,
    "four pieces": json.dumps([hash((i, "x")) for i in range(30_000)]),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_packed_comes_out_and_no_variable_is_too_long(text: str) -> None:
    made = variables("VIPER_ITERATION", pack(text, "it"))
    assert all(len(name) + len(value) < 128 * 1024 and len(value) <= PIECE for name, value in made.items())
    assert all(v.isascii() and "$" not in v for v in made.values())
    assert unpack(pieces_of("VIPER_ITERATION", {**made, "OTHER": "x"}), "it") == text


def test_what_is_too_large_in_any_case_is_refused_and_says_so() -> None:
    import random

    noise = "".join(random.Random(0).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=2_000_000))
    with pytest.raises(SpecError, match="too large"):
        pack(noise, "it")
    with pytest.raises(SpecError, match="too large"):
        pack(" " * (LARGEST + 1), "it")


@pytest.mark.parametrize("how", ["the last is missing", "another order", "letters are changed", "no base64", "a bomb"])
def test_damaged_pieces_are_refused(how: str) -> None:
    pieces = pack(TEXTS["four pieces"], "it")
    assert len(pieces) > 2
    damaged = {
        "the last is missing": pieces[:-1],
        "another order": pieces[::-1],
        "letters are changed": [pieces[0].replace("A", "B"), *pieces[1:]],
        "no base64": ["{}"],
        "a bomb": _bomb(),
    }[how]
    begun = time.perf_counter()
    with pytest.raises(SpecError):
        unpack(damaged, "VIPER_ITERATION")
    assert time.perf_counter() - begun < 20


def _bomb() -> list[str]:
    import base64
    import zlib

    return [base64.b64encode(zlib.compress(b" " * (LARGEST + 10), 9)).decode()]
