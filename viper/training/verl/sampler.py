"""verl's replay buffer, believed only when it is complete. Imported by verl (`trainer.v1.sampler.custom_sampler`).

verl goes on when outputs are missing: a group whose reward could not be computed is marked as failed, padded and left
out, without a word in the metrics. Here a batch that lacks an output ends the run before it is trained on. What was
sampled is written down while it is at hand, with what the reward function returned, which verl's own dumps leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transfer_queue as tq
from transformers import AutoTokenizer
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from viper.training.verl.rollouts import dump_path, dump_row, missing_outputs, write_dump

_FIELDS = ["prompts", "responses", "rm_scores", "reward_model", "extra_fields"]


class CompleteGroups(ReplayBuffer):  # type: ignore[misc, unused-ignore]
    """Takes from `sampler_kwargs`: `model` (a directory), `folder` for the dumps, `group_size`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = self.sampler_kwargs
        self._folder, self._group = Path(own["folder"]), int(own["group_size"])
        self._tokenizer = AutoTokenizer.from_pretrained(own["model"], local_files_only=True)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """As verl's; raises `RuntimeError` when an output is missing."""
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        group = 1 if partition_id == "val" else self._group
        if problem := missing_outputs(batch.keys, batch_size, group):
            raise RuntimeError(f"step {global_steps}: {problem}")
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=_FIELDS)
        write_dump(dump_path(self._folder, partition_id, global_steps), self._rows(batch.keys, data))
        return batch, metrics

    def _rows(self, keys: Sequence[str], data: Any) -> list[dict[str, Any]]:
        scores = data["rm_scores"].sum(dim=1).tolist()
        extras, models = list(data["extra_fields"]), list(data["reward_model"])
        rows = []
        for key, ids, score, extra, model in zip(keys, data["responses"].unbind(), scores, extras, models, strict=True):
            output = self._tokenizer.decode(ids.tolist(), skip_special_tokens=True)
            rows.append(
                dump_row(
                    key,
                    output=output,
                    tokens=len(ids),
                    score=score,
                    measures=extra["reward_extra_info"],
                    ground_truth=model["ground_truth"],
                )
            )
        return sorted(rows, key=lambda row: (row["group"], row["session"]))
