"""The attention heat maps of an iteration on the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from viper.errors import NotFoundError, StageError
from viper.report.collect import IterationReport
from viper.report.words import one_line
from viper.stage import Manifest, StageContext
from viper.store import ObjectStore

#: Images shown for each iteration.
SHOWN = 4
_WIDTH_PX = 1100
_MAX_TEXT = 300


def shown(store: ObjectStore, iteration: IterationReport) -> dict[str, Any] | None:
    """The maps of an iteration with what each checkpoint said; None without the stage."""
    manifest = next(iter(iteration.made("maps")), None)
    if manifest is None:
        return None
    images, maps = (list(manifest.outputs.get(name, [])) for name in ("images", "maps"))
    answers = _answers(store, iteration, manifest)
    return {
        "name": iteration.name,
        "shares": [(_name(iteration, model), s) for model, s in manifest.outputs.get("image_share", {}).items()],
        "maps": [
            {
                "uri": _picture(store, f"{iteration.frozen.prefix}/stages/{manifest.stage}/{name}"),
                "alt": f"attention of every checkpoint over image {image_id[:12]}",
                "answers": answers.get(image_id, []),
            }
            for image_id, name in list(zip(images, maps, strict=False))[:SHOWN]
        ],
    }


def _answers(store: ObjectStore, iteration: IterationReport, manifest: Manifest) -> dict[str, list[tuple[str, str]]]:
    reader = StageContext(iteration.frozen, store, "report", Path("unused"))
    found: dict[str, list[tuple[str, str]]] = {}
    for part in manifest.parts:
        try:
            rows = reader.table(manifest.stage, part, ["image_id", "model", "answer"]).to_pylist()
        except (NotFoundError, StageError):
            continue
        for row in rows:
            said = (_name(iteration, row["model"]), one_line(row["answer"], _MAX_TEXT))
            found.setdefault(row["image_id"], []).append(said)
    return found


def _picture(store: ObjectStore, key: str) -> str:
    """A WebP data URI of a stored picture; empty when there is none."""
    from PIL import Image

    from viper.images import Unusable, read

    try:
        small = read(store.get(key))
    except (NotFoundError, Unusable):
        return ""
    if small.width > _WIDTH_PX:
        small = small.resize((_WIDTH_PX, round(small.height * _WIDTH_PX / small.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _name(iteration: IterationReport, model: str) -> str:
    return iteration.called([model])[model]
