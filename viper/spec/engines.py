"""Which implementation stands behind each interface, and how it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from viper.spec.base import SpecModel, setting
from viper.spec.forms import ENGINE, LORA, SERVER, TEXT, WORD
from viper.spec.recipe import OURS

#: Longest name of an engine, with the place of its model; a URI fits.
ENGINE_LENGTH = 1024
_ENGINE: dict[str, Any] = {"min_length": 1, "max_length": ENGINE_LENGTH, "forms": ENGINE}
_VLM = {**_ENGINE, "forms": (SERVER, *ENGINE)}


class GenerationSettings(SpecModel):
    """How vision-language models run, wherever one writes text. Fields that an engine has no use for change nothing."""

    max_model_tokens: int = setting(
        16384, unit="tokens", source=OURS, ge=256, le=1_048_576, description="Prompt, images and output together."
    )
    min_pixels: int | None = setting(
        None,
        unit="px",
        source=OURS,
        ge=784,
        le=2**31 - 1,
        description="Smaller images are enlarged to this area; null: the model's.",
    )
    max_pixels: int | None = setting(
        None,
        unit="px",
        source=OURS,
        ge=784,
        le=2**31 - 1,
        description="Larger images are reduced to this area; null: the model's.",
    )
    max_images: int = setting(
        2,
        unit="images",
        source=OURS,
        ge=1,
        le=64,
        description="Most images of one request that vLLM reserves memory for; benchmarks take at least 8.",
    )
    batch: int = setting(
        256, unit="requests", source=OURS, ge=1, le=4096, description="Requests that are worked on at once."
    )
    memory_share: float = setting(
        0.9, source=OURS, gt=0, le=1, description="Share of the GPU that vLLM takes for weights and cache."
    )
    tensor_parallel: int = setting(1, unit="GPUs", source=OURS, ge=1, le=64, description="GPUs that one model spans.")
    timeout_seconds: float = setting(
        600.0, unit="s", source=OURS, gt=0, le=86400, description="Longest wait for one answer of an endpoint."
    )


class DiffusionSettings(SpecModel):
    """How a diffusion model runs."""

    steps: int = setting(50, source=OURS, ge=1, le=1000, description="Denoising steps.")
    guidance: float = setting(
        4.0,
        source=OURS,
        ge=0,
        le=100,
        description="Classifier-free guidance on the text; up to 1 is off, at half the cost.",
    )
    negative_prompt: str = setting(
        " ", source=OURS, max_length=4096, forms=(TEXT,), description="What to keep away from."
    )
    batch: int = setting(
        1, unit="images", source=OURS, ge=1, le=256, description="Images at once; halved when memory does not suffice."
    )
    dtype: Literal["bfloat16", "float16", "float32"] = setting("bfloat16", source=OURS, description="Type of weights.")
    lora: str | None = setting(
        None,
        source=OURS,
        min_length=1,
        max_length=ENGINE_LENGTH,
        forms=LORA,
        description="Directory or URI of LoRA weights (safetensors), such as those of a model distilled to few steps.",
    )
    lora_scale: float = setting(1.0, source=OURS, ge=-10, le=10, description="Weight of the LoRA.")
    cache: Literal["none", "firstBlock"] = setting(
        "none", source=OURS, description="Reuse of transformer blocks' outputs between steps: faster, less exact."
    )
    cache_threshold: float = setting(
        0.08, source=OURS, gt=0, le=1, description="Relative change of the first block up to which the rest is reused."
    )
    offload: Literal["none", "model", "sequential"] = setting(
        "none", source=OURS, description="Keep parts that are not at work in host memory: whole models, or layers."
    )
    tiled_decoding: bool = setting(False, source=OURS, description="Decode in tiles: less memory for large images.")
    compile: bool = setting(False, source=OURS, description="Compile the transformer (minutes at the start).")


class EditingSettings(DiffusionSettings):
    """How the editor runs."""

    image_guidance: float = setting(
        2.0,
        source=OURS,
        ge=0,
        le=100,
        description="Guidance on the original image, where the editor has it (OmniGen2).",
    )
    max_pixels: int = setting(
        1_048_576,
        unit="px",
        source=OURS,
        ge=1024,
        le=2**31 - 1,
        description="Area that is edited; larger originals are scaled.",
    )


class VerlSettings(SpecModel):
    """How the trainer `verl` uses the machine. What is learnt stands in the recipe; other trainers do not read this."""

    strategy: Literal["fsdp2", "fsdp"] = setting("fsdp2", source=OURS, description="How weights are sharded.")
    dtype: Literal["bfloat16", "float32"] = setting(
        "bfloat16", source=OURS, description="Type of forward and backward passes; weights and optimiser are float32."
    )
    param_offload: bool = setting(False, source=OURS, description="Keep weights in host memory while sampling.")
    optimizer_offload: bool = setting(False, source=OURS, description="Keep AdamW's state in host memory.")
    gradient_checkpointing: bool = setting(
        True, source=OURS, description="Compute activations twice instead of keeping them."
    )
    attention: Literal["sdpa", "flash_attention_2", "eager"] = setting(
        "sdpa",
        source=OURS,
        description="Attention of the trained model; `flash_attention_2` packs outputs without padding and needs the "
        "package flash-attn in the image.",
    )
    tokens_per_gpu: int | None = setting(
        None,
        unit="tokens",
        source=OURS,
        ge=256,
        le=4_194_304,
        description="Instead of the recipe's `microBatch`: as many outputs per pass as fit into this many tokens.",
    )
    rollout: str = setting(
        "vllm",
        source=OURS,
        min_length=1,
        max_length=64,
        forms=(WORD,),
        description="verl's rollout engine: vllm, sglang, or what a plug-in of verl registers.",
    )
    rollout_memory_share: float = setting(
        0.5, source=OURS, gt=0, lt=1, description="Share of the GPU that the rollout engine takes."
    )
    rollout_tensor_parallel: int = setting(
        1, unit="GPUs", source=OURS, ge=1, le=64, description="GPUs that one copy of the model spans while sampling."
    )
    workers: int = setting(
        8, unit="processes", source=OURS, ge=1, le=256, description="Processes that prepare prompts, and that score."
    )
    dual_clip: float | None = setting(
        3.0,
        source="verl's default, in force in the paper's runs too; not in equation 8",
        gt=1,
        le=1e9,
        description="Bound on the ratio of outputs with a negative advantage; null is equation 8 to the letter.",
    )
    stall_seconds: int = setting(
        3600,
        unit="s",
        source=OURS,
        ge=30,
        le=604_800,
        description="A run without progress for this long is stopped and goes on from its last checkpoint.",
    )
    overrides: dict[str, Annotated[str, StringConstraints(max_length=4096), TEXT]] = setting(
        dict,
        source=OURS,
        max_length=64,
        description="Further verl settings, key to value in Hydra's words; what the recipe or other fields decide "
        "cannot be among them.",
    )


class Engines(SpecModel):
    """Engines by name (`viper.engines.factory`), one per interface.

    A name, a name with the place of its model (`qwen-image:hf://Qwen/Qwen-Image`, `open-clip:/models/clip`), or
    `module:Class` for an engine of one's own.
    """

    vlm: str = setting(
        "transformers", **_VLM, description="VisionLanguageModel for captions, critiques, proposals, judging."
    )
    reconstructor: str = setting(**_ENGINE, description="Reconstructor (the paper: Qwen-Image).")
    editor: str = setting(**_ENGINE, description="Editor (the paper: OmniGen2).")
    similarity: str = setting(**_ENGINE, description="SimilarityModel of the reward (the paper: BGE-M3).")
    image_similarity: str = setting(**_ENGINE, description="ImageSimilarityModel of the CLIP filter.")
    trainer: str = setting("trl", **_ENGINE, description="Trainer (the paper: verl).")
    generation: GenerationSettings = setting(GenerationSettings, source=OURS, description="How `vlm` runs.")
    reconstruction: DiffusionSettings = setting(DiffusionSettings, source=OURS, description="How `reconstructor` runs.")
    editing: EditingSettings = setting(EditingSettings, source=OURS, description="How `editor` runs.")
    training: VerlSettings = setting(VerlSettings, source=OURS, description="How `trainer: verl` runs.")

    def of(self, interface: str) -> str:
        """The engine behind an interface, by the interface's name in a file (`imageSimilarity`)."""
        fields = {field.alias: name for name, field in type(self).model_fields.items()}
        return str(getattr(self, fields[interface] or interface))
