"""Reading JSON out of model text: fences, prose, reasoning, broken and hostile outputs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from viper.engines.base import VlmOutput
from viper.tasks.structured import (
    MAX_FLAWS,
    CategoryChoice,
    Critique,
    Instruction,
    Unreadable,
    Verdict,
    parse,
    read_text,
    request_schema,
)


@pytest.mark.parametrize(
    "text",
    [
        '{"refinement": ["a", "b"]}',
        '```json\n{"refinement": ["a", "b"]}\n```',
        'Here is what I found:\n```\n{"refinement": ["a", "b"]}```\nI hope this helps {really}.',
        'Sure! {"refinement": ["a", "b"]} and that is all. }',
        '<think>maybe {"refinement": []}?</think>{"refinement": ["a", "b"]}',
        '{not json} {"other": 1} {"refinement": [" a ", "b\\n"], "note": "x"}',
        '{"refinement": ["a",\n\t"b"]',
    ],
    ids=["bare", "fenced", "prose", "trailing", "reasoning", "several", "cut"],
)
def test_the_object_is_found_whatever_is_around_it(text: str) -> None:
    if text.endswith('"]'):
        with pytest.raises(Unreadable, match="no JSON object"):
            parse(Critique, text)
    else:
        assert parse(Critique, text).refinement == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"refinement": "a flaw"}', "refinement"),
        ('{"refinement": [1]}', r"refinement\.0"),
        ('{"refinement": null}', "refinement"),
        ('{"refinements": []}', "refinement: Field required"),
    ],
)
def test_what_has_another_form_is_refused_with_the_field(text: str, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        parse(Critique, text)


@pytest.mark.parametrize(
    "said",
    [
        *(
            "Attribute Tuning",
            "attribute  tuning",
            '4. "Attribute Tuning".',
            "**Attribute Tuning**",
            "attribute_tuning",
        ),
        *("Attribute-Tuning", "AttributeTuning", "4) Attribute\nTuning"),
    ],
)
def test_a_category_is_recognised_whatever_its_dress(said: str) -> None:
    assert parse(CategoryChoice, json.dumps({"chosen_category": said})).chosen_category == "Attribute Tuning"


@pytest.mark.parametrize(
    "said", ["Tuning", "Attribute Tuning or Editing Background", "", None, ["Attribute Tuning", 3]]
)
def test_a_category_must_be_exactly_one_of_the_four(said: object) -> None:
    if isinstance(said, list):
        assert parse(CategoryChoice, json.dumps({"chosen_category": said})).chosen_category == "Attribute Tuning"
        return
    with pytest.raises(Unreadable, match="chosen_category"):
        parse(CategoryChoice, json.dumps({"chosen_category": said}))


@pytest.mark.parametrize("said", ["Removing / Adding Details", "removing/adding details", "removing_adding_details"])
def test_blanks_and_signs_within_a_category_do_not_count(said: str) -> None:
    found = parse(CategoryChoice, json.dumps({"chosen_category": said}))
    assert found.chosen_category == "Removing/Adding Details"


@pytest.mark.parametrize("entity", ["", None])
def test_an_instruction_for_no_entity_is_one(entity: str | None) -> None:
    text = json.dumps({"entity_to_edit": entity, "editing_instruction": "Make it night."})
    assert parse(Instruction, text) == Instruction(editing_instruction="Make it night.")


def test_instructions_and_verdicts() -> None:
    found = parse(Instruction, '{"entity_to_edit": "ring", "editing_instruction": " Make it red. "}')
    assert (found.entity_to_edit, found.editing_instruction) == ("ring", "Make it red.")
    assert parse(Verdict, '{"is_valid": true}') == Verdict(is_valid=True)
    assert parse(Verdict, '{"is_valid": false, "reason": null}').reason is None
    with pytest.raises(Unreadable, match="is_valid"):
        parse(Verdict, '{"is_valid": "perhaps"}')


def test_the_schema_asks_for_every_key_in_order_and_for_no_reason_of_a_valid_edit() -> None:
    category = request_schema(CategoryChoice)
    assert category["required"] == ["analysis", "chosen_category", "reasoning"]
    assert len(category["properties"]["chosen_category"]["enum"]) == 4
    assert list(request_schema(Verdict)["properties"]) == ["is_valid", "reason"]
    assert request_schema(Verdict)["required"] == ["is_valid"]


@given(st.text(max_size=200))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert isinstance(parse(Critique, text), Critique)


@pytest.mark.parametrize("text", ["{" * 60_000, '{"a":' * 20_000, "[" * 100_000, '{"refinement": ["' + "x" * 10**6])
def test_hostile_outputs_are_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(Critique, text)


def test_plain_text_needs_content_and_an_end() -> None:
    assert read_text(VlmOutput("<think>hm</think> A red ring. ", True, 3)) == "A red ring."
    with pytest.raises(Unreadable, match="empty"):
        read_text(VlmOutput(" ... ", True, 1))
    with pytest.raises(Unreadable, match="cut off"):
        read_text(VlmOutput("A red", False, 2))


@pytest.mark.parametrize("form", [Critique, CategoryChoice, Instruction, Verdict])
def test_schemas_bound_every_text_and_every_list(form: type[BaseModel]) -> None:
    def parts(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            yield schema
        for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from parts(inner)

    found = [part for part in parts(request_schema(form)) if part.get("type") in ("string", "array")]
    assert all("enum" in p or p.get("maxLength", p.get("maxItems")) for p in found)
    assert bool(found)


def test_a_critique_without_end_is_not_readable() -> None:
    flaws = ["A dog is missing."] * (MAX_FLAWS + 1)
    with pytest.raises(Unreadable, match="at most 64"):
        parse(Critique, json.dumps({"refinement": flaws}))
    assert len(parse(Critique, json.dumps({"refinement": flaws[1:]})).refinement) == MAX_FLAWS
