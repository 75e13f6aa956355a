"""The record of a run of verl, kept as the one machine's trainer keeps its own: curves, rollouts, scores, checkpoints.

Layout of the work directory, beside verl's `checkpoints/` (see `checkpoints`):

    data/{train,held_out}.parquet   what verl reads
    sampled/{train,val}/12.jsonl    what it sampled in a step
    candidates/global_step_40/      weights that held-out selection may choose
    attempts/1.log 1.jsonl          what the first attempt printed and measured
    metrics.jsonl rollouts.jsonl    one row per step / per output, never beyond the checkpoint after a resume
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viper.errors import StageError
from viper.training.local.checkpoints import Log
from viper.training.outcome import best_step, stop_when_collapsed
from viper.training.settings import GrpoSettings, StepMetrics
from viper.training.verl import checkpoints
from viper.training.verl.metrics import diverged, recorded, step_of, step_values
from viper.training.verl.rollouts import dump_path, held_out_reward, read_dump, rollout_rows, rollout_values


class RunRecord:
    """What is known of a run. `held_out` is the number of held-out samples that verl measures at checkpoints."""

    def __init__(self, work_dir: Path, fingerprint: str, settings: GrpoSettings, steps: int, held_out: int) -> None:
        self.work_dir, self.fingerprint, self.settings = work_dir, fingerprint, settings
        self.steps, self.held_out = steps, held_out
        self.root, self.candidates = work_dir / "checkpoints", work_dir / "candidates"
        self.sampled = work_dir / "sampled"
        self.history: list[dict[str, float]] = []
        self.scores: dict[int, float] = {}
        self._logs: tuple[Log, Log] | None = None
        self._began, self._first, self._last = time.monotonic(), 0, time.monotonic()

    @property
    def reached(self) -> int:
        """The last step in the curves."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def saved(self) -> int:
        """The newest good checkpoint; 0 when there is none."""
        state = checkpoints.confirmed(self.root, self.fingerprint)
        return 0 if state is None else int(state["step"])

    def resume(self) -> int:
        """Puts the work directory into the state of its newest good checkpoint and returns its step."""
        self.close()
        state = checkpoints.confirmed(self.root, self.fingerprint) or {"step": 0, "metrics": 0, "rollouts": 0}
        step = int(state["step"])
        checkpoints.point_at(self.root, step)
        metrics, rollouts = (Log(self.work_dir / f"{name}.jsonl", state[name]) for name in ("metrics", "rollouts"))
        self._logs = metrics, rollouts
        self.history = metrics.rows()
        self.scores = {int(k): float(v) for k, v in state.get("scores", {}).items()}
        self._drop_candidates()
        if step == 0:
            shutil.rmtree(self.sampled, ignore_errors=True)
        self._began = self._last = time.monotonic()
        self._first = step
        return step

    def take(self, row: Mapping[str, Any]) -> StepMetrics | None:
        """Takes in a line of verl's metrics; None when it is not about a step.

        Raises:
            StageError: verl left out steps or outputs, the policy diverged, or nothing can be learnt any more.
            StoreError: the disk is full.
        """
        step = step_of(row)
        if step is None:
            return None
        if step != self.reached + 1:
            raise StageError(f"verl told of step {step} after step {self.reached}", where=str(self.work_dir))
        values = step_values(row["data"])
        if problem := diverged(values):
            raise StageError(
                f"step {step}: the policy diverged ({problem})",
                where=str(self.work_dir),
                fix="lower the learning rate; the checkpoint before this step is kept",
            )
        outputs = self.settings.batch_prompts * self.settings.group_size
        dump = read_dump(dump_path(self.sampled, "train", step), outputs)
        saving = step % self.settings.save_every == 0 or step == self.steps
        values = {**recorded(values), **rollout_values(dump, self.settings.group_size)}
        if self.held_out and saving:
            values["held_out/reward"] = self._held_out(step)
        self._write(step, values, rollout_rows(dump, step, self.settings.group_size))
        if saving:
            self._save(step, values)
        stop_when_collapsed(self.history, self.settings.collapse_steps, self.work_dir)
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._began, 1e-9)
        seconds, self._last = now - self._last, now
        per_second = rate * self.settings.batch_prompts
        return StepMetrics(step, self.steps, values, seconds, per_second, (self.steps - step) / rate)

    def best(self) -> int:
        """The step whose weights become the stage's model."""
        return best_step(self.scores, self.steps)

    def weights(self, step: int) -> Path:
        """The folder of a step's weights: `huggingface/` and the shards it was made from."""
        kept = self.candidates / f"global_step_{step}"
        return kept if kept.is_dir() else checkpoints.step_dir(self.root, step) / "actor"

    def close(self) -> None:
        """Closes the logs."""
        for log in self._logs or ():
            log.close()
        self._logs = None

    def _held_out(self, step: int) -> float:
        return held_out_reward(read_dump(dump_path(self.sampled, "val", step), self.held_out))

    def _write(self, step: int, values: Mapping[str, float], rollouts: list[dict[str, Any]]) -> None:
        if self._logs is None:
            raise RuntimeError("resume() opens the logs")
        self.history.append({"step": step, **values})
        self._logs[1].write(rollouts)
        self._logs[0].write(self.history[-1:])

    def _save(self, step: int, values: Mapping[str, float]) -> None:
        """Confirms the checkpoint of a step: from here on a run goes on from it."""
        if self._logs is None:
            raise RuntimeError("resume() opens the logs")
        if self.settings.select != "last":
            if not self.scores:
                self.scores[0] = self._held_out(0)
            self.scores[step] = values["held_out/reward"]
            if self.best() == step:
                checkpoints.keep_weights(self.root, step, self.candidates / f"global_step_{step}")
        state: dict[str, Any] = {"fingerprint": self.fingerprint, "scores": self.scores}
        state |= {"metrics": self._logs[0].size, "rollouts": self._logs[1].size}
        checkpoints.confirm(self.root, step, state)
        checkpoints.prune(self.root)
        self._drop_candidates()
        for old in (self.sampled / "train").glob("*.jsonl"):
            if int(old.stem) <= step:
                old.unlink()

    def _drop_candidates(self) -> None:
        """Runs when a checkpoint is good: what its scores do not choose is never needed again."""
        checkpoints.drop_others(self.candidates, [f"global_step_{self.best()}"] if self.scores else [])
