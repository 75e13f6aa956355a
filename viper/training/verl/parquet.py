"""RL samples as the Parquet files that verl reads.

One row per prompt, in verl's schema: `data_source`, `prompt` (one chat message whose `<image>` marks stand for the
images, in order), `images` (file bytes), `ability`, `reward_model` with `ground_truth`, `extra_info`. The ground truth
is a JSON object {sample_id, generator, sentences}: verl's own dumps name prompts by a random id, and the ground truth
is what travels with a prompt from here to the reward function and back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from viper.images import decode, encode_png, plain
from viper.prompts import without_marks
from viper.training.data import EncodedSample
from viper.training.local.checkpoints import writing

_ROWS_PER_GROUP = 64


def prompt_text(sample: EncodedSample) -> str:
    """The message: a mark per image, then the text, in which nothing can be mistaken for a mark."""
    return "<image>" * len(sample.images) + without_marks(sample.prompt)


def verl_row(sample: EncodedSample, index: int) -> dict[str, Any]:
    """One row of verl's schema; `index` is its place in the file."""
    truth = {"sample_id": sample.sample_id, "generator": sample.generator, "sentences": list(sample.ground_truth)}
    return {
        "data_source": f"viper/{sample.task}",
        "prompt": [{"role": "user", "content": prompt_text(sample)}],
        "images": [{"bytes": rgb_bytes(data)} for data in sample.images],
        "ability": sample.task,
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth, ensure_ascii=False)},
        "extra_info": {"index": index},
    }


def rgb_bytes(data: bytes) -> bytes:
    """An image file that every reader sees as the same RGB pixels; most files are that already."""
    return data if plain(data) else encode_png(decode(data))


def write_rows(path: Path, samples: Sequence[EncodedSample], order: Iterable[int]) -> None:
    """Writes the samples `order` names, in that order; the file is whole or absent. `StoreError` on a full disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("index", number)])),
        ]
    )
    temporary = path.with_name(f".{path.name}.writing")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema) as writer:
            for rows in _groups(samples, order):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def _groups(samples: Sequence[EncodedSample], order: Iterable[int]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for index, place in enumerate(order):
        rows.append(verl_row(samples[place], index))
        if len(rows) == _ROWS_PER_GROUP:
            yield rows
            rows = []
    if rows:
        yield rows
