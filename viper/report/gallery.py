"""Samples to look at: accepted ones and rejected ones with their reasons, as small pictures and escaped text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viper.errors import NotFoundError, StageError
from viper.report.collect import Funnel, IterationReport
from viper.report.words import one_line
from viper.stage import Manifest, StageContext
from viper.store import ObjectStore

#: Parts of each stage that are read for samples: bounds time and memory, whatever the size of the run.
PARTS_READ = 2
#: Samples shown per task (accepted, rejected): over all iterations, and in one at most. One shows two of each at least.
SHOWN, AT_MOST = (18, 12), (9, 6)
#: Iterations that have a gallery: the first one and the last ones.
ITERATIONS = 8
THUMBNAIL_PX = 192
_MAX_TEXT = 600
_MAX_ITEMS = 10

Row = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """`uri` is a data URI, empty when there is no (readable) picture."""

    label: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Sample:
    """One sample as shown. All strings may come from a model and are untrusted."""

    sample_id: str
    pictures: tuple[Picture, ...]
    heading: str
    text: str
    items: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    accepted: bool
    reason: str
    detail: str = ""


def samples(store: ObjectStore, iteration: IterationReport, funnel: Funnel, iterations: int) -> list[Sample]:
    """Accepted samples, then rejected ones, from the first parts; the same choice for the same store. Supplied ones are
    not shown.

    `iterations` is the number of iterations on the page, which share the room. Parts that cannot be read are left out.
    """
    if not funnel.synthesis:
        return []
    validation = iteration.stage(funnel.validation)
    reader = StageContext(iteration.frozen, store, "report", Path("unused"))
    made = {r["sample_id"]: r for stage in funnel.synthesis for r in _rows(reader, iteration.stage(stage))}
    judged = {} if validation is None else {r["sample_id"]: r for r in _rows(reader, validation)}
    pool = {r["image_id"]: r["image"] for r in _rows(reader, iteration.images, ["image_id", "image"])}
    # Rejected rows of the validation leave their pictures out; those of the stages before have them.
    verdicts = {key: {k: v for k, v in row.items() if v != b""} for key, row in judged.items()}
    merged = [{"image": pool.get(row.get("image_id")), **row, **verdicts.get(key, {})} for key, row in made.items()]
    keep, drop = (min(most, max(2, n // max(1, iterations))) for n, most in zip(SHOWN, AT_MOST, strict=True))
    accepted = [r for r in merged if r["accepted"] and (r["sample_id"] in judged or validation is None)]
    rejected = [r for r in merged if not r["accepted"]]
    texts = iteration.frozen.node(funnel.validation or funnel.synthesis[0]).stage.texts
    chosen = [*_varied(accepted, keep, next(iter(texts), "reason")), *_varied(rejected, drop, "reason")]
    return [_shown(row, texts) for row in chosen]


def thumbnail(data: bytes | None) -> str:
    """A WebP data URI of at most `THUMBNAIL_PX` on the longer side; empty when the bytes are no picture."""
    from viper.images import Unusable, read

    try:
        small = read(data or b"", max_side=THUMBNAIL_PX)
    except Unusable:
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _rows(reader: StageContext, manifest: Manifest | None, columns: Sequence[str] | None = None) -> Iterable[Row]:
    for part in () if manifest is None else manifest.parts[:PARTS_READ]:
        try:
            yield from reader.table(manifest.stage, part, columns).to_pylist()  # type: ignore[union-attr]
        except (NotFoundError, StageError):
            continue


def _varied(rows: Sequence[Row], count: int, key: str) -> list[Row]:
    """`count` rows in their order, taken in turn from each value of `key`."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(str(row.get(key)), []).append(place)
    chosen: list[int] = []
    while groups and len(chosen) < count:
        for value in list(groups):
            chosen.append(groups[value].pop(0))
            if not groups[value]:
                del groups[value]
    return [rows[place] for place in sorted(chosen[:count])]


def _shown(row: Row, texts: Sequence[str]) -> Sample:
    """By what there is in a row: a caption with its flaws, an edit, or whatever texts its stage declares."""
    if "reconstruction" in row:
        return _caption(row)
    if "edited" in row:
        return _operation(row)
    heading, *others = texts or ("",)
    return Sample(
        sample_id=str(row["sample_id"]),
        pictures=(Picture("original", thumbnail(row.get("image")), "the original picture"),),
        heading=heading.replace("_", " ").capitalize(),
        text=_text(row.get(heading)),
        items=(),
        facts=(
            *((name.replace("_", " "), _text(row.get(name), 120)) for name in others),
            ("split", str(row.get("split") or "")),
            _identity(row),
        ),
        accepted=bool(row["accepted"]),
        reason=_text(row["reason"]),
        detail=_text(row.get("detail") or "", 200),
    )


def _caption(row: Row) -> Sample:
    flaws, caption = [_text(f) for f in row.get("refinement") or []], row["caption"]
    return Sample(
        sample_id=str(row["sample_id"]),
        pictures=(
            Picture("original", thumbnail(row.get("image")), "the original picture"),
            Picture("reconstruction", thumbnail(row.get("reconstruction")), f"drawn from: {_text(caption, 160)}"),
        ),
        heading="Caption",
        text=_text(caption),
        items=tuple(flaws[:_MAX_ITEMS]),
        facts=(("flaws", str(len(flaws))), ("split", str(row.get("split") or "")), _identity(row)),
        accepted=bool(row["accepted"]),
        reason=_text(row["reason"]),
        detail=_text(row.get("detail") or "", 200),
    )


def _operation(row: Row) -> Sample:
    score = row.get("clip_score")
    facts = [("category", _text(row["category"]))]
    if row.get("steered"):
        facts.append(("the model chose", _text(row.get("chosen_category") or "")))
    facts += [("entity", _text(row.get("entity") or "", 120)), ("split", str(row.get("split") or ""))]
    if isinstance(score, float):
        facts.append(("CLIP score", f"{score:.3f}"))
    facts.append(_identity(row))
    detail = row.get("judge_reason") or row.get("editor_note") or row.get("detail") or ""
    return Sample(
        sample_id=str(row["sample_id"]),
        pictures=(
            Picture("original", thumbnail(row.get("image")), "the original picture"),
            Picture("edited", thumbnail(row.get("edited")), f"edited: {_text(row['instruction'], 160)}"),
        ),
        heading="Instruction",
        text=_text(row["instruction"]),
        items=(),
        facts=tuple(facts),
        accepted=bool(row["accepted"]),
        reason=_text(row["reason"]),
        detail=_text(detail, 200),
    )


def _identity(row: Row) -> tuple[str, str]:
    return "sample", str(row["sample_id"]).rpartition(":")[2][:12]


def _text(value: object, most: int = _MAX_TEXT) -> str:
    return one_line(value, most)
