"""Checkpoints of a training run: safetensors and JSON, published by one rename, and append-only logs cut back to them.

Layout of a work directory:

    checkpoints/step-000040/   model.safetensors, optimizer.safetensors, state.json (the newest one is kept)
    candidates/step-000040/    a whole model directory that held-out selection may choose
    metrics.jsonl rollouts.jsonl   one row per step / per output, never beyond the checkpoint after a resume
    model/                     the result, Hugging Face layout
    result.json                written last: the run is complete
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from viper.errors import StageError, StoreError
from viper.stored import check_form, enveloped, read_object


def weights_digest(model_dir: Path) -> str:
    """sha256 over names and bytes of a directory's safetensors, hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write (disk full, read-only) into a `StoreError` that says where."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"the training state cannot be written: {error}",
            where=str(path),
            fix="free space or repair the disk, then run again: the last checkpoint is intact",
        ) from error


def check_own(state: Mapping[str, Any], fingerprint: str, where: Path) -> None:
    """Raises `StageError` when what a work directory holds was left by a run that was started with something else,
    `NewerFormError` when a later release left it."""
    check_form(state, what=_STATE, where=str(where), error=StageError)
    if state.get("fingerprint") != fingerprint:
        raise StageError(
            "this directory holds a run with other settings, data or starting model",
            where=str(where),
            fix="give an empty work directory, or the settings the run was started with",
        )


def read_state(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself in its `state.json`, which may have come from the store: its counts are counts,
    its scores numbers by step.

    Raises `StageError` when it is something else, `OSError`.
    """
    state = read_object(path.read_bytes(), what=_STATE, where=str(path), error=StageError, fix=_STATE_FIX)
    scores = state.get("scores", {})
    counted = [state.get("step"), state.get("metrics"), state.get("rollouts", 0)]
    if not all(map(_is_count, counted)) or not isinstance(scores, dict) or not all(map(_is_score, scores.items())):
        raise StageError(f"is not {_STATE}: its counts or scores are none", where=str(path), fix=_STATE_FIX)
    return state


_STATE = "the state of a training"
_STATE_FIX = "restore the folder from a copy, or run the iteration under another name; what is there stays"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_score(item: tuple[str, Any]) -> bool:
    step, score = item
    return re.fullmatch("[0-9]{1,12}", step) is not None and isinstance(score, int | float) and math.isfinite(score)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is either whole or absent."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def publish(temporary: Path, target: Path) -> None:
    """Makes a finished directory appear under its name at once; an older one of that name is replaced."""
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)


class Checkpoints:
    """The checkpoints of one work directory; `fingerprint` names what the run was started with."""

    def __init__(self, work_dir: Path, fingerprint: str) -> None:
        self.root = work_dir / "checkpoints"
        self.fingerprint = fingerprint
        self.root.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, model: Any, optimizer: Any, state: Mapping[str, Any]) -> None:
        """Publishes the checkpoint of `step`, then removes older ones; `StoreError` when it cannot be written."""
        with writing(self.root):
            self._save(step, model, optimizer, state)

    def _save(self, step: int, model: Any, optimizer: Any, state: Mapping[str, Any]) -> None:
        from safetensors.torch import save_file, save_model

        temporary = self.root / ".writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_model(model, str(temporary / "model.safetensors"))
        tensors = {
            f"{index}.{name}": value.clone()
            for index, entry in optimizer.state_dict()["state"].items()
            for name, value in entry.items()
        }
        save_file(tensors, str(temporary / "optimizer.safetensors"))
        write_json(temporary / "state.json", enveloped({**state, "step": step, "fingerprint": self.fingerprint}))
        publish(temporary, self.root / f"step-{step:06d}")
        for old in self.root.glob("step-*"):
            if old.name < f"step-{step:06d}":
                shutil.rmtree(old)

    def load(self, model: Any, optimizer: Any) -> dict[str, Any] | None:
        """Restores the newest checkpoint into model and optimiser and returns its state; None when there is none.

        Raises:
            StageError: when the checkpoint belongs to a run with other settings, data or model.
        """
        from safetensors.torch import load_file, load_model

        found = sorted(p for p in self.root.glob("step-*") if re.fullmatch("step-[0-9]{6,12}", p.name))
        if not found:
            return None
        state = read_state(found[-1] / "state.json")
        check_own(state, self.fingerprint, found[-1])
        load_model(model, str(found[-1] / "model.safetensors"))
        entries: dict[int, dict[str, Any]] = {}
        for name, value in load_file(str(found[-1] / "optimizer.safetensors")).items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        # What had gradients before has them now, of zero: in a step without any signal AdamW goes on by its momentum,
        # and leaves out what has none.
        for parameter in optimizer.state:
            parameter.grad = parameter.new_zeros(parameter.shape)
        return state


class Log:
    """An append-only JSONL file. `size` goes into the checkpoint; opening with it drops what was written after."""

    def __init__(self, path: Path, size: int) -> None:
        path.touch()
        if path.stat().st_size < size:
            raise StageError(
                f"the log has {path.stat().st_size} bytes, its checkpoint counted {size}",
                where=str(path),
                fix="the file was changed by hand; start again in an empty work directory",
            )
        os.truncate(path, size)
        self._path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    @property
    def size(self) -> int:
        """Bytes on disk after a flush and sync."""
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._path.stat().st_size

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows and hands them to the operating system."""
        with writing(self._path):
            self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def rows(self) -> list[dict[str, Any]]:
        """All rows, from the first step on; raises `StageError` where one is none."""
        what = "a row of a training's log"
        lines = self._path.read_bytes().splitlines()
        return [
            read_object(line, what=what, where=f"{self._path}:{number}", error=StageError, fix=_STATE_FIX)
            for number, line in enumerate(lines, 1)
        ]
