"""Fakes for the tests of ingest, synthesis and validation: scripted engines, and contexts without a registry."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from viper.engines.base import EditResult, Reconstruction, Sampling, VlmOutput, VlmRequest
from viper.modelcache.engines import StageEngines
from viper.prompts import PromptSet
from viper.spec import parse_resource
from viper.spec.iteration import ViperIteration
from viper.spec.recipe import CATEGORIES
from viper.stage import FrozenIteration, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import open_store

#: Answers one request of a template: (request, seed of the batch, place in the batch) → text.
Script = Callable[[VlmRequest, int, int], str]
_OPENINGS = {
    name: text.partition("$")[0] for name, text in PromptSet.load("smallworld").templates.items() if name != "question"
}


def _colour(request: VlmRequest) -> str:
    return hashlib.sha256(request.images[0].tobytes()).hexdigest()[:8]


def say_caption(request: VlmRequest, seed: int, place: int) -> str:
    return f"A picture called {_colour(request)}."


def say_critique(request: VlmRequest, seed: int, place: int) -> str:
    return json.dumps({"refinement": [f"The top of {_colour(request)} is blue.", "A small ring is missing."]})


def say_refined(request: VlmRequest, seed: int, place: int) -> str:
    return f"A picture called {_colour(request)} with a blue top and a small ring."


def say_category(request: VlmRequest, seed: int, place: int) -> str:
    return json.dumps({"analysis": "a", "chosen_category": CATEGORIES[(seed + place) % 4], "reasoning": "r"})


def say_instruction(request: VlmRequest, seed: int, place: int) -> str:
    return json.dumps({"entity_to_edit": "ring", "editing_instruction": f"Make ring {seed % 997} {place} red."})


def say_valid(request: VlmRequest, seed: int, place: int) -> str:
    return json.dumps({"is_valid": True})


SCRIPTS: dict[str, Script] = {
    "caption": say_caption,
    "critique": say_critique,
    "refine": say_refined,
    "category": say_category,
    "instruction": say_instruction,
    "judge": say_valid,
}


class FakeVlm:
    """Says what the scripts say; `calls` are (template, requests) of every batch, `requests` everything asked."""

    engine_id = "fake-vlm/1"

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self._scripts = SCRIPTS | dict(scripts or {})
        self.calls: list[tuple[str, int]] = []
        self.requests: list[VlmRequest] = []
        self.samplings: list[Sampling] = []

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        name = next(n for n, opening in _OPENINGS.items() if requests[0].prompt.startswith(opening))
        self.calls.append((name, len(requests)))
        self.requests += requests
        self.samplings.append(sampling)
        texts = [self._scripts[name](request, sampling.seed, place) for place, request in enumerate(requests)]
        return [VlmOutput(text.removesuffix("…"), not text.endswith("…"), len(text.split())) for text in texts]


class FakeReconstructor:
    """A colour for each caption, and a black corner."""

    engine_id = "fake-reconstructor/1"

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, int]]] = []

    def reconstruct(self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list[Reconstruction]:
        self.calls.append((len(captions), size))
        colours = [hashlib.sha256(f"{c}{s}".encode()).digest()[:3] for c, s in zip(captions, seeds, strict=True)]
        images = [Image.new("RGB", size, tuple(colour)) for colour in colours]
        for image in images:
            image.putpixel((0, 0), (0, 0, 0))
        return [Reconstruction(image) for image in images]


def half_inverted(image: Image.Image) -> Image.Image:
    """The image with the colours of its left half inverted."""
    left = image.crop((0, 0, image.width // 2, image.height))
    edited = image.copy()
    edited.paste(ImageChops.invert(left), (0, 0))
    return edited


class FakeEditor:
    """Inverts the left half of the image; refuses instructions that hold "impossible"."""

    engine_id = "fake-editor/1"

    def __init__(self) -> None:
        self.instructions: list[str] = []

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[EditResult]:
        self.instructions += instructions
        return [
            EditResult(image, "there is no such thing") if "impossible" in text else EditResult(half_inverted(image))
            for image, text in zip(images, instructions, strict=True)
        ]


class FakeClip:
    """Embeds every image alike, so that all scores are 1, unless `score` says otherwise per edited image."""

    engine_id = "fake-clip/1"

    def __init__(self, embed: Callable[[Image.Image], Sequence[float]] = lambda image: (1.0, 0.0)) -> None:
        self._embed = embed
        self.images = 0

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        self.images += len(images)
        return np.array([self._embed(image) for image in images], np.float32)


class FakeEngines(StageEngines):
    """`StageEngines` with fakes; `vlms` by model digest, else one for all."""

    def __init__(self, ctx: StageContext, vlm: FakeVlm | None = None, **roles: Any) -> None:
        super().__init__(ctx)
        self.vlm = vlm or FakeVlm()
        self.fakes = {"reconstructor": FakeReconstructor(), "editor": FakeEditor(), "image_similarity": FakeClip()}
        self.fakes |= roles
        self._vlms: dict[str, FakeVlm] = roles.get("vlms", {})

    def _load(self, role: str) -> Any:
        model = self._model(role)
        return self.fakes[role] if model is None else self._vlms.get(model.digest, self.vlm)

    def _needed(self, role: str) -> int:
        return 0


def frozen(images: str, recipe: Mapping[str, Any] | None = None, **spec: Any) -> FrozenIteration:
    """A frozen iteration named `it`; `recipe` and `spec` use the camelCase names of a file."""
    engines = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")
    limits = spec.pop("limits", {})
    iteration = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": {
                "model": "small",
                "images": {"uri": images, **limits},
                "engines": engines,
                "recipe": {"prompts": "smallworld", **(recipe or {})},
                **spec,
            },
        }
    )
    assert isinstance(iteration, ViperIteration)
    models = {role: ResolvedModel(uri=f"file:///models/{role}", digest=f"sha256:{role}") for role in ("base", "judge")}
    theta0 = ResolvedModel(uri="file:///models/theta0", digest="sha256:theta0")
    return FrozenIteration(
        iteration=iteration,
        generator=theta0,
        critic=theta0,
        **models,
        tracking=Tracking(uri="sqlite://", parent_run="r"),
    )


def context(root: Path, stage: str, it: FrozenIteration, shard: int = 0, shards: int = 1) -> StageContext:
    return StageContext(it, open_store(str(root / "store")), stage, root / "work", shard, shards)


def interrupt_after(ctx: StageContext, parts: int) -> None:
    """Has the stage stopped when it is about to write part number `parts`."""
    write = ctx.write_part

    def once_more(index: int, *arguments: Any, **options: Any) -> Any:
        if index == parts:
            raise KeyboardInterrupt
        return write(index, *arguments, **options)

    ctx.write_part = once_more  # type: ignore[method-assign]


class CountingVlm(FakeVlm):
    """A fake for processes of their own: logs every batch to $FAKE_LOG and kills itself at call $FAKE_KILL_AT."""

    def __init__(self, model_dir: Path) -> None:
        super().__init__()

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        outputs = super().generate(requests, sampling)
        log = Path(os.environ["FAKE_LOG"])
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps([os.getpid(), *self.calls[-1], sampling.seed]) + "\n")
        if len(self.calls) == int(os.environ.get("FAKE_KILL_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return outputs
