"""What the engines over diffusers' pipelines share: loading, settings, seeds, memory, and how samples fail."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

from PIL import Image

from viper.engines.diffusion_files import check_pipeline, lora_file, lora_id, lora_scheduler, memory_plan, weights_plan
from viper.engines.memory import Batches, empty_cache, out_of_memory
from viper.engines.weights import weights_id
from viper.errors import EngineError, InputError, SpecError
from viper.spec.engines import DiffusionSettings

S = TypeVar("S", bound=DiffusionSettings)
T = TypeVar("T")
log = logging.getLogger(__name__)

#: Seeds of torch generators are 64 bits.
_SEEDS: Final = 2**63
_ADAPTER: Final = "viper"


def working_size(size: tuple[int, int], pixels: int | None, multiple: int) -> tuple[int, int]:
    """(width, height) of the aspect of `size` and an area of about `pixels` (None: its own), in whole multiples."""
    width, height = size
    scale = 1.0 if pixels is None else math.sqrt(pixels / (width * height))
    return max(1, round(width * scale / multiple)) * multiple, max(1, round(height * scale / multiple)) * multiple


class DiffusionEngine(Generic[S]):
    """A pipeline of diffusers behind an interface of ours. It is loaded at the first image.

    Args:
        directory: in diffusers' layout, with safetensors.
        device: a torch device.
        settings: how it runs.

    Raises `InputError` when the directory is not such a pipeline, or the LoRA is not one file of safetensors.
    """

    #: Pipeline classes that the engine runs.
    classes: ClassVar[tuple[str, ...]]
    #: The engine's name, and the field path of its settings.
    name: ClassVar[str]
    where: ClassVar[str]
    #: What else helps when memory is short.
    remedy: ClassVar[str] = "set offload to model or sequential, or tiledDecoding to true"

    def __init__(self, directory: Path, device: str, settings: S) -> None:
        self._directory, self._device, self._settings = Path(directory), device, settings
        self._class = check_pipeline(self._directory, self.classes)
        if settings.lora:
            lora_file(Path(settings.lora))
        self._batches = Batches(self._batch_size(), f"{self.where}.batch", self.remedy)

    def _batch_size(self) -> int:
        return self._settings.batch

    @staticmethod
    def _plan(directory: Path, settings: DiffusionSettings, pixels: int, images: int) -> int:
        return memory_plan(Path(directory), settings, pixels, images)

    @classmethod
    def weights_needed(cls, directory: Path, settings: DiffusionSettings) -> int:
        """Bytes of `memory_needed` that weights take (`diffusion_files.weights_plan`)."""
        return weights_plan(Path(directory), settings)

    @cached_property
    def engine_id(self) -> str:
        """Name / version of diffusers / weights digest, then the settings that change pixels."""
        return f"{self.name}/{version('diffusers')}/{weights_id(self._directory)} {' '.join(self._traits())}"

    def _traits(self) -> list[str]:
        chosen = self._settings
        guided = chosen.guidance > 1
        traits = [f"steps={chosen.steps}", f"guidance={chosen.guidance if guided else 1:g}", f"dtype={chosen.dtype}"]
        if guided and chosen.negative_prompt.strip():
            traits.append(f"negative={sha256(chosen.negative_prompt.encode()).hexdigest()[:8]}")
        if chosen.lora:
            traits.append(f"lora={lora_id(Path(chosen.lora))}*{chosen.lora_scale:g}")
        if chosen.cache != "none":
            traits.append(f"cache={chosen.cache}:{chosen.cache_threshold:g}")
        if chosen.tiled_decoding:
            traits.append("tiled")
        return traits

    @cached_property
    def _pipeline(self) -> Any:
        import diffusers
        import torch
        from safetensors import SafetensorError

        chosen = self._settings
        cls: Any = getattr(diffusers, self._class)
        try:
            pipeline = cls.from_pretrained(
                self._directory, dtype=getattr(torch, chosen.dtype), use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"diffusers cannot read the model: {error}", where=str(self._directory)) from error
        pipeline.set_progress_bar_config(disable=True)
        if chosen.lora:
            self._add_lora(pipeline, Path(chosen.lora))
        if chosen.steps == 1 and pipeline.scheduler.config.get("shift_terminal"):
            raise SpecError(
                "with a single step this model's scheduler divides zero by zero (shift_terminal)",
                where=f"{self.where}.steps",
                fix="take at least 2 steps, or weights that bring a scheduler of their own",
            )
        if chosen.cache == "firstBlock":
            steps: Any = diffusers.FirstBlockCacheConfig
            pipeline.transformer.enable_cache(steps(threshold=chosen.cache_threshold))
        if chosen.tiled_decoding:
            pipeline.vae.enable_tiling()
        if chosen.compile:
            # Block by block: the same kernels, a tenth of the time that compiling the whole takes.
            pipeline.transformer.compile_repeated_blocks()
        try:
            self._place(pipeline)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise EngineError(
                f"the model does not fit into the memory of {self._device}: {str(error).splitlines()[0]}",
                where=f"{self.where}.offload",
                fix=self.remedy,
            ) from None
        return pipeline

    def _add_lora(self, pipeline: Any, place: Path) -> None:
        file = lora_file(place)
        try:
            pipeline.load_lora_weights(
                str(file.parent),
                weight_name=file.name,
                adapter_name=_ADAPTER,
                use_safetensors=True,
                local_files_only=True,
            )
            pipeline.set_adapters([_ADAPTER], [self._settings.lora_scale])
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            raise InputError(
                f"these LoRA weights do not fit {self._class}: {str(error).splitlines()[0]}",
                where=str(file),
                fix=f"give weights for this model in {self.where}.lora",
            ) from error
        if (config := lora_scheduler(place)) is not None:
            pipeline.scheduler = type(pipeline.scheduler).from_config(config)

    def _place(self, pipeline: Any) -> None:
        if self._settings.offload == "model":
            pipeline.enable_model_cpu_offload(device=self._device)
        # accelerate 1.15 cannot offload layers from the CPU to the CPU, where nothing would be gained.
        elif self._settings.offload == "sequential" and self._device != "cpu":
            pipeline.enable_sequential_cpu_offload(device=self._device)
        else:
            pipeline.to(self._device)

    def close(self) -> None:
        """Drops the pipeline and gives its memory back."""
        pipeline = self.__dict__.pop("_pipeline", None)
        if pipeline is not None and self._settings.offload != "none":
            pipeline.remove_all_hooks()
        del pipeline
        empty_cache()

    def _run(self, items: Sequence[T], seeds: Sequence[int], **arguments: Any) -> list[Image.Image | str]:
        """Calls the pipeline once; per item an image, or a note that says why there is none.

        Generators live on the CPU: a seed gives the same noise on every device.
        """
        import torch

        generators = [torch.Generator().manual_seed(seed % _SEEDS) for seed in seeds]
        guided = self._settings.guidance > 1
        pipeline = self._pipeline
        try:
            made = pipeline(
                **arguments,
                negative_prompt=[self._settings.negative_prompt] * len(items) if guided else None,
                true_cfg_scale=max(1.0, self._settings.guidance),
                num_inference_steps=self._settings.steps,
                generator=generators if len(items) > 1 else generators[0],
                output_type="pt",
            ).images
        finally:
            # A call that broke off would leave the cache of its steps to the next image.
            pipeline.transformer._reset_stateful_cache()
        return [_image(one) for one in made.float().cpu()]

    def _each(self, items: Sequence[T], work: Callable[[Sequence[T]], list[Image.Image | str]]) -> list[Any]:
        """`work` on all items in batches that fit; a batch that fails is tried item by item, what fails alone is noted.

        Raises `EngineError` when one item alone does not fit into memory, or the device itself is in error.
        """

        def guarded(batch: Sequence[T]) -> list[Image.Image | str]:
            try:
                return work(batch)
            except (ValueError, RuntimeError) as error:
                if out_of_memory(error):
                    raise
                if type(error).__name__ == "AcceleratorError":
                    raise EngineError(
                        f"the device failed: {str(error).splitlines()[0]}",
                        where=self.name,
                        fix="run the pod again; `viper doctor` checks the driver",
                    ) from error
                if len(batch) == 1:
                    log.warning("%s: no image: %s", self.name, error)
                    return [f"the model failed: {str(error).splitlines()[0]}"]
            return [result for item in batch for result in guarded([item])]

        return self._batches.run(items, guarded)


def _image(values: Any) -> Image.Image | str:
    """The picture of a tensor (3, height, width) between 0 and 1, or what is wrong with it."""
    import torch

    if not bool(torch.isfinite(values).all()):
        return "the model produced values that are not numbers (NaN): decoding failed"
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels, "RGB")
