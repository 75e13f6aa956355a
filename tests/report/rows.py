"""What built rows consist of: pictures, digests, schemas, counters. Nothing imports torch."""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from PIL import Image

from viper.smallworld import language
from viper.smallworld.scenes import Scene


def digest(*parts: object) -> str:
    """A digest that stands for some content."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def png(image: Image.Image) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}


def schema_of(row: Mapping[str, Any]) -> pa.Schema:
    """An Arrow schema for rows like this one; lists hold strings."""
    return pa.schema([(k, pa.list_(pa.string()) if isinstance(v, list) else _TYPES[type(v)]) for k, v in row.items()])


def counters_of(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        if "split" in row and row["accepted"]:
            counts[row["split"]] += 1
            counts["accepted." + row.get("category", "")] += 1
        if "chosen_category" in row:
            counts[f"chosen.{row['chosen_category']}"] += 1
            counts[f"used.{row['category']}"] += 1
            counts["steered"] += row["steered"]
            counts.update({"instruction.requests": 1, "instruction.attempts": 2, "instruction.failed": 0})
    return counts


def mistaken(scene: Scene, rng: random.Random) -> Scene:
    """The scene as a caption with a mistake or two describes it."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        scene = language.apply(scene, language.random_operation(rng, scene)) or scene
    return scene
