"""verl's reward manager, which also tells the reward function whether an output was cut off.

verl decodes outputs without their special tokens and calls `stop` and `length` both "completed", so that a reward
function cannot see whether the end was reached. Imported by verl (`reward.reward_manager`, source `importlib`).
"""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class FinishedRewardManager(NaiveRewardManager):  # type: ignore[misc, unused-ignore]
    """Puts `finished` into `extra_info`: the output is shorter than the limit, or its last token ends it."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **rest: Any) -> None:
        super().__init__(config, tokenizer, compute_score, **rest)
        self._limit = int(config.actor_rollout_ref.rollout.response_length)
        self._ends = end_tokens(str(config.actor_rollout_ref.model.path), tokenizer)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """As verl's, with `extra_info.finished`."""
        item = data[-1:]
        width = item.batch["responses"].shape[-1]
        length = int(item.batch["attention_mask"][0, -width:].sum())
        last = int(item.batch["responses"][0, length - 1]) if length else None
        extra = dict(item.non_tensor_batch["extra_info"][0]) if "extra_info" in item.non_tensor_batch else {}
        extra["finished"] = length < self._limit or last in self._ends
        item.non_tensor_batch["extra_info"] = _objects(extra)
        found: dict[str, Any] = await super().run_single(item)
        return found


def end_tokens(model: str, tokenizer: Any) -> set[int]:
    """Tokens that end an output: the tokenizer's, and those of the model's generation settings where it has some."""
    found = {tokenizer.eos_token_id}
    try:
        ids = GenerationConfig.from_pretrained(model, local_files_only=True).eos_token_id
    except OSError:
        ids = None
    found |= set(ids if isinstance(ids, list) else [ids])
    return {i for i in found if i is not None}


def _objects(value: dict[str, Any]) -> Any:
    import numpy as np

    row = np.empty(1, dtype=object)
    row[0] = value
    return row
