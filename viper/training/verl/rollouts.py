"""What verl sampled in a step: dumped by the sampler, read back by the run, joined to samples by the ground truth."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viper.errors import StageError
from viper.text import clean
from viper.training.local.checkpoints import writing
from viper.training.settings import group_advantages
from viper.words import plural

Row = dict[str, Any]
#: Keys of the reward function's result, by the name in our rollouts.
_MEASURES = {
    "correctness": "correct",
    "format": "format",
    "recall": "recall",
    "items": "items",
    "duplicates": "duplicates",
}


def dump_path(folder: Path, partition: str, step: int) -> Path:
    """The dump of a step; `partition` is verl's: `train`, or `val` for held-out samples."""
    return folder / partition / f"{step}.jsonl"


def missing_outputs(keys: Iterable[str], prompts: int, group: int) -> str:
    """What a batch lacks; empty when all `prompts` groups have `group` outputs.

    Args:
        keys: verl's names of outputs, `<prompt>_<output>_<part>`.
    """
    groups = Counter(key.rsplit("_", 2)[0] for key in keys)
    outputs = sum(groups.values())
    if len(groups) == prompts and set(groups.values()) == {group}:
        return ""
    return (
        f"{outputs} of {plural(prompts * group, 'output')} came back: generating or scoring the others failed (see the "
        "log of verl's workers). Nothing was trained on this batch"
    )


def dump_row(
    key: str,
    *,
    output: str,
    tokens: int,
    score: float,
    measures: Mapping[str, Any],
    ground_truth: str,
) -> Row:
    """One output as it is dumped; `measures` is what the reward function returned for it."""
    group, session, _ = key.rsplit("_", 2)
    return {
        "group": group,
        "session": int(session),
        "output": clean(output),
        "tokens": tokens,
        "score": float(score),
        "measures": {name: float(measures[name]) for name in (*_MEASURES, "finished")},
        "ground_truth": ground_truth,
    }


def write_dump(path: Path, rows: Iterable[Row]) -> None:
    """Writes a dump; it is whole or absent."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.replace(path)


def read_dump(path: Path, expected: int) -> list[Row]:
    """The rows of a dump; raises `StageError` when there are not `expected` of them."""
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    except FileNotFoundError:
        rows = []
    if len(rows) != expected:
        raise StageError(
            f"verl recorded {len(rows)} of {plural(expected, 'output')}",
            where=str(path),
            fix="the stage goes on from its last checkpoint when it is run again",
        )
    return rows


def rollout_rows(dump: Sequence[Row], step: int, group: int) -> list[Row]:
    """Our rows of a training dump (as `viper.training.local.rollouts` writes them), with the sample's generator.

    `dump` is sorted by prompt; every `group` rows belong together.
    """
    advantages = group_advantages(np.array([row["score"] for row in dump]).reshape(-1, group)).reshape(-1)
    rows = []
    for row, advantage in zip(dump, advantages.tolist(), strict=True):
        truth = json.loads(row["ground_truth"])
        rows.append(
            {
                "step": step,
                "sample_id": truth["sample_id"],
                "generator": truth["generator"],
                "output": row["output"],
                "ground_truth": truth["sentences"],
                "finished": bool(row["measures"]["finished"]),
                "reward": row["score"],
                "advantage": advantage,
                **{ours: row["measures"][theirs] for theirs, ours in _MEASURES.items()},
            }
        )
    return rows


def rollout_values(dump: Sequence[Row], group: int) -> dict[str, float]:
    """Batch means of a training dump, named as in `StepMetrics`."""

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    scores = np.array([row["score"] for row in dump])
    measured = {name: mean(row["measures"][name] for row in dump) for name in _MEASURES}
    return {
        "reward/mean": float(scores.mean()),
        "reward/std": float(scores.std()),
        "reward/correct": measured["correctness"],
        "reward/format": measured["format"],
        "groups/signal": mean((g != g[0]).any() for g in scores.reshape(-1, group)),
        "shadow/recall": measured["recall"],
        "shadow/items": measured["items"],
        "shadow/duplicates": measured["duplicates"],
        "shadow/distinct": len({row["output"] for row in dump}) / len(dump),
        "output/tokens": mean(row["tokens"] for row in dump),
        "output/finished": mean(row["measures"]["finished"] for row in dump),
    }


def held_out_reward(dump: Sequence[Row]) -> float:
    """Mean score of a dump of held-out samples."""
    return math.fsum(row["score"] for row in dump) / len(dump)
