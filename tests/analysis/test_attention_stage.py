"""The stage map-attention around a model that is not one, and the pictures that it draws."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.synthesis import context, frozen, interrupt_after
from viper.analysis import heat
from viper.analysis.stage import chosen, map_attention
from viper.errors import InputError
from viper.ingest.stage import ingest
from viper.methods.stages import INGEST, MAP_ATTENTION, stage_graph
from viper.report.attention import shown
from viper.report.collect import collect_iteration
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.tasks.dataset import split_of

RECIPE = {
    "stages": "captions",
    "partSize": 4,
    "analysis": {"attentionImages": 2, "attentionTokens": 7},
    "validation": {"heldOutShare": 0.5, "nearDuplicateDistance": -1},
}


@dataclass
class FakeLook:
    weights: NDArray[np.float32]
    answer: str

    @property
    def image_share(self) -> float:
        return float(self.weights.sum())


class FakeLooker:
    """Looks at one place, which one depends on the checkpoint."""

    def __init__(self, model: ResolvedModel, asked: list[tuple[str, int]]) -> None:
        self.model, self.asked, self.closed = model, asked, False

    def look(self, image: Image.Image, prompt: str, tokens: int) -> Any:
        self.asked.append((prompt, tokens))
        weights = np.zeros((2, 3), np.float32)
        weights[0 if "theta0" in self.model.digest else 1, image.getpixel((0, 0))[0] % 3] = 0.25  # type: ignore[index]
        return FakeLook(weights, f"{self.model.digest} looks")

    def close(self) -> None:
        self.closed = True


def prepared(root: Path, recipe: dict[str, Any] | None = None) -> StageContext:
    """Images are taken in, the captions trained."""
    folder = root / "images"
    folder.mkdir(exist_ok=True, parents=True)
    for i in range(8):
        Image.new("RGB", (96, 64), (i, 30 * i, 90)).save(folder / f"{i}.png")
    it = frozen(str(folder), recipe or RECIPE)
    for node in stage_graph(it.iteration.spec.recipe):
        ctx = context(root, node.name, it)
        if node.name == MAP_ATTENTION:
            return ctx
        if ctx.done() is None:
            trained = {"model": {"uri": "file:///theta1", "digest": "sha256:theta1"}, "steps": 1}
            ingest(ctx) if node.name == INGEST else ctx.finish(node.needs, outputs=trained if node.data else {})
    raise AssertionError("there is no such stage")


def run(ctx: StageContext, opened: list[str] | None = None, asked: list[tuple[str, int]] | None = None) -> Manifest:
    def load(model: ResolvedModel) -> FakeLooker:
        if opened is not None:
            opened.append(model.digest)
        return FakeLooker(model, [] if asked is None else asked)

    manifest = map_attention(ctx, load)
    assert manifest is not None
    return manifest


def test_every_checkpoint_is_watched_on_the_same_images(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    ctx = prepared(tmp_path)
    manifest = run(ctx, asked=asked)
    assert asked == [("Describe the image.", 7)] * 4
    assert manifest.outputs["checkpoints"] == {"theta0": "sha256:theta0", "theta1": "sha256:theta1"}
    assert manifest.outputs["image_share"] == {"theta0": 0.25, "theta1": 0.25}
    rows = list(ctx.rows(MAP_ATTENTION))
    assert [r["model"] for r in rows] == ["theta0", "theta0", "theta1", "theta1"]
    assert [r["image_id"] for r in rows[:2]] == [r["image_id"] for r in rows[2:]] == manifest.outputs["images"]
    for name in manifest.outputs["maps"]:
        with Image.open(io.BytesIO(ctx.store.get(f"{ctx.prefix}/{name}"))) as picture:
            # The image, two checkpoints and what changed.
            assert picture.width == 4 * heat.SIDE + 3 * heat.GAP


def test_held_out_images_come_first_and_the_choice_is_fixed(tmp_path: Path) -> None:
    ctx = prepared(tmp_path)
    ids = [image.image_id for image in chosen(ctx, 8)]
    held_out = [split_of(i, 0.5) == "held_out" for i in ids]
    assert held_out == sorted(held_out, reverse=True)
    assert True in held_out
    assert [image.image_id for image in chosen(ctx, 3)] == ids[:3]


def test_a_killed_stage_watches_no_checkpoint_twice(tmp_path: Path) -> None:
    ctx = prepared(tmp_path)
    interrupt_after(ctx, 1)
    opened: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(ctx, opened)
    resumed = run(prepared(tmp_path), again := [])
    assert (opened, again) == (["sha256:theta0", "sha256:theta1"], ["sha256:theta1"])
    (other := tmp_path / "other").mkdir()
    assert resumed.outputs == run(prepared(other)).outputs


def test_without_images_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    ctx = prepared(tmp_path, {**RECIPE, "validation": {"nearDuplicateDistance": 64}})
    (only,) = run(ctx).outputs["maps"]  # all but the first one look alike
    assert only.startswith("attention-00-")
    ctx.store.delete(f"{ctx.frozen.prefix}/stages/{INGEST}/manifest.json")
    StageContext(ctx.frozen, ctx.store, INGEST, tmp_path).finish(())
    with pytest.raises(InputError, match="no image to look at"):
        chosen(ctx, 2)


def test_the_report_shows_the_maps_with_what_was_said(tmp_path: Path) -> None:
    ctx = prepared(tmp_path)
    manifest = run(ctx)
    ctx.store.put(f"{ctx.frozen.prefix}/iteration.json", ctx.frozen.model_dump_json(by_alias=True).encode())
    found = shown(ctx.store, collect_iteration(ctx.store, "it"))
    assert found is not None
    assert found["shares"] == [("θ0", 0.25), ("θ1", 0.25)]
    assert [m["answers"] for m in found["maps"]] == [
        [("θ0", "sha256:theta0 looks"), ("θ1", "sha256:theta1 looks")],
    ] * 2
    assert all(m["uri"].startswith("data:image/webp;base64,") for m in found["maps"])
    ctx.store.delete(f"{ctx.prefix}/{manifest.outputs['maps'][0]}")
    without = shown(ctx.store, collect_iteration(ctx.store, "it"))
    assert without is not None
    assert [bool(m["uri"]) for m in without["maps"]] == [False, True]


def test_heat_is_where_the_weights_are_and_change_has_a_sign() -> None:
    before, after = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)
    before[0, 0], after[1, 1] = 0.5, 0.5
    sheet = np.asarray(heat.panel(Image.new("RGB", (64, 64), (128, 128, 128)), {"theta0": before, "theta1": after}))
    side, step = heat.SIDE, heat.SIDE + heat.GAP
    corners = {"top left": (heat.STRIP + 20, 20), "bottom right": (heat.STRIP + side - 20, side - 20)}

    def at(number: int, corner: str) -> Any:
        y, x = corners[corner]
        return sheet[y, x + number * step].astype(int)

    assert at(1, "top left").sum() > at(1, "bottom right").sum() + 200
    assert at(2, "bottom right").sum() > at(2, "top left").sum() + 200
    red, blue = at(3, "bottom right"), at(3, "top left")
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    # All checkpoints share one scale: half the weight is less bright.
    half = np.asarray(heat.panel(Image.new("RGB", (64, 64)), {"theta0": before, "theta1": after / 2}))
    y, x = corners["bottom right"]
    assert half[y, x + 2 * step].astype(int).sum() < sheet[y, x + 2 * step].astype(int).sum()
    assert hashlib.sha256(sheet.tobytes()).digest() != hashlib.sha256(half.tobytes()).digest()
