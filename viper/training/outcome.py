"""How a run of GRPO ends, whichever trainer takes its steps: the step that is chosen, the record of the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from viper.errors import StageError
from viper.training.local.checkpoints import check_own, write_json
from viper.training.settings import GrpoResult
from viper.words import plural

#: Written last: the run is complete.
_RECORD = "result.json"


def best_step(scores: Mapping[int, float], last: int) -> int:
    """The earliest step with the highest held-out score; the last step when nothing selects."""
    return max(scores, key=lambda step: (scores[step], -step)) if scores else last


def stop_when_collapsed(history: Sequence[Mapping[str, float]], steps: int, work_dir: Path) -> None:
    """Raises `StageError` when every group of the last `steps` steps got one reward for all its outputs."""
    last = history[-steps:]
    if len(last) < steps or any(row["groups/signal"] for row in last):
        return
    raise StageError(
        f"all outputs of every group got the same reward for {plural(steps, 'step')} (mean "
        f"{last[-1]['reward/mean']:.3f}): the policy collapsed, or the task is never (or always) solved, "
        "and nothing can be learnt",
        where=str(work_dir / "rollouts.jsonl"),
        fix="look at the rollouts; take easier or more varied samples, or lower the learning rate",
    )


def record_result(
    work_dir: Path, fingerprint: str, steps: int, best: int, history: Sequence[Mapping[str, float]]
) -> GrpoResult:
    """Declares a run complete, whose chosen model lies in `model/`; `StoreError` on a full disk."""
    result = {"fingerprint": fingerprint, "steps": steps, "best_step": best, "history": list(history)}
    write_json(work_dir / _RECORD, result)
    return _result(work_dir, steps, best, history)


def recorded_result(work_dir: Path, fingerprint: str) -> GrpoResult | None:
    """The result when this work directory holds the complete run; `StageError` when it holds that of another one."""
    path = work_dir / _RECORD
    if not path.is_file():
        return None
    result = json.loads(path.read_text("utf-8"))
    check_own(result, fingerprint, path)
    return _result(work_dir, int(result["steps"]), int(result["best_step"]), result["history"])


def _result(work_dir: Path, steps: int, best: int, history: Sequence[Mapping[str, float]]) -> GrpoResult:
    return GrpoResult(work_dir / "model", steps, best, tuple(history), work_dir / "rollouts.jsonl")
