"""Each table of a stage as a class: what is stored has the columns that it always had."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from viper.analysis.stage import AttentionRow
from viper.evaluation.suites import AnswerRow, parquet
from viper.ingest.stage import ImageRow
from viper.stage.rows import Float32, Int32, RowClass, names_of, read_rows, row_of, schema_of, values_of
from viper.tasks.captions.synthesis import CaptionRow
from viper.tasks.captions.validation import CaptionSample
from viper.tasks.external.ingest import ExternalSample
from viper.tasks.operations.synthesis import OperationRow
from viper.tasks.operations.validation import OperationSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    n: Int32 = 0
    long: int | None = None
    share: float = 0.5
    vector: list[Float32] | None = None
    files: list[bytes]
    good: bool = True


def test_the_schema_follows_from_the_fields() -> None:
    assert schema_of(Row) == pa.schema(
        [
            ("name", pa.string()),
            ("n", pa.int32()),
            ("long", pa.int64()),
            ("share", pa.float64()),
            ("vector", pa.list_(pa.float32())),
            ("files", pa.list_(pa.binary())),
            ("good", pa.bool_()),
        ]
    )


@pytest.mark.parametrize("hint", [dict[str, int], complex, tuple[int, ...], int | str, int | str | None, list[object]])
def test_what_no_column_holds_is_refused(hint: Any) -> None:
    made = dataclass(type("Bad", (), {"__annotations__": {"field": hint}}))
    with pytest.raises(TypeError):
        schema_of(made)


def test_rows_come_back_as_they_were_written() -> None:
    rows = [Row(name="a", files=[b"1", b""], vector=[0.5], long=2**40), Row(name="b", files=[])]
    table = pa.Table.from_pylist([values_of(row) for row in rows], schema=schema_of(Row))
    assert read_rows(table, Row) == rows


def test_a_column_that_was_not_read_has_no_value() -> None:
    assert names_of(Row, lambda row: (row.name, row.good)) == ["name", "good"]
    row = row_of(Row, {"name": "a", "good": False, "of a later release": 1})
    assert (row.name, row.good) == ("a", False)
    for use in (lambda: row.n, lambda: values_of(row), lambda: replace(row, name="b")):
        with pytest.raises(AttributeError):
            use()


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            ImageRow,
            "image_id string, image binary, width int32, height int32, source string, phash string, "
            "embedding list<item: float>, bytes int64, detail string, accepted bool, reason string",
        ),
        (
            ExternalSample,
            "sample_id string, image_id string, images list<item: binary>, prompt string, "
            "ground_truth list<item: string>, split string, source string, detail string, passport string, "
            "accepted bool, reason string",
        ),
        (
            CaptionRow,
            "sample_id string, image_id string, caption string, reconstruction binary, refinement list<item: string>, "
            "refined_caption string, attempts int32, detail string, passport string, accepted bool, reason string",
        ),
        (
            CaptionSample,
            "sample_id string, image_id string, image binary, caption string, refinement list<item: string>, "
            "refined_caption string, split string, passport string, accepted bool, reason string",
        ),
        (
            OperationRow,
            "sample_id string, image_id string, category string, chosen_category string, steered bool, entity string, "
            "instruction string, edited binary, editor_note string, attempts int32, detail string, passport string, "
            "accepted bool, reason string",
        ),
        (
            OperationSample,
            "sample_id string, image_id string, image binary, edited binary, category string, entity string, "
            "instruction string, changed double, clip_score double, votes int32, votes_valid int32, "
            "judge_reason string, split string, passport string, accepted bool, reason string",
        ),
        (
            AttentionRow,
            "image_id string, model string, model_digest string, rows int32, columns int32, "
            "weights list<item: float>, image_share float, answer string, accepted bool, reason string",
        ),
        (
            AnswerRow,
            "model string, model_digest string, suite string, question_id string, domain string, kind string, "
            "expected string, prediction string, output string, note string, cluster string, "
            "groups list<item: string>, finished bool, tokens int64, correct bool, accepted bool, reason string",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_table_keeps_its_columns(row: type[RowClass], columns: str) -> None:
    schema = schema_of(row)
    assert ", ".join(f"{field.name} {field.type}" for field in schema) == columns
    assert all(field.nullable and field.metadata is None for field in schema)
    assert schema.metadata is None


def test_kept_answers_have_the_columns_of_a_part_but_those_of_its_iteration() -> None:
    kept = [name for name in schema_of(AnswerRow).names if name not in ("model", "model_digest", "accepted", "reason")]
    schema = pq.read_schema(io.BytesIO(parquet([])))
    assert schema == pa.schema([schema_of(AnswerRow).field(name) for name in kept])
