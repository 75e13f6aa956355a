"""What a scalar of YAML means: one rule, kubectl's, wherever a file is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from viper.errors import SpecError
from viper.spec.documents import documents, read_document, read_documents


def read(text: str) -> Any:
    (found,) = documents(text.encode(), "it.yaml")
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+5", 5),
        ("-0", 0),
        ("1_000", 1000),
        ("0x1F", 31),
        ("010", 8),
        ("0o17", 15),
        ("-0b11", -3),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("yes", True),
        ("Off", False),
        ("true", True),
        ("~", None),
        ("", None),
        ("null", None),
        ("2024-01-01", "2024-01-01"),
        ("2024-99-99", "2024-99-99"),
        ("2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"),
        ("1:30", "1:30"),
        ("1.5.2", "1.5.2"),
        ("'5'", "5"),
        ("=", "="),
        ("0x", "0x"),
        ("1e", "1e"),
        ("y", "y"),
        ("!!str 5", "5"),
    ],
)
def test_a_scalar_means_what_kubectl_takes_it_for(written: str, meant: Any) -> None:
    found = read(f"a: {written}\n")["a"]
    assert found == meant
    assert type(found) is type(meant)


def test_json_and_yaml_mean_the_same() -> None:
    assert read('{"a": [1e-4, 5, true, null, "x"],\t"b": {}}') == read("a: [1e-4, 5, true, ~, x]\nb: {}\n")


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("1: a\non: b\n~: c\n2024-01-01: d\n") == {"1": "a", "on": "b", "~": "c", "2024-01-01": "d"}


def test_a_reference_used_as_key_keeps_its_value() -> None:
    assert read("a: &a 5\n*a : x\nb: *a\n") == {"a": 5, "5": "x", "b": 5}


def test_merges_are_taken_apart_and_own_keys_win() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\nd: {<<: [*a, *b], x: 4}\n"
    assert read(text) == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 2, "z": 3},
        "d": {"x": 4, "y": 1},
    }


def test_documents_are_counted_without_the_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("---\n---\na: 1\n---\nb: 2\n---\n")
    assert read_documents(tmp_path / "f") == [{"a": 1}, {"b": 2}]
    with pytest.raises(SpecError, match="holds 2 documents"):
        read_document(tmp_path / "f")


def test_limits_hold_for_each_document_and_not_for_all_together() -> None:
    assert len(documents(b"---\n".join([b"[" + b"1, " * 4000 + b"]\n"] * 3), "f")) == 3


def test_an_error_names_file_line_and_column() -> None:
    with pytest.raises(SpecError, match=r'in "it\.yaml", line 2, column 4') as caught:
        read("a: 1\nb: !x 2\n")
    assert str(caught.value).startswith("it.yaml: is not valid YAML: the tag !x")
