"""Trains and measures the small world's CLIP model: `viper smallworld train-clip`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from viper.engines.base import ImageSimilarityModel
from viper.engines.open_clip_filter import CONFIG, WEIGHTS
from viper.smallworld.clip import CALIBRATION, SmallWorldClip
from viper.smallworld.drawing import IMAGE_PIXELS, render
from viper.smallworld.editor import SmallWorldEditor
from viper.smallworld.language import apply, caption, operation_sentence, random_operation
from viper.smallworld.scenes import ATTRIBUTES, Scene, random_scene
from viper.smallworld.similarity import WordTokenizer, padded

_WORDS: Final = 64
"""Context length of the text tower; a caption of five things has 51 words."""
MODEL: Final[dict[str, Any]] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": IMAGE_PIXELS, "patch_size": 16, "width": 96, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": _WORDS, "vocab_size": 64, "width": 64, "heads": 2, "layers": 2},
}
"""open_clip's `model_cfg`."""
PREPROCESS: Final[dict[str, Any]] = {
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic", "resize_mode": "squash"
}  # fmt: skip
_PAIRS: Final = 40
"""Scenes per batch; each comes with an edited version of itself."""
_RUINED: Final = 5
"""Ruined pictures of each way per batch."""
_SCALE: Final = 12.0
_TEMPERATURE: Final = 0.1
"""A pair that shares a part `o` of its facts is drawn to the cosine 1 - (1 - o) / (scale · temperature)."""
_TEST_SEED: Final = 70_000_000
"""Pictures from here on are measured with, never trained on."""


