"""Model directories in Hugging Face layout, as far as an engine asks before it loads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from viper.engines.weights import weights_size
from viper.errors import InputError

GIB = 2**30
_NEEDED = ("config.json", "*.safetensors", "tokenizer.json", "*processor_config.json")


def check_model_directory(directory: Path) -> None:
    """Raises `InputError` naming what a model directory lacks (configuration, safetensors, tokenizer, processor)."""
    if not directory.is_dir():
        raise InputError("there is no model directory", where=str(directory), fix="give the path of a saved model")
    missing = [pattern for pattern in _NEEDED if not any(directory.glob(pattern))]
    if missing:
        raise InputError(
            f"the model directory lacks {', '.join(missing)}",
            where=str(directory),
            fix="save model and processor together with save_pretrained(..., safe_serialization=True)",
        )


def cache_bytes_per_token(directory: Path) -> int:
    """Bytes of key-value cache that one token takes: 2 × layers × key-value heads × head size × bytes of a number.

    Read from `config.json`, where vision-language models have a `text_config` or all in one. Raises `InputError`.
    """
    place = directory / "config.json"
    try:
        whole: dict[str, Any] = json.loads(place.read_text("utf-8"))
        text = {**whole, **whole.get("text_config", {})}
        heads = text["num_attention_heads"]
        head_size = text.get("head_dim") or text["hidden_size"] // heads
        of_keys = text.get("num_key_value_heads") or heads
        wide = str(text.get("dtype") or text.get("torch_dtype") or whole.get("dtype")) == "float32"
        return int(2 * text["num_hidden_layers"] * of_keys * head_size * (4 if wide else 2))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"is not the configuration of a model: {error!r}", where=str(place)) from None


def planned_memory(directory: Path, tokens: int, devices: int = 1) -> int:
    """Bytes on each of `devices` for weights and a key-value cache of `tokens`, and 2 GiB for CUDA and activations."""
    return (weights_size(directory) + tokens * cache_bytes_per_token(directory)) // devices + 2 * GIB
