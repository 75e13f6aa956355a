"""Model directories of the real shapes, in the layouts in which models are published, without their weights.

`shapes/*.json` has the configurations and where each is from. The files of weights have true headers and a hole where
the numbers would be: they take no room on the disk, and the engines read sizes from them as from any other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu import words

_FOLDER = Path(__file__).parent / "shapes"
_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "int64": "I64", "bool": "BOOL"}


def shape(name: str) -> dict[str, Any]:
    """The content of `shapes/NAME.json`."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the fields of `changes`, maps field by field."""
    both = dict(config)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def _config(entry: Mapping[str, Any], tiny: bool) -> dict[str, Any]:
    return merged(entry["config"], entry.get("tiny", {})) if tiny else dict(entry["config"])


def language_model(name: str, directory: Path, *, tiny: bool, alone: bool = True) -> Path:
    """A Qwen2.5-VL in Hugging Face layout; `alone`: with tokenizer and processor."""
    import transformers

    entry = shape(name)
    config = _config(entry, tiny)
    made = words.tokenizer(config["text_config"]["vocab_size"])
    ids = {token: made.convert_tokens_to_ids(token) for token in words.SPECIAL}
    named = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    ends = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    cls = getattr(transformers, entry["class"])
    _save_transformers(cls, merged(config, {**named, "text_config": ends}), directory)
    words.save_generation_config(directory, made)
    if alone:
        words.processor(made, tiny=tiny).save_pretrained(directory)
    return directory


def sentence_model(name: str, directory: Path, *, tiny: bool) -> Path:
    """An XLM-RoBERTa in BGE-M3's layout."""
    import transformers

    entry = shape(name)
    config = _config(entry, tiny)
    _save_transformers(getattr(transformers, entry["class"]), config, directory, dtype="float32")
    words.sentence_tokenizer(config["vocab_size"]).save_pretrained(directory)
    return directory


def clip_model(name: str, directory: Path, *, tiny: bool) -> Path:
    """An open_clip model in open_clip's own layout."""
    import open_clip
    import torch

    entry = shape(name)
    model_cfg = merged(entry["model_cfg"], entry["tiny"]) if tiny else entry["model_cfg"]
    content = {"model_cfg": model_cfg, "preprocess_cfg": entry["preprocess_cfg"]}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "open_clip_config.json").write_text(json.dumps(content), "utf-8")
    with torch.device("meta"):
        model = open_clip.CLIP(**{**model_cfg, "output_dict": False})
    save_header(model, directory / "open_clip_model.safetensors", "float32")
    return directory


def pipeline(name: str, directory: Path, *, tiny: bool) -> Path:
    """A pipeline in diffusers' layout."""
    import diffusers
    import transformers

    entry = shape(name)
    index: dict[str, Any] = {"_class_name": entry["class"], "_diffusers_version": diffusers.__version__}
    index |= entry.get("settings", {})
    vocabulary = 152_064
    for component, part in entry["components"].items():
        library = diffusers if hasattr(diffusers, part["class"]) else transformers
        cls, config, folder = getattr(library, part["class"]), _config(part, tiny), directory / component
        index[component] = [library.__name__, part["class"]]
        if library is transformers:
            vocabulary = config["vocab_size"]
            _save_transformers(cls, config, folder)
        elif component == "scheduler":
            cls.from_config(config).save_pretrained(folder)
        else:
            _save_diffusers(cls, config, folder)
    if language := entry.get("language"):
        language_model(language, directory / "text_encoder", tiny=tiny, alone=False)
        vocabulary = _config(shape(language), tiny)["text_config"]["vocab_size"]
        index["text_encoder"] = ["transformers", shape(language)["class"]]
    made = words.tokenizer(vocabulary)
    made.save_pretrained(directory / "tokenizer")
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    if entry.get("processor"):
        words.processor(made, tiny=tiny).save_pretrained(directory / "processor")
        index["processor"] = ["transformers", "Qwen2_5_VLProcessor"]
    (directory / "model_index.json").write_text(json.dumps(index, indent=1), "utf-8")
    return directory


def _save_transformers(cls: Any, config: Mapping[str, Any], directory: Path, dtype: str = "bfloat16") -> None:
    import torch

    made = cls.config_class(**config)
    made.architectures = [cls.__name__]
    made.dtype = dtype
    directory.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(directory)
    with torch.device("meta"):
        model = cls(made)
    save_header(model, directory / "model.safetensors", dtype)


def _save_diffusers(cls: Any, config: Mapping[str, Any], directory: Path) -> None:
    import torch

    with torch.device("meta"):
        model = cls.from_config(config)
    model.save_config(directory)
    save_header(model, directory / "diffusion_pytorch_model.safetensors", "bfloat16")


def save_header(model: Any, file: Path, dtype: str) -> int:
    """Writes a safetensors file with the names and shapes of a model and a hole for its numbers; returns its bytes.

    Floating tensors get `dtype`. Weights that are one tensor under two names are written once.
    """
    import torch

    header, place, seen = {}, 0, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        kind = getattr(torch, dtype) if tensor.is_floating_point() else tensor.dtype
        size = tensor.numel() * kind.itemsize
        written = _NAMES[str(kind).removeprefix("torch.")]
        header[name] = {"dtype": written, "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + place)
    return place
