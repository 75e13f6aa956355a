"""How the four edit categories are spread: over what was proposed, and over what survived validation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from viper.errors import NotFoundError, StageError
from viper.report import words
from viper.report.charts import Bar, Bars, Table
from viper.report.collect import IterationReport, LoopReport
from viper.spec.recipe import CATEGORIES
from viper.spec.stages import SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS
from viper.stage import StageContext
from viper.store import ObjectStore


def balance(store: ObjectStore, report: LoopReport) -> Bars | None:
    """Two bars per iteration, proposed and accepted; None when no operation was made."""
    bars, rows = [], []
    for i in report.iterations:
        for stage, label in ((SYNTHESIZE_OPERATIONS, "proposed"), (VALIDATE_OPERATIONS, "accepted")):
            counts = _counts(store, i, stage, accepted_only=stage == VALIDATE_OPERATIONS)
            if not counts:
                continue
            total = sum(counts.values())
            parts = tuple((f"c{k}", c, counts[c]) for k, c in enumerate(CATEGORIES, 1) if counts[c])
            other = total - sum(n for _, _, n in parts)
            if other:
                parts = (*parts, ("wait", "other", other))
            bars.append(Bar(f"{i.name}, {label}", parts, str(total)))
            rows.append((i.name, label, *(f"{counts[c]} ({words.percent(counts[c] / total)})" for c in CATEGORIES)))
    if not bars:
        return None
    legend = tuple((f"c{k}", category) for k, category in enumerate(CATEGORIES, 1))
    return Bars("Edit categories", tuple(bars), legend, Table(("iteration", "", *CATEGORIES), tuple(rows)))


def _counts(store: ObjectStore, i: IterationReport, stage: str, *, accepted_only: bool) -> Counter[str]:
    manifest = i.stage(stage)
    counts: Counter[str] = Counter()
    reader = StageContext(i.frozen, store, "report", Path("unused"))
    for part in () if manifest is None else manifest.parts:
        try:
            table = reader.table(stage, part, ["category", "accepted"])
        except (NotFoundError, StageError):
            continue
        rows = [r for r in table.to_pylist() if r["category"]]
        counts.update(r["category"] for r in rows if r["accepted"] or not accepted_only)
    return counts
