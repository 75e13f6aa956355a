"""A model directory whose weights are a pickle becomes one with safetensors: by hand, never on the way of a run."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from viper.errors import InputError, StoreError
from viper.modelcache.remotes import SUFFIXES

if TYPE_CHECKING:
    import torch

PICKLE = "pytorch_model.bin"
WEIGHTS = "model.safetensors"


def convert(source: Path, target: Path) -> str:
    """Writes `target`: the weights of `source/pytorch_model.bin` as `model.safetensors`, and its other harmless files.

    The pickle is read by torch's restricted reader, which builds tensors and calls nothing; what holds anything else is
    refused. What was written is read again and compared. `target` appears whole or not at all.

    Returns:
        SHA-256 of the pickle, to compare with what its publisher names.

    Raises:
        InputError: there is no such file, it is damaged or holds more than tensors, or `target` exists.
        StoreError: the disk is full.
    """
    pickled = source / PICKLE
    if not pickled.is_file():
        raise InputError(f"there is no {PICKLE}", where=str(source), fix="name the directory that holds it")
    if target.exists():
        raise InputError("exists already", where=str(target), fix="name a directory that is to be made")
    with pickled.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = _tensors(pickled)
    writing = target.with_name(f".{target.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(parents=True)
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES - {".safetensors"}:
                place = writing / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        _save(tensors, writing / WEIGHTS)
        writing.rename(target)
    except OSError as error:
        shutil.rmtree(writing, ignore_errors=True)
        raise StoreError(f"cannot be written: {error.strerror or error}", where=str(target)) from error
    return digest


def _tensors(pickled: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(pickled))
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"is damaged, or holds more than tensors: {str(error).splitlines()[0]}",
            where=str(pickled),
            fix="do not load it by other means: a pickle can run anything",
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise InputError("is no mapping of names to tensors", where=str(pickled))
    # safetensors stores every tensor by itself; views of one storage are taken apart.
    return {str(name): tensor.detach().clone().contiguous() for name, tensor in found.items()}


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save_file(tensors, path, metadata={"format": "pt"})
    written = load_file(path)
    if written.keys() != tensors.keys() or not all(torch.equal(written[n], t) for n, t in tensors.items()):
        raise StoreError("what was written is not what was read", where=str(path), fix="check the disk")
