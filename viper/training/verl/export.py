"""From verl's checkpoint to a model directory that every engine loads, and the proof that nothing was lost on the way.

verl converts its shards while it saves (`hf_model`), in float32. The stage's model has the files of the model it
started from (configuration, tokenizer, processor), the converted weights, and their type. Whether the conversion is
right is asked of verl's own merger, which reads the shards a second way.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from viper.errors import StageError
from viper.store.transfer import MANIFEST
from viper.training.local.checkpoints import publish, writing

INDEX = "model.safetensors.index.json"


def export_model(start: Path, converted: Path, target: Path) -> None:
    """Writes the model directory; it is whole or absent.

    Args:
        start: the model the run started from.
        converted: verl's `huggingface` folder; `start` itself where no step was better, which is copied as it is.
        target: the new directory.
    """
    temporary = target.with_name(f".{target.name}.writing")
    with writing(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file in sorted(start.iterdir()):
            wanted = converted == start or not _is_weights(file.name)
            if file.is_file() and wanted and file.name != MANIFEST:
                shutil.copyfile(file, temporary / file.name)
        if converted != start:
            _copy_weights(converted, temporary, common_dtype(start))
        publish(temporary, target)


def common_dtype(model: Path) -> str:
    """The type of most of a model's floating-point weights, as torch names it (`bfloat16`)."""
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    count: Counter[str] = Counter()
    for name, file in _files(model).items():
        piece = file.get_slice(name)
        if (kind := names.get(piece.get_dtype())) is not None:
            count[kind] += prod(piece.get_shape())
    return count.most_common(1)[0][0]


def compare_with_shards(model: Path, merged: Path) -> None:
    """Compares a model with what verl's merger made of the shards, which is bfloat16 always.

    Raises:
        StageError: a weight is missing on either side, or differs by more than that rounding.
    """
    import torch

    ours, theirs = _files(model), _files(merged)
    if problem := ", ".join(sorted(ours.keys() ^ theirs.keys())[:4]):
        raise StageError(
            f"the converted model and verl's shards do not have the same weights: {problem}", where=str(model)
        )
    for name, file in ours.items():
        a, b = (x.get_tensor(name).to(torch.bfloat16) for x in (file, theirs[name]))
        if a.shape != b.shape or not torch.equal(a, b):
            raise StageError(
                f"the converted model does not have the weights of verl's shards: {name}",
                where=str(model),
                fix="run the stage again; if it happens again, verl's conversion is wrong for this model",
            )


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt", ".pth")) or name == INDEX


def _files(folder: Path) -> dict[str, Any]:
    """The open file of every tensor of a directory, by the tensor's name; tensors are read when they are asked for."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file: Any = safe_open(str(path), framework="pt")
        found |= dict.fromkeys(file.keys(), file)
    return found


def _copy_weights(converted: Path, target: Path, dtype: str) -> None:
    total = sum(_cast(file, target / file.name, dtype) for file in sorted(converted.glob("*.safetensors")))
    if (converted / INDEX).is_file():
        index = json.loads((converted / INDEX).read_text("utf-8"))
        index["metadata"] = {**index.get("metadata", {}), "total_size": total}
        (target / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True), "utf-8")


def _cast(source: Path, target: Path, dtype: str) -> int:
    """Copies one file of weights with its floating-point tensors as `dtype`; returns the bytes of its tensors."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    tensors = {k: v.to(wanted) if v.is_floating_point() else v for k, v in load_file(str(source)).items()}
    save_file(tensors, str(target), metadata={"format": "pt"})
    return sum(t.numel() * t.element_size() for t in tensors.values())
