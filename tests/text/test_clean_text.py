"""Text is made clean at the door: what no store, file or page can hold becomes U+FFFD, and nothing else changes."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.engines.base import EditResult, Reconstruction, VlmOutput
from viper.errors import InputError
from viper.stage.termination import leave_message
from viper.tasks.structured import Critique, Instruction, Verdict, parse
from viper.text import clean, clean_json, decoded, load_json, normal

R = "\ufffd"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        # Halves of characters.
        ("\ud83d", R),
        (chr(0xDE00), R),
        ("a\ud83db", f"a{R}b"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", R + R),
        ("\ud83d\ud83d\ude00", f"{R}😀"),
        ("\udcff.jpg", f"{R}.jpg"),  # how Python reads a name that is no UTF-8
        # Controls.
        ("\x00", R),
        ("a\x00b", f"a{R}b"),
        ("\x01\x07\x08\x0e\x1b\x1f", R * 6),
        ("\x7f", R),
        ("\x80\x84\x86\x9f", R * 4),
        ("\x1b[31mred\x1b[0m", f"{R}[31mred{R}[0m"),
        ("\x1c\x1d\x1e", R * 3),
        # Line breaks.
        ("a\tb\nc\r\nd", "a\tb\nc\r\nd"),
        ("a\x0bb\x0cc\x85d", "a\nb\nc\nd"),
        ("a\u2028b\u2029c", "a\u2028b\u2029c"),
        # Code points that are no characters.
        ("\ufdd0\ufdef", R * 2),
        ("\ufffe\uffff", R * 2),
        ("\U0001fffe\U0010ffff", R * 2),
        # Everything else stays, whatever its form.
        ("Cafe\u0301 Café", "Cafe\u0301 Café"),
        ("½ ² ﬁ Ａ", "½ ² ﬁ Ａ"),
        (
            "👨\u200d👩\u200d👧 \u00ad \u200b \u200f \u2066x\u2069",
            "👨\u200d👩\u200d👧 \u00ad \u200b \u200f \u2066x\u2069",
        ),
        ("\ue000 \U000f0000", "\ue000 \U000f0000"),
        ("\ufeffx", "\ufeffx"),
        (R, R),
        ("", ""),
        ("-5 $\\boxed{3}$", "-5 $\\boxed{3}$"),
        ("\u0378", "\u0378"),  # not assigned yet
    ],
)
def test_code_points(text: str, made: str) -> None:
    assert clean(text) == made
    assert clean(made) == made


def all_kept(text: str) -> None:
    """Text comes back from all that keeps or shows it."""
    assert text.encode().decode() == text
    assert json.loads(json.dumps(text, ensure_ascii=False)) == text
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [text]}), buffer)
    assert pq.read_table(io.BytesIO(buffer.getvalue()))["text"].to_pylist() == [text]
    parsed = ElementTree.fromstring(f"<p>{html.escape(text)}</p>")  # noqa: S314 (our own text)
    assert (parsed.text or "").replace("\r", "") == text.replace("\r\n", "\n").replace("\r", "\n").replace("\r", "")


@given(st.text(alphabet=st.characters(), max_size=40) | st.text(alphabet="\x00\x0b\x85\ud83d\ude00\ufffe\ra 😀"))
def test_clean_text_can_be_kept_anywhere_and_a_second_pass_changes_nothing(text: str) -> None:
    made = clean(text)
    assert clean(made) == made
    all_kept(made)


def test_every_code_point_is_kept_or_replaced() -> None:
    for start in range(0, 0x110000, 0x4000):
        text = " ".join(map(chr, range(start, start + 0x4000)))
        made = clean(text)
        assert len(made) == len(text)
        made.encode()
        if start < 0x20000:
            ElementTree.fromstring(f"<p>{html.escape(made)}</p>")  # noqa: S314 (our own text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"abc", "abc"),
        (b"\xef\xbb\xbfabc", "abc"),
        (b"a\xffb", f"a{R}b"),
        (b"\xc3", R),
        (b"\xed\xa0\xbd", R * 3),
        (b"\xf0\x9f\x98\x80", "😀"),
        (b"\x00", R),
        ("é".encode("latin-1"), R),
    ],
)
def test_bytes(data: bytes, text: str) -> None:
    assert decoded(data) == text


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("\ud83d", R),
        ({"\ud83d": 1}, {R: 1}),
        ({"a": ["\x00", {"b": "\ud83d\ude00"}]}, {"a": [R, {"b": "😀"}]}),
        ([1, 2.5, None, True, "\ufffe"], [1, 2.5, None, True, R]),
        ({"\ud83d": 1} | {chr(0xDC00): 2}, {R: 2}),
        ({}, {}),
        ([], []),
        (("a", "\x00"), ["a", R]),
    ],
)
def test_values_of_json(value: Any, made: Any) -> None:
    assert clean_json(value) == made


def test_values_of_any_depth() -> None:
    value: Any = "\ud83d"
    for _ in range(50_000):
        value = [value]
    made = clean_json(value)
    for _ in range(50_000):
        made, value = made[0], value[0]
    assert made == R


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": "\\ud83d"}', {"a": R}),
        ('{"\\ud83d": 1}', {R: 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        (b'{"a": "x\ny\x00\xff"}', {"a": f"x\ny{R}{R}"}),
        (b'"\\u0000"', R),
    ],
)
def test_json_as_servers_write_it(data: bytes | str, value: Any) -> None:
    assert load_json(data) == value


@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, "", "{", "[1" + "0" * 5000 + "]"])
def test_what_is_no_json_is_told(data: str) -> None:
    with pytest.raises(ValueError, match=r"nested|Expecting|digits"):
        load_json(data)


DIRTY = "half \ud83d, \x00 and \ufffe"
CLEAN = f"half {R}, {R} and {R}"


@pytest.mark.parametrize(
    "said",
    [
        VlmOutput(DIRTY, True, 1).text,
        VlmOutput("", True, 1, DIRTY).note,
        Reconstruction(None, DIRTY).note,
        EditResult(None, DIRTY).note,  # type: ignore[arg-type]
        InputError(DIRTY).what,
        InputError("x", where=DIRTY).where,
        InputError("x", fix=DIRTY).fix,
        str(InputError(DIRTY)),
    ],
)
def test_what_engines_and_errors_say_is_clean_where_it_is_made(said: str) -> None:
    assert said == CLEAN


def test_a_pods_last_message_is_clean(tmp_path: Path) -> None:
    leave_message(tmp_path / "log", "Error", DIRTY)
    assert json.loads((tmp_path / "log").read_text("utf-8"))["message"] == CLEAN


def test_keys_and_values_that_nobody_uses_are_clean_in_answers_too() -> None:
    dirty = '"\\ud83d": ["\\udc00", {"\\u0000": 1}]'
    assert parse(Critique, '{"refinement": ["A \\ud83d."], ' + dirty + "}").refinement == [f"A {R}."]
    assert parse(Instruction, '{"editing_instruction": "\\u0000", ' + dirty + "}").editing_instruction == R
    assert parse(Verdict, '{"is_valid": false, "reason": "\\udfff", ' + dirty + "}").reason == R


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_a_normal_form_is_the_librarys_but_for_endless_marks(form: Any) -> None:
    import unicodedata

    for text in ("Cafe\u0301", "ﬁ ½", "a" + "\u0300\u0316" * 10, "한국", "é" * 100, "ascii"):
        assert normal(form, text) == unicodedata.normalize(form, text)
    assert len(normal(form, "a" + "\u0300\u0316" * 500_000)) > 10**6