def train_clip(
    out: Path, seed: int = 0, steps: int = 600, *, pool: int = 2560, log: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Trains a tiny CLIP on pictures and their true captions and writes it to `out` in open_clip's layout.

    The contrastive loss has soft targets: pictures and captions attract each other by the share of facts they have in
    common, so that an edited picture stays near its original and another scene does not. Ruined pictures (noise, blank,
    scrambled) share nothing with any scene. `pool` is the number of training scenes. The measures of `separation` are
    returned and kept in `calibration.json`.
    """
    rng = random.Random(f"clip-{seed}")
    torch.manual_seed(seed)
    model = open_clip.CLIP(**MODEL)
    model.logit_scale.requires_grad_(False).fill_(float(np.log(_SCALE)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1)
    scenes = [random_scene(rng) for _ in range(pool)]
    scenes += [apply(scene, random_operation(rng, scene)) or scene for scene in scenes]
    pictures = np.stack([np.asarray(render(scene, rng.randrange(_TEST_SEED))) for scene in scenes])
    tokenizer = WordTokenizer(_vocabulary(scenes), buckets=1)
    said = [caption(scene) for scene in scenes] + [f"{way} picture" for way in RUINS for _ in range(_RUINED)]
    texts, facts = _token_ids(tokenizer, said), _facts(scenes)
    for step in range(steps):
        chosen = rng.sample(range(pool), _PAIRS)
        chosen += [pool + index for index in chosen]
        ruined = [
            np.asarray(ruin(Image.fromarray(pictures[rng.choice(chosen)]), way, rng.randrange(2**31)))
            for way in RUINS
            for _ in range(_RUINED)
        ]
        rows = [*chosen, *range(len(scenes), len(said))]
        loss = _loss(model, _tensor(np.concatenate([pictures[chosen], np.stack(ruined)])), texts[rows], facts[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if log is not None and (step % 50 == 49 or step == steps - 1):
            log(f"step {step + 1}/{steps} loss {float(loss.detach()):.3f}")
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (out / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out / WEIGHTS)
    measured = separation(SmallWorldClip(out))
    (out / CALIBRATION).write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    return measured


def _facts(scenes: Sequence[Scene]) -> torch.Tensor:
    """One row per scene, then one per ruined picture; the inner product of two rows counts the facts they share.

    A thing at its place weighs 1, a quarter per attribute, and so do the background's pattern and colour.
    """
    places: dict[tuple[object, ...], int] = {}
    entries: list[tuple[int, int, float]] = []
    for row, scene in enumerate(scenes):
        said: list[tuple[tuple[object, ...], float]] = [
            (("pattern", scene.background.pattern), 0.25),
            (("ground", scene.background.color), 0.25),
        ]
        for cell in scene.occupied:
            said += [((cell, name, scene.thing(cell).value(name)), 0.25) for name in ATTRIBUTES]
        entries += [(row, places.setdefault(fact, len(places)), weight) for fact, weight in said]
    for way, name in enumerate(RUINS):
        column = places.setdefault((name,), len(places))
        entries += [(len(scenes) + way * _RUINED + index, column, 1.0) for index in range(_RUINED)]
    facts = torch.zeros(len(scenes) + len(RUINS) * _RUINED, len(places))
    for row, column, weight in entries:
        facts[row, column] = weight**0.5
    return facts


def _vocabulary(scenes: Sequence[Scene]) -> list[str]:
    words = {word for scene in scenes for word in WordTokenizer.split(caption(scene))}
    return sorted(words | set(RUINS) | {"picture"})


def _token_ids(tokenizer: WordTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Ids [n, context length]; the highest id ends a text, which is where open_clip's text tower is read."""
    end = MODEL["text_cfg"]["vocab_size"] - 1
    encoded, unknown = tokenizer.encode(texts)
    if unknown or len(tokenizer.words) >= end:
        raise ValueError(f"the vocabulary does not fit: {len(tokenizer.words)} words, unknown {unknown}")
    ids = padded([[*text, end] for text in encoded])
    return torch.from_numpy(np.pad(ids, ((0, 0), (0, _WORDS - ids.shape[1]))))


def _tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    scaled = (images.astype(np.float32) / 255 - PREPROCESS["mean"][0]) / PREPROCESS["std"][0]
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def _loss(model: Any, images: torch.Tensor, texts: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between cosines and shared facts: picture to caption, caption to picture, picture to picture."""
    size = (facts * facts).sum(1)
    shared = (facts @ facts.T) / torch.maximum(size[:, None], size[None])
    target = (shared / _TEMPERATURE).softmax(1)
    seen, said, scale = model(images, texts)
    logits = scale * seen @ said.T
    losses = [functional.cross_entropy(given, target) for given in (logits, logits.T, scale * seen @ seen.T)]
    return torch.stack(losses).mean()


RUINS: Final = ("noise", "blank", "scrambled")


def ruin(image: Image.Image, way: str, seed: int) -> Image.Image:
    """A destroyed picture: pure noise, one colour, or the 16-pixel tiles of `image` in another order."""
    rng = np.random.default_rng(seed)
    pixels = np.asarray(image.convert("RGB"))
    if way == "noise":
        return Image.fromarray(rng.integers(0, 256, pixels.shape, np.uint8))
    if way == "blank":
        return Image.new("RGB", image.size, tuple(int(value) for value in rng.integers(0, 256, 3)))
    side = IMAGE_PIXELS // 16
    tiles = pixels.reshape(side, 16, side, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
    mixed = tiles[rng.permutation(len(tiles))].reshape(side, side, 16, 16, 3)
    return Image.fromarray(mixed.swapaxes(1, 2).reshape(pixels.shape))


def separation(model: ImageSimilarityModel, count: int = 400, seed: int = _TEST_SEED) -> dict[str, float]:
    """How well the CLIP score of (original, edited) tells an edit from wholesale drift.

    Edits are one random operation each, all categories alike, by an editor that does not fail. `auc_<drift>` is the
    probability that a random edit scores higher than a random drifted image: `scene` another scene in another
    disturbance, `noise`, `blank`, `scrambled` destroyed ones. `edit_quantile_*` are quantiles of the edits' scores.
    """
    rng = random.Random(f"separation-{seed}")
    scenes = [random_scene(rng) for _ in range(count)]
    originals = [render(scene, seed + index) for index, scene in enumerate(scenes)]
    operations = [operation_sentence(random_operation(rng, scene)) for scene in scenes]
    edits = [result.image for result in SmallWorldEditor(failure_rate=0.0).edit(originals, operations, range(count))]
    embedded = model.embed_images(originals)
    scores = (embedded * model.embed_images(edits)).sum(1)
    measured: dict[str, float] = {}
    for way in ("scene", *RUINS):
        if way == "scene":
            drifted = [render(random_scene(rng), seed + count + index) for index in range(count)]
        else:
            drifted = [ruin(image, way, index) for index, image in enumerate(originals)]
        drift = (embedded * model.embed_images(drifted)).sum(1)
        measured[f"auc_{way}"] = float((scores[:, None] > drift[None]).mean())
        for share in (0.5, 0.99):
            measured[f"{way}_quantile_{share}"] = float(np.quantile(drift, share))
    for share in (0.01, 0.05, 0.5):
        measured[f"edit_quantile_{share}"] = float(np.quantile(scores, share))
    return {name: round(value, 4) for name, value in measured.items()}
