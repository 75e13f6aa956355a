"""One rule for the answer in what a model wrote, wherever one is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.engines.base import VlmOutput
from viper.evaluation.runner import answer_of
from viper.reader import CUT_OFF, EMPTY, UNENDED, fenced, objects, read
from viper.reward.sentences import parse_output
from viper.tasks.structured import (
    CategoryChoice,
    Critique,
    Instruction,
    Unreadable,
    Verdict,
    parse,
    read_text,
    reader,
)

YES, NO = '{"is_valid": true}', '{"is_valid": false}'
#: What a model wrote, whether it ended by itself, the answer, and why there is none.
READINGS = [
    ("red", True, "red", ""),
    ("<think>it is red</think>red", True, "red", ""),
    ("\n<think>\nhm\n</think>\n\n red \n", True, "red", ""),
    ("no opening mark</think>red", True, "red", ""),
    ("</think>red", True, "red", ""),
    ("<think>a</think> b </think> c ", True, "c", ""),
    ("<think>a<think>b</think>c</think>d", True, "d", ""),
    ("<think><think>a</think>d", True, "d", ""),
    ("<think>a</think>x<think>b</think>y", True, "y", ""),
    ("Before. <think>a</think>After.", True, "After.", ""),
    ("<THINK>a</THINK>b", True, "b", ""),
    ("<thinking>a</thinking>b", True, "b", ""),
    ("<think >a</think >b", True, "b", ""),
    ("◁think▷a◁/think▷b", True, "b", ""),
    ("<seed:think>a</seed:think>b", True, "b", ""),
    ("<think\n>a</think\n>b", True, "b", ""),
    ("< think >a< /think >b", True, "b", ""),
    ("<thought>a</thought>b", True, "b", ""),
    ("<Thoughts>a</Thoughts>b", True, "b", ""),
    ("<REASONING>a</REASONING>b", True, "b", ""),
    ("[THINK]a[/THINK]b", True, "b", ""),
    ("<|START_THINKING|>a<|END_THINKING|>b", True, "b", ""),
    ("<|begin_of_thought|>a<|end_of_thought|>b", True, "b", ""),
    ("<|think|>a<|/think|>b", True, "b", ""),
    ("<｜think｜>a<｜/think｜>b", True, "b", ""),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", True, "b", ""),
    ("<thought>a", True, "", UNENDED),
    ("<reasoning>a", True, "", UNENDED),
    ("[THINK]a", True, "", UNENDED),
    ("<|START_THINKING|>a", True, "", UNENDED),
    ("<|begin_of_thought|>a", True, "", UNENDED),
    ("<|channel|>analysis<|message|>a", True, "", UNENDED),
    ("<think\n>a", True, "", UNENDED),
    ("a thought, no reasoning", True, "a thought, no reasoning", ""),
    ("<thinker>a", True, "<thinker>a", ""),
    ("think about </the> end", True, "think about </the> end", ""),
    ("", True, "", EMPTY),
    (" \n ", True, "", EMPTY),
    ("<think>a</think>", True, "", EMPTY),
    ("a</think>  ", True, "", EMPTY),
    ("x<think>b</think>", True, "", EMPTY),
    ("<think>", True, "", UNENDED),
    ("<think>never closed, red", True, "", UNENDED),
    ("<think>never closed, red", False, "", UNENDED),
    ("<thinking>never closed, red", True, "", UNENDED),
    ("◁think▷never closed, red", True, "", UNENDED),
    ("<think>never closed, red</thin", True, "", UNENDED),
    ("red <think>or blue", True, "", UNENDED),
    ("<think>a</think>red<think>or blue", True, "", UNENDED),
    ("a</think>red<think>or blue", False, "", UNENDED),
    ("red", False, "", CUT_OFF),
    ("<think>a</think>red", False, "", CUT_OFF),
    ("a</think>red", False, "", CUT_OFF),
    ("<think>a</think>", False, "", EMPTY),
    ("", False, "", EMPTY),
]


@pytest.mark.parametrize(("text", "finished", "answer", "problem"), READINGS)
def test_the_answer_is_what_follows_reasoning_that_ends(text: str, finished: bool, answer: str, problem: str) -> None:
    reading = read(text, finished)
    assert (reading.answer, reading.problem) == (answer, problem)
    assert "think" not in reading.reasoning.casefold() or "<think" not in text


@pytest.mark.parametrize(("text", "finished", "answer", "problem"), READINGS)
def test_every_door_takes_the_same_answer(text: str, finished: bool, answer: str, problem: str) -> None:
    assert answer_of(text, finished) == answer
    assert parse_output(text, finished).answer == answer
    output = VlmOutput(text, finished, 1)
    if answer:
        assert read_text(output) == answer
    else:
        with pytest.raises(Unreadable):
            read_text(output)
    with pytest.raises(Unreadable):
        reader(Verdict)(output)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>I would answer {YES}, but",
        f"<think>If the ring were red I would answer {YES}, but the ring is still blue and also",
        f"<think>a</think>Let me see.<think>maybe {YES}",
        f"<thinking>{YES}",
        "<think>" + "so " * 100_000 + YES,
        f"<think>```json\n{YES}\n```",
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_verdict_drafted_in_reasoning_that_does_not_end_is_none(text: str, finished: bool) -> None:
    with pytest.raises(Unreadable, match="does not end"):
        reader(Verdict)(VlmOutput(text, finished, 9))


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Verdict, YES),
        (Critique, '{"refinement": ["A dog is missing."]}'),
        (CategoryChoice, '{"chosen_category": "Attribute Tuning"}'),
        (Instruction, '{"editing_instruction": "Make it red."}'),
    ],
)
def test_what_was_cut_off_is_no_answer_whatever_form_it_has(form: type[Verdict], text: str) -> None:
    assert reader(form)(VlmOutput(text, True, 9))
    with pytest.raises(Unreadable, match="cut off"):
        reader(form)(VlmOutput(text, False, 9))


VERDICTS: list[tuple[str, bool | None]] = [
    (YES, True),
    (f"```json\n{YES}\n```", True),
    (f"```\n{YES}```", True),
    (f"```JSON5 {YES}", True),
    (f"Verdict: {NO}.", False),
    (f"[{NO}]", False),
    ("{'is_valid': true}", None),
    ("{is_valid: true}", None),
    ('{"is_valid": tru', None),
    ('{"IS_VALID": true}', None),
    ('{"is_valid": "yes", "reason": "ok"}', True),
    ('{\n\t"is_valid"\t: true}', True),
    ('{"is_valid": true, "reason": "line\nbreak"}', True),
    ('{"is_valid": true, "reason": "\\ud83d"}', True),
    ('{"\\ud83d": 1, "is_valid": true}', True),
    ('{"a": {"\\udc00": ["\\ud83d"]}, "is_valid": true}', True),
    # The same thing twice is said once.
    (f"{YES} {YES}", True),
    (f"```json\n{NO}\n```\nSo: {NO}", False),
    ('{"is_valid": false, "reason": "a"} {"is_valid": false, "reason": "b"}', False),
    ('{"is_valid": true, "is_valid": true}', True),
    ('{"is_valid": true} {"is_valid": "yes"}', True),
    # Two things are none.
    (f"{YES} {NO}", None),
    (f"{NO}\n{YES}", None),
    (f"```json\n{NO}\n```\n{YES}", None),
    (f"{YES} ```json\n{NO}\n```", None),
    (f"[{YES}, {NO}]", None),
    (f"{YES}" * 3 + NO, None),
    ('{"is_valid": false, "is_valid": true}', None),
    ('{"is_valid": true} {"is_valid": "perhaps"}', None),
    ('{"is_valid": null} {"is_valid": true}', None),
    ('{"Is_Valid": false} {"is_valid": true}', None),
    # What an object says that cannot be read counts as much.
    ('{"is_valid": false,}\n{"is_valid": true}', None),
    ('{"is_valid": false, "alternative": {"is_valid": true},}', None),
    ('{"is_valid": false, "example": {"is_valid": true}', None),
    ('{"is_valid": false, "reason": "the "no" of {"is_valid": true}"}', None),
    ('{"reason": "a" "is": 1, "is_valid": false} {"is_valid": true}', None),
    ("{'is_valid': False} so " + YES, None),
    ("{is_valid: false} " + YES, None),
    ("{“is_valid”: false} " + YES, None),
    ('{\\"is_valid\\": false} ' + YES, None),
    (YES + '\n{"is_valid":', None),
    (YES + "\n```json\n{\n  'IS_VALID' : false }\n```", None),
    ("I set is_valid: true, is_valid = true. " + YES, True),
    # What is no verdict does not count.
    (f'{{"note": 1}} {YES}', True),
    (f"Not {{this}} but {YES}, see $^{{}}_{{92}}U$", True),
    (f"{{ {YES}", True),
    (f'{{"a": {YES}', True),
    (f"<think>{NO}</think>{YES}", True),
    (f"{NO}</think>{YES}", True),
    (f'{{"reason": "not {{\\"is_valid\\": false}}", "is_valid": true}} {YES}', True),
    ("", None),
    ("true", None),
    ("yes", None),
    ("{}", None),
    ('{"a": ' * 30_000, None),
    ("{" * 200_000 + YES, True),
    ('{"' * 5_000 + YES, None),
    (YES * 500, None),
    ("\\frac{1}{2} " * 500 + YES, True),
    ("x" * 2_000_000 + YES, None),
    ('{"is_valid": ' + "1" * 5000 + "}", None),
]


@pytest.mark.parametrize(("text", "valid"), VERDICTS)
def test_a_verdict_is_one_thing_said_or_none(text: str, valid: bool | None) -> None:
    if valid is None:
        with pytest.raises(Unreadable):
            parse(Verdict, text)
    else:
        assert parse(Verdict, text).is_valid is valid


def test_critiques_that_differ_are_unreadable_and_equal_ones_are_one() -> None:
    one, other = '{"refinement": ["A."]}', '{"refinement": ["B."]}'
    assert parse(Critique, f"{one}\n```json\n{one}\n```").refinement == ["A."]
    for text in (one + other, f"```json\n{one}\n```\n{other}", one + '{"refinement": []}'):
        with pytest.raises(Unreadable, match="differ in refinement"):
            parse(Critique, text)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```json\n[1]\n```", ["[1]\n"]),
        ("a ```b``` c ```d e```", ["", "e"]),
        ("```\nx```y```z", ["x"]),
        ("```py [1]```", ["[1]"]),
        ("no fence", []),
        ("```" + "a" * 100, []),
        ("``` ``` ```", [""]),
    ],
)
def test_fences(text: str, blocks: list[str]) -> None:
    assert list(fenced(text)) == blocks


@given(st.text(alphabet=st.sampled_from('<think>/{}"ab :,[]`\\ud83d\n'), max_size=200), st.booleans())
def test_any_text_is_read_or_has_a_problem(text: str, finished: bool) -> None:
    reading = read(text, finished)
    assert bool(reading.answer) is not bool(reading.problem)
    assert reading.answer == reading.answer.strip()
    assert all(isinstance(o.value, dict) for o in objects(reading.answer))


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), st.text(alphabet="ab \n.`"))
def test_an_object_is_found_in_any_prose(value: dict[str, object], prose: str) -> None:
    (found,) = objects(f"{prose}{json.dumps(value)}{prose}")
    assert set(found.value) >= {k for k in value if k.isprintable()}
