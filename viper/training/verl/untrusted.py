"""What came from the store is data: before verl sees a checkpoint or a model, it is made sure that none of it is code.

verl reads its checkpoints with `torch.load(weights_only=False)`, which runs what a pickle says, and gives
`trust_remote_code=True` to the tokenizer in its reward loop. Whoever can write the store could run code in the pods of
the training. So each pickle of a checkpoint is first read by torch's restricted reader, which builds tensors and calls
nothing but what is on torch's list and the short one here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from viper.errors import InputError
from viper.modelcache.remotes import SUFFIXES

PICKLE = ".pt"
#: In a JSON file of a model: which Python file, or which repository, has the classes to use instead of the library's.
AUTO_MAP = "auto_map"
_CONFIGURATIONS = "*config.json"


def check_checkpoint(folder: Path) -> None:
    """Raises `InputError` unless every file below a checkpoint's folder is of a kind that runs nothing, and every
    pickle holds only numbers, text, containers and tensors, those of torch.distributed included. Links are refused:
    what lies behind one to a folder would not be looked at, and be loaded all the same.

    Nothing is executed and no tensor's data is read (the files are mapped).
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError("neither a file nor a folder of a checkpoint", where=str(path), fix=_REMEDY)
        if path.is_dir():
            continue
        if path.suffix == PICKLE:
            _check_pickle(path)
        elif path.suffix not in SUFFIXES:
            raise InputError(
                f"a file of the kind {path.suffix or 'without suffix'} does not belong to a checkpoint of verl",
                where=str(path),
                fix=_REMEDY,
            )


def check_model(folder: Path) -> None:
    """Raises `InputError` when a model directory holds Python files, or says that its classes are to be loaded."""
    for path in sorted(folder.rglob("*.py")):
        raise InputError("the model directory holds code", where=str(path), fix=_MODEL_REMEDY)
    for path in sorted(folder.glob(_CONFIGURATIONS)):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not JSON: {error}", where=str(path), fix="save the model again") from None
        if AUTO_MAP in _keys(content):
            raise InputError(f"asks for code to be loaded ({AUTO_MAP})", where=str(path), fix=_MODEL_REMEDY)


_REMEDY = (
    "do not load it: find out who else can write the store, then run the iteration under another name, whose training "
    "begins anew"
)
_MODEL_REMEDY = "use a model whose classes are those of the library (transformers), saved without code"


def _check_pickle(path: Path) -> None:
    import torch

    with _data_only():
        try:
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged file may raise anything; none of it was executed
            reason = str(error).strip().splitlines() or [type(error).__name__]
            named = next((line for line in reason if "GLOBAL" in line), reason[0]).strip()
            raise InputError(
                f"the checkpoint is damaged, or holds more than data: {named[:300]}", where=str(path), fix=_REMEDY
            ) from error


@contextmanager
def _data_only() -> Iterator[None]:
    """torch's own list (tensors, and with the import below those of torch.distributed), and NumPy's arrays, as which
    the state of its random numbers is kept."""
    import numpy as np
    import torch
    from torch.distributed.tensor import placement_types

    arrays: list[Any] = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]  # type: ignore[attr-defined]
    strided = getattr(placement_types, "_StridedShard", None)  # weights sharded in two dimensions
    with torch.serialization.safe_globals([*arrays, *([strided] if strided is not None else [])]):
        yield


def _keys(value: Any) -> Iterator[str]:
    """Every key of a JSON value, at any depth."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one
            left += one.values()
        elif isinstance(one, list):
            left += one
