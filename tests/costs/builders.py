"""Specifications and what is known beside them, for tests of costs."""

from __future__ import annotations

from typing import Any

from viper.costs.estimate import Circumstances
from viper.costs.items import Items, items_of
from viper.costs.measured import Measurements
from viper.costs.ranges import Range
from viper.costs.table import default_table
from viper.methods.stages import (
    INGEST,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
    StageNode,
    stage_graph,
)
from viper.spec import IterationSpec, ViperIteration
from viper.stage import FrozenIteration, Manifest, PartRecord, ResolvedModel
from viper.stage.frozen import Tracking

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


def node(one: IterationSpec, name: str) -> StageNode:
    return next(n for n in stage_graph(one.recipe) if n.name == name)


def counted(one: IterationSpec, acceptance: dict[str, Range], questions: int | None = None) -> dict[str, Items]:
    return items_of(one, stage_graph(one.recipe), acceptance, questions)


def known(measurements: Measurements | None = None, **fields: Any) -> Circumstances:
    return Circumstances(default_table(), measurements or Measurements(), **fields)


def frozen(one: IterationSpec | None = None, name: str = "it") -> FrozenIteration:
    model = ResolvedModel(uri="file:///model", digest="sha256:0")
    iteration = ViperIteration.model_validate(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": name},
            "spec": (one or spec()).dump(),
        }
    )
    tracking = Tracking(uri="sqlite:////none", parent_run="r")
    return FrozenIteration(
        iteration=iteration, generator=model, base=model, critic=model, judge=model, tracking=tracking
    )


def part(index: int, rows: int, accepted: int, seconds: float, **rejected: int) -> PartRecord:
    reasons = {k.replace("_", "-"): v for k, v in rejected.items()}
    return PartRecord(
        index=index, key=f"{index}", digest="d", rows=rows, accepted=accepted, rejected=reasons, seconds=seconds
    )


def manifest(stage: str, *parts: PartRecord, outside: float = 0.0, name: str = "it", **outputs: Any) -> Manifest:
    return Manifest.of_parts(
        stage=stage, iteration=name, identity="i", inputs={}, parts=parts, outputs=outputs, seconds=outside
    )
