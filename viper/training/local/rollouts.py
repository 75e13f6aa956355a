"""One batch of scored outputs: what it measures, what is logged of it, and how it is cut into passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import RlSample
from viper.reward.equations import Reward

if TYPE_CHECKING:
    from viper.training.local.policy import PromptBatch, Samples
    from viper.training.local.trl_loss import MicroBatch


@dataclass(frozen=True)
class Rollout:
    """U prompts with `group` = G outputs each; row u*G+k of everything is output k of prompt u."""

    samples: Sequence[RlSample]
    group: int
    prompts: PromptBatch
    outputs: Samples
    texts: Sequence[str]
    rewards: Sequence[Reward]
    advantages: NDArray[np.float32]


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """Batch means, named as in `StepMetrics`."""
    r = rollout.rewards
    reward = np.array([x.reward for x in r])
    return {
        "reward/mean": float(reward.mean()),
        "reward/std": float(reward.std()),
        "reward/correct": float(np.mean([x.correctness for x in r])),
        "reward/format": float(np.mean([x.format for x in r])),
        "groups/signal": float((rollout.advantages.reshape(-1, rollout.group) != 0).any(1).mean()),
        "shadow/recall": float(np.mean([x.recall for x in r])),
        "shadow/items": float(np.mean([x.items for x in r])),
        "shadow/duplicates": float(np.mean([x.duplicate_share for x in r])),
        "shadow/distinct": len(set(rollout.texts)) / len(rollout.texts),
        "output/tokens": float(rollout.outputs.mask.sum(1).float().mean()),
        "output/finished": float(rollout.outputs.finished.float().mean()),
        "output/entropy": rollout.outputs.entropy,
    }


def rollout_rows(rollout: Rollout, step: int) -> Iterator[dict[str, Any]]:
    """One JSON row per output; `sample_id` leads to the sample's passport, so to the checkpoint that wrote it."""
    for row, (text, reward) in enumerate(zip(rollout.texts, rollout.rewards, strict=True)):
        yield {
            "step": step,
            "sample_id": rollout.samples[row // rollout.group].sample_id,
            "output": text,
            "ground_truth": list(rollout.samples[row // rollout.group].ground_truth),
            "finished": bool(rollout.outputs.finished[row]),
            "reward": reward.reward,
            "correct": reward.correctness,
            "format": reward.format,
            "advantage": float(rollout.advantages[row]),
            "recall": reward.recall,
            "items": reward.items,
            "duplicates": reward.duplicate_share,
        }


def chunk_rows(
    advantages: NDArray[np.floating[Any]], lengths: NDArray[Any], rows: range, *, group: int, limit: int
) -> list[list[int]]:
    """Splits `rows` (whole groups) into passes of at most `limit` outputs of similar length.

    Rows with advantage zero have zero gradient and are left out. A group stays together where the limit allows, since
    its prompt is run once per pass.
    """
    groups = [[r for r in range(g, g + group) if advantages[r] != 0] for g in rows[::group]]
    pieces = [kept[i : i + limit] for kept in groups for i in range(0, len(kept), limit)]
    pieces.sort(key=lambda piece: (max(lengths[r] for r in piece), piece[0]))
    chunks: list[list[int]] = []
    for piece in pieces:
        if chunks and len(chunks[-1]) + len(piece) <= limit:
            chunks[-1] += piece
        else:
            chunks.append(list(piece))
    return chunks


def chunk_of(rollout: Rollout, rows: Sequence[int]) -> MicroBatch:
    """The rows as tensors for the loss, with each prompt once."""
    import torch

    from viper.training.local.trl_loss import MicroBatch

    prompts = sorted({r // rollout.group for r in rows})
    place = {p: i for i, p in enumerate(prompts)}
    out = rollout.outputs
    device = out.ids.device
    index = torch.tensor(rows, device=device)
    width = int(out.mask[index].sum(1).max())
    return MicroBatch(
        rollout.prompts.select(prompts),
        torch.tensor([place[r // rollout.group] for r in rows], device=device),
        out.ids[index, :width],
        out.mask[index, :width],
        out.logprobs[index, :width],
        torch.from_numpy(rollout.advantages[list(rows)]).to(device),
    )
