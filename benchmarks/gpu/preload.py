"""What the parts' server imports once. What it cannot import is left to the part that needs it, and to its message."""

from __future__ import annotations

import contextlib
import importlib

MODULES = (
    "torch",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "transformers.models.xlm_roberta.modeling_xlm_roberta",
    "transformers.models.qwen3.modeling_qwen3",
    "viper.engines.transformers_vlm",
    "viper.training.local.policy",
    "diffusers.pipelines.qwenimage.pipeline_qwenimage",
    "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit",
    "diffusers.pipelines.flux2.pipeline_flux2_klein",
    "open_clip",
    "FlagEmbedding",
    "viper.training.local.trl_loss",
)
for _name in MODULES:
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
