"""The benchmarks of an iteration beside the paper's numbers, as tables of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from viper.evaluation import paper
from viper.evaluation.stage import THETA0
from viper.evaluation.statistics import OVERALL
from viper.report import words
from viper.report.collect import IterationReport, LoopReport
from viper.report.guarded import guarded
from viper.spec.benchmarks import BENCHMARKS
from viper.words import plural

#: Base and result of the paper's two experiments: columns beside ours.
PAPER = {"3B": ("Qwen2.5-VL-3B", "Qwen-Viper-3B"), "7B": ("Qwen2.5-VL-7B", "Qwen-Viper-7B")}
MMSTAR = "mmstar"


@dataclass(frozen=True)
class Table:
    """A table of text. Rows of `inner` are parts of the row above them."""

    title: str
    head: list[str]
    rows: list[list[str]]
    inner: frozenset[int]
    notes: list[str]


def conclusion(report: LoopReport) -> str:
    """The headline of the report, with the last benchmarks' mean."""
    asked = next((said for i in reversed(report.iterations) if (said := mean_change(i))), "")
    if asked and not words.findings(report):
        return asked
    return f"{words.conclusion(report)} {asked}".strip()


def tables(iteration: IterationReport, *, intervals: bool = True) -> list[Table]:
    """Scores of every checkpoint, with intervals or without, and paired differences; empty without benchmarks.

    Where they cannot be read, a table of nothing says why.
    """
    manifest = iteration.evaluation
    found = manifest.outputs.get("benchmarks") if manifest is not None else None
    if manifest is None or found is None:
        return []
    outputs, problems = manifest.outputs, list[str]()

    def made() -> list[Table]:
        final = str(outputs["final"])
        return [_scores(iteration, found, _score if intervals else _plain), *_differences(iteration, found, final)]

    none = Table("Benchmarks", ["benchmark"], [], frozenset(), problems)
    return guarded(problems, f"{manifest.stage}: its benchmarks", made, [none])


def mean_change(iteration: IterationReport) -> str:
    """One sentence: the mean of the benchmarks, θ0 against the final checkpoint; empty without (readable) ones."""
    manifest = iteration.evaluation
    found = manifest.outputs.get("benchmarks") if manifest is not None else None
    if manifest is None or found is None:
        return ""
    return guarded([], "", partial(_mean_change, iteration, found, manifest.outputs.get("final")), "")


def _mean_change(iteration: IterationReport, found: Mapping[str, Any], final: Any) -> str:
    before, after = (found["scores"][m][OVERALL] for m in (THETA0, final))
    change = found["comparisons"][f"{final}-{THETA0}"][OVERALL]
    checkpoint = f"{iteration.called([final])[final]} of {iteration.name}"
    return (
        f"Mean of {plural(len(found['tasks']), 'benchmark')}: {_percent(before['score'])} (its θ0) → "
        f"{_percent(after['score'])} ({checkpoint}), {_change(change)} points, "
        f"{_p(change)}: {verdict(change)}."
    )


def verdict(change: Mapping[str, Any]) -> str:
    """`better`, `WORSE`, `not significant` or `no difference`, by the two-sided bootstrap p-value."""
    if abs(change["difference"]) < 1e-12:
        return "no difference"
    if two_sided(change) >= words.SIGNIFICANT:
        return "not significant"
    return "better" if change["difference"] > 0 else "WORSE"


def two_sided(change: Mapping[str, Any]) -> float:
    """Twice the smaller one-sided p-value."""
    return float(min(1.0, 2 * min(change["p_worse"], change["p_better"])))


def _scores(iteration: IterationReport, found: Mapping[str, Any], shown: Callable[[Mapping[str, Any]], str]) -> Table:
    scores: dict[str, dict[str, Any]] = found["scores"]
    called = iteration.called(scores)
    models = list(called)
    head = ["benchmark", "n", *called.values(), *(f"paper, {size}" for size in PAPER)]
    rows, inner = [], []
    for task, about in found["tasks"].items():
        rows.append([_title(task), str(about["n"]), *(shown(scores[m][task]) for m in models), *_papers(task)])
        for domain in next(iter(scores.values()))[task]["domains"]:
            inner.append(len(rows))
            within = [scores[m][task]["domains"][domain] for m in models]
            rows.append(
                [domain, str(within[0]["n"]), *(_percent(w["accuracy"]) for w in within), *_gains(task, domain)]
            )
    total = scores[models[0]][OVERALL]
    rows.append(["mean", str(total["n"]), *(shown(scores[m][OVERALL]) for m in models), *_papers(OVERALL)])
    return Table("Benchmarks, %", head, rows, frozenset(inner), _notes(found, called))


