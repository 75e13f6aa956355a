"""What the policy said in training: scored outputs of the first and the last step, the best beside the worst."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from viper.errors import NotFoundError
from viper.report.collect import IterationReport, Training
from viper.report.words import one_line
from viper.store import ObjectStore

#: Rollouts larger than this are not read: the page stays quick, whatever the size of the run.
MAX_BYTES = 64 * 2**20
#: Prompts shown per step.
SHOWN = 2
_MAX_TEXT = 500

Row = dict[str, Any]


@dataclass(frozen=True)
class Output:
    """One output with its reward and recall."""

    text: str
    reward: float
    recall: float


@dataclass(frozen=True)
class Prompt:
    """The best and the worst output to one prompt of one step; all text is a model's."""

    step: int
    sample_id: str
    ground_truth: tuple[str, ...]
    best: Output
    worst: Output


def outputs(store: ObjectStore, iteration: IterationReport, training: Training) -> list[Prompt]:
    """Prompts of the first and the last step whose outputs differ most in reward; empty without readable rollouts."""
    manifest = iteration.stage(training.stage)
    folder = None if manifest is None else manifest.outputs.get("rollouts")
    if not isinstance(folder, str):
        return []
    prefix = f"{iteration.frozen.prefix}/stages/{training.stage}/{folder}"
    files = list(store.list(prefix))
    if not files or sum(f.size for f in files) > MAX_BYTES:
        return []
    try:
        first = store.get(files[0].key).splitlines()
        last = first if len(files) == 1 else store.get(files[-1].key).splitlines()
    except NotFoundError:
        return []
    begin, end = _step(first), _step(reversed(last))
    if begin and end and begin[0]["step"] == end[0]["step"]:
        end = []
    return [*_widest(begin), *_widest(end)]


def _step(lines: Iterable[bytes]) -> list[Row]:
    """Rows up to the first one of another step; an unreadable line ends them too."""
    rows: list[Row] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or not {"step", "sample_id", "output", "reward"} <= row.keys():
            break
        if rows and row["step"] != rows[0]["step"]:
            break
        rows.append(row)
    return rows


def _widest(rows: list[Row]) -> list[Prompt]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["sample_id"]), []).append(row)
    made = [_prompt(name, group) for name, group in groups.items()]
    made.sort(key=lambda p: (p.worst.reward - p.best.reward, p.sample_id))
    return made[:SHOWN]


def _prompt(sample_id: str, group: list[Row]) -> Prompt:
    # Ties are broken by the text, so that the order of the rows does not matter.
    ordered = sorted(group, key=lambda r: (r["reward"], str(r["output"])))
    truth = tuple(one_line(t, 200) for t in ordered[0].get("ground_truth", ()))
    return Prompt(int(ordered[0]["step"]), sample_id, truth, _output(ordered[-1]), _output(ordered[0]))


def _output(row: Row) -> Output:
    return Output(one_line(row["output"], _MAX_TEXT), float(row["reward"]), float(row.get("recall", 0.0)))
