"""verl's checkpoints: which are whole, which one a run continues from, which are kept.

Layout, verl's own (`trainer.default_local_dir`), with one file of ours:

    checkpoints/latest_checkpointed_iteration.txt
    checkpoints/global_step_40/data.pt
    checkpoints/global_step_40/actor/{model,optim,extra_state}_world_size_8_rank_0.pt … fsdp_config.json huggingface/
    checkpoints/global_step_40/state.json   ours: the step is in our logs, and these are the files it has

verl saves a step before it logs it, overwrites in place and knows only the newest. A checkpoint counts here when it is
whole and its step is in the log, finite: only then `state.json` is written, and only such a one is continued from.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from viper.errors import StageError
from viper.stored import enveloped, read_object
from viper.training.local.checkpoints import check_own, read_state, write_json, writing

STATE, TRACKER = "state.json", "latest_checkpointed_iteration.txt"
#: Whole checkpoints that stay: a damaged one then costs one save interval.
KEPT = 2
_CONFIG = "actor/fsdp_config.json"
#: GPUs of a run, at most.
MOST_RANKS = 65_536
_KINDS = ("model", "optim", "extra_state")


def step_dir(root: Path, step: int) -> Path:
    """The folder of a step."""
    return root / f"global_step_{step}"


def steps(root: Path) -> list[int]:
    """Steps that have a folder, whole or not, ascending."""
    found = (re.fullmatch(r"global_step_(\d+)", p.name) for p in root.glob("global_step_*"))
    return sorted(int(m[1]) for m in found if m)


def lacking(files: Mapping[str, int], world_size: int) -> list[str]:
    """What a checkpoint lacks, given its files (relative path → bytes); empty when it is whole."""
    shards = [f"actor/{kind}_world_size_{world_size}_rank_{r}.pt" for kind in _KINDS for r in range(world_size)]
    needed = ["data.pt", "actor/huggingface/config.json", *shards]
    missing = [name for name in needed if not files.get(name)]
    if not any(re.fullmatch(r"actor/huggingface/[^/]+\.safetensors", name) and size for name, size in files.items()):
        missing.append("actor/huggingface/*.safetensors")
    return missing


def sizes(folder: Path) -> dict[str, int]:
    """Files below a folder with their sizes in bytes, without our `state.json`."""
    found = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    found.pop(STATE, None)
    return found


def declared(root: Path) -> list[int]:
    """Steps whose checkpoint was declared good, ascending; what became of its files since is not looked at."""
    return [step for step in steps(root) if (step_dir(root, step) / STATE).is_file()]


def size_of_newest(root: Path) -> int:
    """Bytes of the newest checkpoint that was declared good; 0 when there is none."""
    return next((sum(sizes(step_dir(root, step)).values()) for step in reversed(declared(root))), 0)


def problems(folder: Path) -> list[str]:
    """Why the checkpoint of a folder cannot be used; empty when it is whole."""
    path = folder / _CONFIG
    try:
        world_size = read_object(path.read_bytes(), what=_CONFIG, error=StageError).get("world_size")
    except (OSError, StageError):
        return [_CONFIG]
    if not isinstance(world_size, int) or not 0 < world_size <= MOST_RANKS:
        return [_CONFIG]
    return lacking(sizes(folder), world_size)


def confirm(root: Path, step: int, state: Mapping[str, Any]) -> None:
    """Declares the checkpoint of a step good; `StageError` when it is not whole, `StoreError` on a full disk."""
    folder = step_dir(root, step)
    if missing := problems(folder):
        raise StageError(
            f"the checkpoint of step {step} lacks {', '.join(missing[:4])}",
            where=str(folder),
            fix="every node of the run must see this folder: use a shared volume for the work directory",
        )
    with writing(folder):
        for name in sizes(folder):
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
        write_json(folder / STATE, enveloped({**state, "step": step, "files": sizes(folder)}))


def confirmed(root: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state of the newest good checkpoint; None when there is none.

    Raises:
        StageError: when it belongs to a run with other settings, data or model.
    """
    for step in reversed(steps(root)):
        folder = step_dir(root, step)
        try:
            state = read_state(folder / STATE)
        except (OSError, StageError):
            continue
        check_own(state, fingerprint, folder)
        if state.get("step") == step and sizes(folder) == state.get("files") and not problems(folder):
            return {"rollouts": 0, **state}
    return None


def point_at(root: Path, step: int) -> None:
    """Makes `step` the one verl continues from (0: none) and removes what is newer or was never confirmed."""
    root.mkdir(parents=True, exist_ok=True)
    for other in steps(root):
        if other > step or not (step_dir(root, other) / STATE).is_file():
            shutil.rmtree(step_dir(root, other))
    tracker = root / TRACKER
    if step == 0:
        tracker.unlink(missing_ok=True)
        return
    with writing(tracker):
        temporary = tracker.with_name(f".{TRACKER}.writing")
        temporary.write_text(str(step), "utf-8")
        temporary.replace(tracker)


def prune(root: Path, kept: int = KEPT) -> None:
    """Removes confirmed checkpoints beyond the newest `kept`; one that is being written is not touched."""
    for step in declared(root)[:-kept]:
        # Without its state first: a half-removed checkpoint must not pass for a whole one.
        (step_dir(root, step) / STATE).unlink()
        shutil.rmtree(step_dir(root, step))


def keep_weights(root: Path, step: int, target: Path) -> None:
    """Keeps a step's weights (shards and converted model, not the optimiser) when its checkpoint will be pruned.

    Hard links: verl writes every checkpoint into a folder of its own and changes none.
    """
    actor, temporary = step_dir(root, step) / "actor", target.with_name(f".{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    wanted = [*actor.glob("model_world_size_*.pt"), actor / "fsdp_config.json", *(actor / "huggingface").rglob("*")]
    for file in (path for path in wanted if path.is_file()):
        link = temporary / file.relative_to(actor)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, link)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)


def drop_others(folder: Path, keep: Iterable[str]) -> None:
    """Removes all entries of a folder but those named."""
    wanted = set(keep)
    for entry in folder.glob("*"):
        if entry.name not in wanted:
            shutil.rmtree(entry)
