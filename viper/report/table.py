"""The plain-text table at the end of a run: 100 to 120 columns, every figure from the store."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from viper.evaluation.stage import THETA0
from viper.evaluation.statistics import OVERALL
from viper.report import benchmarks, words
from viper.report.collect import HELD_OUT_REWARD, RECALL, REWARD, IterationReport, LoopReport, Training, collect
from viper.store import ObjectStore
from viper.terminal import columns

WIDTH = 112


def summary_table(store: ObjectStore, names: Iterable[str]) -> str:
    """Data, rewards, accuracy with intervals and the decision of every iteration, then what it amounts to.

    Works on unfinished iterations. Raises `StoreError` when the store cannot be read.
    """
    return render(collect(store, names))


def render(report: LoopReport) -> str:
    """The table of what was collected, ending in a newline."""
    lines: list[str] = []
    for iteration in report.iterations:
        lines += [*_iteration(iteration), ""]
    lines += [f"{name}: not started" for name in report.not_started]
    for name, problem in report.unreadable:
        lines += _wrapped(f"{name}: CANNOT BE READ: {problem}")
    if len(report.iterations) > 1:
        lines += [*_over_iterations(report), ""]
    lines += _wrapped(f"Result: {benchmarks.conclusion(report)}")
    lines += [f"  {finding.sentence}" for finding in words.findings(report)]
    lines.append(
        "  Accuracy in % with 95 % intervals; differences in points, paired by question; p: exact McNemar, two-sided,"
    )
    lines.append("  not corrected for the number of domains.")
    return "\n".join(line.rstrip().replace("\N{NO-BREAK SPACE}", " ") for line in lines) + "\n"


def _iteration(i: IterationReport) -> list[str]:
    title = f"━━ {i.name}: {words.outcome(i)} · {words.duration(i.seconds)} "
    lines = [title + "━" * max(0, WIDTH - len(title))]
    if reason := words.reason(i):
        lines += _wrapped(f"Reason: {reason}", indent="  ")
    if i.state == "unfinished":
        lines += _wrapped("Not done: " + ", ".join(f"{s.name} ({s.words})" for s in i.pending), indent="  ")
    for problem in i.problems:
        lines += _wrapped(f"Problem: {problem}", indent="  ")
    return [*lines, *_data(i), *_rewards(i), *_accuracy(i)]


def _data(i: IterationReport) -> list[str]:
    if i.images is None and not i.funnels:
        return []
    rows = [["data", "made", "accepted", "rejected", "rate", "train", "held out", "rejected because"]]
    if i.images is not None:
        accepted, rejected = i.images.accepted, sum(i.images.rejected.values())
        total = accepted + rejected
        rate = words.percent(accepted / total if total else None)
        rows.append(
            ["images", str(total), str(accepted), str(rejected), rate, "", "", words.reasons(i.images.rejected, "")]
        )
    for f in i.funnels:
        rejected = sum(f.rejected.values())
        rows.append(
            [
                f.task,
                str(f.made),
                words.count(f.accepted),
                str(rejected),
                words.percent(f.rate),
                words.count(f.train),
                words.count(f.held_out),
                words.reasons(f.rejected, ""),
            ]
        )
    return _columns(rows, left={0, 7}, wrap_last=True)


def _rewards(i: IterationReport) -> list[str]:
    if not i.trainings:
        return []
    rows = [["reward", "steps", "kept", "train first → last", "held-out first → last", "recall first → last"]]
    for t in i.trainings:
        ends = [_ends(t, name) for name in (REWARD, HELD_OUT_REWARD, RECALL)]
        rows.append([t.task, words.count(t.steps), words.kept(t.best_step), *ends])
    return _columns(rows, left={0})


def _ends(training: Training, series: str) -> str:
    ends = training.ends(series)
    if ends is None:
        return words.DASH
    first, last = ends
    fell = " fell" if words.signed(last - first, 3).startswith(words.MINUS) else ""
    return f"{first:.3f} → {last:.3f} ({words.signed(last - first, 3)}{fell})"


def _accuracy(i: IterationReport) -> list[str]:
    asked = benchmarks.lines_of(benchmarks.tables(i, intervals=False), _columns)
    if not i.scores:
        return asked or ["  accuracy: not evaluated"]
    models = i.called(i.scores)
    rows = [["accuracy", "n", *models.values()]]
    for domain in i.domains:
        scores = [i.scores[m].get(domain) for m in models]
        n = next((str(s.n) for s in scores if s is not None), words.DASH)
        rows.append([domain, n, *(words.interval(s) for s in scores)])
    lines = _columns(rows, left={0})
    pairs = i.pairs(i.final, i.comparisons)[:2]
    if pairs:
        titles = (f"{models.get(a, a)} {words.MINUS} {models.get(b, b)}" for _, a, b in pairs)
        rows = [["paired difference", *(x for title in titles for x in (title, "p", ""))]]
        for domain in i.domains:
            cells = [domain]
            for pair, *_ in pairs:
                c = i.comparison(pair, domain)
                p = words.DASH if c is None else words.p_value(c.p_two_sided).removeprefix("p ").removeprefix("= ")
                cells += [words.difference(c), p, "" if c is None else words.verdict(c)]
            rows.append(cells)
        lines += _columns(rows, left={0, 3, 6})
    return lines + asked


def _over_iterations(report: LoopReport) -> list[str]:
    title = "━━ over iterations "
    rows = [["iteration", "decision", "version", *report.tasks, "θ0", "final", "change", "p", "", "time"]]
    for i in report.iterations:
        data = {f.task: words.count(f.accepted) for f in i.funnels}
        c = i.comparison(f"{i.final}-{THETA0}", OVERALL)
        rows.append(
            [
                i.name,
                i.state,
                words.count(i.outcome.version if i.outcome else None),
                *(data.get(task, words.DASH) for task in report.tasks),
                *(_accuracy_of(i, model) for model in (THETA0, i.final)),
                words.DASH if c is None else words.points(c.difference),
                words.DASH if c is None else words.p_value(c.p_two_sided).removeprefix("p ").removeprefix("= "),
                "" if c is None else words.verdict(c),
                words.duration(i.seconds),
            ]
        )
    return [title + "━" * (WIDTH - len(title)), *_columns(rows, left={0, 1, 7 + len(report.tasks)})]


def _accuracy_of(i: IterationReport, model: str) -> str:
    score = i.scores.get(model, {}).get(OVERALL)
    return words.DASH if score is None else f"{100 * score.accuracy:.1f}"


def _columns(rows: Sequence[Sequence[str]], left: set[int], *, wrap_last: bool = False) -> list[str]:
    """Aligned columns, indented by two; `left` are left-aligned, the others right-aligned."""
    right = set(range(len(rows[0]))) - left
    if wrap_last:
        room = WIDTH - 2 - max(line.cell_len for line in columns((row[:-1] for row in rows), right=right, indent=2))
        rows = [
            (*row[:-1], textwrap.fill(row[-1], room, break_long_words=False, break_on_hyphens=False)) for row in rows
        ]
    return [str(line) for line in columns(rows, right=right, indent=2)]


def _wrapped(text: str, *, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
