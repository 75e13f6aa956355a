"""Specifications and what is known beside them, for tests of costs."""

from __future__ import annotations

from typing import Any

from viper.costs.estimate import Circumstances
from viper.costs.measured import Measurements
from viper.costs.ranges import Range
from viper.costs.table import default_table
from viper.methods.stages import (
    INGEST,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
)
from viper.spec import IterationSpec

ENGINES = {
    "vlm": "vllm",
    "reconstructor": "qwen-image:hf://Qwen/Qwen-Image",
    "editor": "omnigen2:hf://OmniGen2/OmniGen2",
    "similarity": "bge-m3",
    "imageSimilarity": "open-clip",
    "trainer": "verl",
}
A100 = {
    "device": "cuda",
    "defaults": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}},
    "stages": {
        "synthesize-captions": {"shards": 8, "gpus": 1},
        "synthesize-operations": {"shards": 8, "gpus": 1},
        "validate-operations": {"shards": 8, "gpus": 1},
        "train-captions": {"gpus": 8},
        "train-operations": {"gpus": 8},
        "evaluate": {"gpus": 1},
    },
}
STAGES = (INGEST, SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS, SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS)


def spec(
    *,
    recipe: dict[str, Any] | None = None,
    engines: dict[str, Any] | None = None,
    profile: dict[str, Any] | None = None,
    images: dict[str, Any] | None = None,
    **fields: Any,
) -> IterationSpec:
    return IterationSpec.model_validate(
        {
            "model": "qwen-viper-7b",
            "generator": {"alias": "generator", "initialUri": "hf://Qwen/Qwen2.5-VL-7B-Instruct"},
            "images": {"uri": "s3://photographs", **(images or {})},
            "engines": {**ENGINES, **(engines or {})},
            "recipe": recipe or {},
            "profile": A100 if profile is None else profile,
            **fields,
        }
    )


def accepted(**shares: float) -> dict[str, Range]:
    """Exact acceptance, 1 where nothing is said."""
    return {stage: Range.of(shares.get(stage.replace("-", "_"), 1.0)) for stage in STAGES}


def known(measurements: Measurements | None = None, **fields: Any) -> Circumstances:
    return Circumstances(default_table(), measurements or Measurements(), **fields)
