"""Seconds of an image by steps, size and guidance, with and without compiling and the first-block cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu import shapes, words
from benchmarks.gpu.measure import Kit
from benchmarks.gpu.parts.similarity import picture
from benchmarks.gpu.weights import random_weights

_REUSE = "random weights do not tell how often a block is reused: the two figures are never and always"
_INSTRUCTION = "Make the small red object at the top left blue."


def qwen_image(kit: Kit) -> None:
    """The reconstructor Qwen-Image."""
    from viper.engines.qwen_image import QwenImageReconstructor
    from viper.spec.engines import DiffusionSettings

    directory = shapes.pipeline("qwen-image", kit.scratch / "qwen-image", tiny=kit.tiny)
    side, steps = kit.chosen(1024, 48), kit.chosen(4, 2)
    base = DiffusionSettings(steps=steps, dtype=_dtype(kit))
    with random_weights(kit.device):
        first = QwenImageReconstructor(directory, kit.device, base)
        pipeline = first._pipeline
        run = _Runs(kit, directory, "reconstruct", "qwen-image", "Qwen-Image")

        def draw(side: int, *, name: str = "", repetitions: int = 2, warm: int = 1, **changes: Any) -> None:
            settings = base.model_copy(update={k: v for k, v in changes.items() if k in type(base).model_fields})
            engine = QwenImageReconstructor(directory, kit.device, settings)
            engine.__dict__["_pipeline"] = pipeline
            run(
                lambda: _drawn(engine.reconstruct([words.CAPTION], [1], (side, side))[0]),
                settings,
                side,
                name=name,
                repetitions=repetitions,
                warm=warm,
                factors=changes.get("factors", ()),
            )

        draw(side)
        draw(side, steps=kit.chosen(20, 4))
        draw(side, guidance=1.0)
        for other in kit.chosen((512, 1536), (32, 64)):
            draw(other)
        cached = {"factors": ("cache",), "steps": kit.chosen(20, 4), "repetitions": 1}
        for threshold, name in ((1e-6, "cache, never reused"), (1e6, "cache, always reused")):
            with _first_block_cache(pipeline, threshold):
                draw(side, name=name, **cached)
        if kit.left > kit.chosen(60, 0):
            # Code for tiny blocks on a CPU takes a minute to make.
            pipeline.transformer.compile_repeated_blocks(**kit.chosen({}, {"backend": "eager"}))
            draw(side, name="compiled", factors=("compile",))
        else:
            kit.leave_out("Qwen-Image: compiled", "no time was left")


def qwen_image_edit(kit: Kit) -> None:
    """The editor Qwen-Image-Edit."""
    from viper.engines.qwen_image_edit import SHOWN_PIXELS, QwenImageEditor
    from viper.spec.engines import EditingSettings

    directory = shapes.pipeline("qwen-image-edit", kit.scratch / "qwen-image-edit", tiny=kit.tiny)
    side, steps = kit.chosen(1024, 64), kit.chosen(4, 2)
    base = EditingSettings(steps=steps, dtype=_dtype(kit), max_pixels=side * side)
    original = picture(*kit.chosen((1536, 1152), (64, 64)))
    with random_weights(kit.device):
        pipeline = QwenImageEditor(directory, kit.device, base)._pipeline
        run = _Runs(kit, directory, "edit", "qwen-image-edit", "Qwen-Image-Edit", shown=SHOWN_PIXELS)
        for changes in kit.chosen(({}, {"guidance": 1.0}, {"steps": 12}), ({}, {"guidance": 1.0})):
            settings = base.model_copy(update=changes)
            engine = QwenImageEditor(directory, kit.device, settings)
            engine.__dict__["_pipeline"] = pipeline
            run(lambda e=engine: _drawn(e.edit([original], [_INSTRUCTION], [1])[0]), settings, side)


def klein(kit: Kit) -> None:
    """FLUX.2-klein-4B, distilled to few steps without guidance, as reconstructor and as editor; by diffusers itself."""
    import diffusers
    import torch

    from viper.spec.engines import DiffusionSettings

    directory = shapes.pipeline("flux.2-klein-4b", kit.scratch / "klein", tiny=kit.tiny)
    original = picture(*kit.chosen((1024, 768), (64, 64)))
    with random_weights(kit.device):
        pipeline = diffusers.Flux2KleinPipeline.from_pretrained(
            directory, torch_dtype=getattr(torch, _dtype(kit)), local_files_only=True
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(kit.device)
        used = kit.used()
        for work, sides in (
            ("reconstruct", kit.chosen((1024, 512, 1536), (64, 32))),
            ("edit", kit.chosen((1024,), (64,))),
        ):
            run = _Runs(kit, directory, work, "flux2_klein", "FLUX.2-klein-4B", weights=used)
            for side in sides:
                settings = DiffusionSettings(steps=kit.chosen(4, 2), guidance=1.0, dtype=_dtype(kit))
                asked = {"prompt": _INSTRUCTION, "image": original} if work == "edit" else {"prompt": words.CAPTION}
                asked |= {"height": side, "width": side, "num_inference_steps": settings.steps, "guidance_scale": 1.0}
                run(lambda given=asked: pipeline(**given, output_type="pt").images, settings, side, repetitions=3)


def _dtype(kit: Kit) -> str:
    """CPUs take many times as long for bfloat16."""
    return "bfloat16" if kit.cuda else "float32"


class _Runs:
    """Names and settings of the figures of one pipeline."""

    def __init__(
        self,
        kit: Kit,
        directory: Any,
        work: str,
        engine: str,
        called: str,
        *,
        shown: int = 0,
        weights: int | None = None,
    ) -> None:
        self._kit, self._directory, self._work, self._engine = kit, directory, work, engine
        self._called, self._shown = called, shown
        self._weights = kit.used() if weights is None else weights

    def __call__(
        self,
        draw: Callable[[], object],
        settings: Any,
        side: int,
        *,
        name: str = "",
        repetitions: int = 2,
        warm: int = 1,
        factors: tuple[str, ...] = (),
    ) -> None:
        from viper.engines.diffusion_files import memory_plan

        pixels, guided = side * side, settings.guidance > 1
        passes = "with guidance" if guided else "without guidance"
        verb = f"{self._work}, " if self._engine == "flux2_klein" else ""
        self._kit.measure(
            f"{self._called}: {verb}{side}², {settings.steps} steps, {passes}" + (f", {name}" if name else ""),
            f"one image in {settings.dtype}, text encoding and decoding included",
            draw,
            repetitions=repetitions,
            warm=warm,
            most="low" if "cache" in factors else "high",
            why=_REUSE if "cache" in factors else "",
            rate={
                **{"work": self._work, "engine": self._engine, "steps": settings.steps, "passes": 1 + guided},
                **{"megapixels": pixels / 1e6, "factors": list(factors)},
            },
            memory={
                "interface": "editor" if self._work == "edit" else "reconstructor",
                **{"engine": self._engine, "model": self._called, "weights": self._weights},
                "planned": memory_plan(self._directory, settings, pixels + self._shown),
            },
        )


def _drawn(result: Any) -> None:
    """Refuses what failed; random weights may well make values that are not numbers, in the same time."""
    if result.note and "not numbers" not in result.note:
        raise RuntimeError(result.note)


class _first_block_cache:  # noqa: N801 (used as a context)
    """The first-block cache with a threshold of its own, off again afterwards."""

    def __init__(self, pipeline: Any, threshold: float) -> None:
        self._transformer, self._threshold = pipeline.transformer, threshold

    def __enter__(self) -> None:
        from diffusers import FirstBlockCacheConfig

        self._transformer.enable_cache(FirstBlockCacheConfig(threshold=self._threshold))

    def __exit__(self, *_: object) -> None:
        self._transformer.disable_cache()