def _differences(iteration: IterationReport, found: Mapping[str, Any], final: str) -> list[Table]:
    made = []
    for pair, later, earlier in iteration.pairs(final, found["comparisons"]):
        compared, called = found["comparisons"][pair], iteration.called([later, earlier])
        rows = []
        for task in [*found["tasks"], OVERALL]:
            c = compared[task]
            m = c.get("mcnemar")
            won = [str(m["wins"]), str(m["losses"]), _only_p(m["p_two_sided"])] if m else [words.DASH] * 3
            rows.append([_title(task), _change(c), _only_p(two_sided(c)), verdict(c), *won])
        title = f"{called[later]} {words.MINUS} {called[earlier]}, points"
        head = [title, "difference", "p bootstrap", "", "won", "lost", "p McNemar"]
        made.append(Table(title, head, rows, frozenset(), []))
    return made


def _notes(found: Mapping[str, Any], called: Mapping[str, str]) -> list[str]:
    judges = {about["judge"] for about in found["tasks"].values() if "judge" in about}
    versions = {about["version"].partition("+")[0] for about in found["tasks"].values()}
    notes = [
        f"lmms-eval {', '.join(sorted(versions))}, greedy, at most {plural(found['max_tokens'], 'token')} for every "
        "checkpoint" + (f"; HallusionBench judged by {', '.join(sorted(judges))}" if judges else "") + "."
    ]
    limited = [f"{_title(t)} {about['limit']}" for t, about in found["tasks"].items() if "limit" in about]
    if limited:
        notes.append(
            f"Only a sample was asked, so that the paper's numbers are of other questions: {', '.join(limited)}."
        )
    for key, what in (
        ("truncated", "Answers cut off at the token limit"),
        ("unanswered", "Questions without an answer (prompt too long, refused), counted as wrong"),
    ):
        counted = {m: sum(s.get(key, 0) for s in by_task.values()) for m, by_task in found["scores"].items()}
        if any(counted.values()):
            notes.append(f"{what}: {', '.join(f'{called[m]} {n}' for m, n in counted.items())}.")
    return notes


def _title(task: str) -> str:
    return "mean" if task == OVERALL else BENCHMARKS[task].title


def _papers(task: str) -> list[str]:
    found = []
    for before, after in PAPER.values():
        tables_of = (paper.OVERALL_SCORES[m] if task == OVERALL else paper.SCORES[m][task] for m in (before, after))
        found.append(" → ".join(f"{value:.1f}" for value in tables_of))
    return found


def _gains(task: str, domain: str) -> list[str]:
    gains = [paper.MMSTAR_GAINS[after].get(domain) if task == MMSTAR else None for _, after in PAPER.values()]
    return ["" if gain is None else words.signed(gain) for gain in gains]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _score(score: Mapping[str, Any]) -> str:
    return f"{_percent(score['score'])} [{_percent(score['low'])}, {_percent(score['high'])}]"


def _plain(score: Mapping[str, Any]) -> str:
    return _percent(score["score"])


def _change(c: Mapping[str, Any]) -> str:
    return f"{words.points(c['difference'])} [{words.points(c['low'])}, {words.points(c['high'])}]"


def _p(change: Mapping[str, Any]) -> str:
    return words.p_value(two_sided(change))


def _only_p(p: float) -> str:
    return words.p_value(p).removeprefix("p ").removeprefix("= ")


def lines_of(found: Sequence[Table], columns: Any) -> list[str]:
    """The tables for a terminal; of the parts only MMStar's domains.

    Args:
        columns: aligns rows, given them and the numbers of left-aligned columns.
    """
    made: list[str] = []
    for table in found:
        domains = paper.MMSTAR_GAINS["Qwen-Viper-7B"]
        kept = [
            [f"  {row[0]}", *row[1:]] if n in table.inner else row
            for n, row in enumerate(table.rows)
            if n not in table.inner or row[0] in domains
        ]
        made += columns([table.head, *kept], left={0, 3} if not table.notes else {0})
        made += [f"  {note}" for note in table.notes]
    return made
