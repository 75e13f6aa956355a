"""The words of reasoning on the page: clouds before and after each training stage, and the operations in a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from viper.analysis import cloud
from viper.analysis.reasoning import Reasoning, Words
from viper.analysis.records import load_reasoning
from viper.report.charts import Table
from viper.report.collect import IterationReport
from viper.store import ObjectStore
from viper.words import plural


def parts(store: ObjectStore, iteration: IterationReport) -> Iterator[dict[str, Any]]:
    """One part for each training stage with rollouts of two steps that reason at all."""
    for training in iteration.trainings:
        manifest = iteration.stage(training.stage)
        prefix = f"{iteration.frozen.prefix}/stages/{training.stage}"
        found = None if manifest is None else load_reasoning(store, prefix, manifest)
        if found is not None and (found.before.tokens or found.after.tokens):
            title = f"{iteration.name}, {training.task}"
            yield {"title": title, "clouds": list(_clouds(found, title)), "table": operations(found)}


def _clouds(found: Reasoning, title: str) -> Iterator[dict[str, str]]:
    for label, step, words in (("before", found.first_step, found.before), ("after", found.last_step, found.after)):
        yield {
            "label": f"{label}: step {step}",
            "note": _note(words),
            "svg": cloud.svg(words, f"Words of reasoning of {title}, {label}"),
        }


def _note(words: Words) -> str:
    rate = f"{words.operation_rate:.1f} operations in a thousand words"
    return f"{plural(words.outputs, 'output')}, {plural(words.tokens, 'word')}, {rate}"


def operations(found: Reasoning) -> Table:
    """Every operation that is named: how often, and how often in a thousand words."""
    names = sorted({*found.before.operations, *found.after.operations}, key=lambda n: -found.after.operations.get(n, 0))
    rows = [
        (
            name,
            *(str(w.operations.get(name, 0)) for w in (found.before, found.after)),
            *(f"{w.per_thousand(name):.2f}" for w in (found.before, found.after)),
        )
        for name in names
    ]
    rates = (f"{w.operation_rate:.2f}" for w in (found.before, found.after))
    sums = (str(sum(w.operations.values())) for w in (found.before, found.after))
    head = ("operation", "before", "after", "before, in a thousand words", "after, in a thousand words")
    return Table(head, (*rows, ("all", *sums, *rates)))
