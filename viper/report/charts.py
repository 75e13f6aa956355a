"""Which lines and bars the page shows, made from what was collected. Every chart comes with its figures as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from viper.evaluation.stage import BASE, THETA0
from viper.evaluation.statistics import OVERALL
from viper.report import words
from viper.report.collect import HELD_OUT_REWARD, RECALL, REWARD, IterationReport, LoopReport
from viper.report.svg import Axes, Mark, Series, line_chart
from viper.spec.recipe import CATEGORIES
from viper.words import plural

#: Curves beside the reward: (name, title, what it means to a reader, axis). Shares have the same axis everywhere.
_SHARE = Axes(x_label="step", y_range=(0.0, 1.0))
SHADOWS = (
    (RECALL, "Recall", "share of ground truths that some sentence hits", Axes(x_label="step", min_span=0.3)),
    ("shadow/items", "Sentences per output", "N of equation 6", Axes(x_label="step", min_span=1.0)),
    ("shadow/duplicates", "Duplicate share", "sentences that repeat an earlier one", _SHARE),
    ("groups/signal", "Signal share", "prompts whose outputs differ in reward; the others teach nothing", _SHARE),
    ("output/tokens", "Length", "tokens per output", Axes(x_label="step", min_span=10.0)),
    ("output/entropy", "Entropy", "nats per token; near zero: no more exploring", Axes(x_label="step", min_span=0.2)),
    ("shadow/distinct", "Distinct outputs", "share of different texts in a batch", _SHARE),
    ("output/finished", "Finished", "share of outputs that ended before the token limit", _SHARE),
)


@dataclass(frozen=True)
class Table:
    """Figures behind a chart."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """One panel: `svg` is markup of ours, everything else is text."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class Group:
    """Panels that share a legend (`(css class, label)`) and a table."""

    title: str
    charts: tuple[Chart, ...]
    legend: tuple[tuple[str, str], ...]
    table: Table


@dataclass(frozen=True)
class Bar:
    """A horizontal bar of parts `(css class, label, count)`."""

    label: str
    parts: tuple[tuple[str, str, int], ...]
    note: str = ""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(count for _, _, count in self.parts)


@dataclass(frozen=True)
class Bars:
    """Bars of one scale with the legend of what occurs in them."""

    title: str
    bars: tuple[Bar, ...]
    legend: tuple[tuple[str, str], ...]
    table: Table


def accuracy(report: LoopReport) -> Group | None:
    """Held-out accuracy of every checkpoint, one panel per domain; None when nothing was evaluated."""
    scored = [(number, i) for number, i in enumerate(report.iterations, start=1) if i.scores]
    if not scored:
        return None
    values = [v for _, i in scored for by in i.scores.values() for s in by.values() if s.n for v in (s.low, s.high)]
    low, high = math.floor(10 * min(values, default=0)) / 10, math.ceil(10 * max(values, default=1)) / 10
    count = len(report.iterations)
    every = -(-count // 8)
    axis = Axes(
        x_label="iteration",
        x_range=(-0.2, count + 0.2),
        x_ticks=[(0, "start"), *((n, str(n)) for n in range(every, count + 1, every))],
        y_range=(low, high),
        y_format=lambda v: f"{100 * v:g} %",
    )
    domains = sorted(report.domains, key=lambda d: d != OVERALL)
    panels = [_accuracy_panel(domain, scored, axis) for domain in domains]
    rows = [
        (domain, i.name, name, str(s.n), words.interval(s))
        for domain in domains
        for _, i in scored
        for m, name in i.called(i.scores).items()
        if (s := i.scores[m].get(domain)) is not None
    ]
    legend = (
        ("s1 dot", "θ0 and final checkpoint"),
        ("s1 ring", "after stage 1"),
        ("bad cross", "held"),
        ("base dashed", "starter"),
    )
    head = ("domain", "iteration", "model", "questions", "accuracy % [95 % interval]")
    return Group("Held-out accuracy", tuple(panels), legend, Table(head, tuple(rows)))


def _accuracy_panel(domain: str, scored: Sequence[tuple[int, IterationReport]], axis: Axes) -> Chart:
    series, told = [], []
    start = next((s for _, i in scored for m in (BASE, THETA0) if (s := i.scores.get(m, {}).get(domain))), None)
    if start is not None and axis.x_range is not None:
        series.append(Series("base", [(x, start.accuracy) for x in axis.x_range], dashed=True))
    for number, i in scored:
        learnt, called = i.learnt, i.called(i.scores)
        between = {model: number - 1 + k / len(learnt) for k, model in enumerate(learnt, 1)}
        places = {THETA0: number - 1.0, **between, i.final: float(number)}
        marks = []
        for model, x in places.items():
            score = i.scores.get(model, {}).get(domain)
            if score is None:
                continue
            held = model == i.final and i.state == "held"
            shape = "cross" if held else "dot" if model in (THETA0, i.final) else "ring"
            tip = f"{called[model]} of {i.name}: {words.interval(score)} % of {score.n}{', held' if held else ''}"
            marks.append(Mark(x, score.accuracy, score.low, score.high, shape, tip))
            told.append(tip)
        series.append(Series("s1", [(m.x, m.y) for m in marks], [m for m in marks if m.shape != "cross"]))
        series.append(Series("bad", marks=[m for m in marks if m.shape == "cross"]))
    count = next((s.n for _, i in scored for by in i.scores.values() if (s := by.get(domain))), 0)
    return Chart(domain, plural(count, "question"), line_chart(f"Accuracy, {domain}", "; ".join(told), series, axis))


def rewards(report: LoopReport) -> list[Group]:
    """Per training stage: reward (train and held-out) and the shadow curves, one line per iteration."""
    groups = []
    every = [(n, i.name, t) for n, i in enumerate(report.iterations, 1) for t in i.trainings if t.curves]
    for stage in dict.fromkeys(t.stage for _, _, t in every):
        runs = [r for r in every if r[2].stage == stage]
        task, lines, told = runs[0][2].task, [], []
        for number, name, training in runs:
            held_out = [Mark(x, y, shape="small") for x, y in training.series(HELD_OUT_REWARD)]
            lines.append(Series(_css(number), training.series(REWARD)))
            lines.append(Series(_css(number), [(m.x, m.y) for m in held_out], held_out, dashed=True))
            ends = training.ends(REWARD)
            told.append(f"{name}: {ends[0]:.3f} → {ends[1]:.3f}" if ends else name)
        svg = line_chart(f"Reward, {task}", "; ".join(told), lines, Axes(x_label="step", min_span=0.2))
        note = "solid: training outputs, sampled; dashed: held-out samples, greedy"
        charts = [Chart("Reward R", note, svg)]
        for curve, title, what, axis in SHADOWS:
            shadow = [Series(_css(number), training.series(curve)) for number, _, training in runs]
            if any(s.points for s in shadow):
                small = line_chart(f"{title}, {task}", what, shadow, axis)
                charts.append(Chart(title, what, small))
        legend = tuple((f"{_css(number)} solid", name) for number, name, _ in runs)
        head = ("iteration", "steps", "kept", "reward", "held-out reward", *(title for _, title, *_ in SHADOWS))
        rows = []
        for _, name, t in runs:
            cells = [_ends(t.ends(c)) for c in (REWARD, HELD_OUT_REWARD, *(c for c, *_ in SHADOWS))]
            rows.append((name, str(t.steps or len(t.curves)), words.kept(t.best_step), *cells))
        groups.append(Group(runs[0][2].title, tuple(charts), legend, Table(head, tuple(rows))))
    return groups


def funnels(report: LoopReport) -> list[Bars]:
    """Images, then per task: what became of every row that was made."""
    result = [images] if (images := _images(report)) else []
    for task in dict.fromkeys(f.task for i in report.iterations for f in i.funnels):
        found = [(i.name, f) for i in report.iterations for f in i.funnels if f.task == task]
        reasons: dict[str, int] = {}
        for _, f in found:
            for reason, count in f.rejected.items():
                reasons[reason] = reasons.get(reason, 0) + count
        order = sorted(reasons, key=lambda r: (-reasons[r], r))
        css = {reason: f"r{min(k, 6)}" for k, reason in enumerate(order)}
        bars = []
        for name, f in found:
            kept = [("ok", "train", f.train or 0), ("ok2", "held out", f.held_out or 0)]
            if f.accepted is not None and f.train is None:
                kept = [("ok", "accepted", f.accepted)]
            if f.accepted is None:
                waiting = f.made - sum(f.synthesis_rejected.values())
                kept = [("wait", "not validated yet", waiting)]
            parts = [*kept, *((css[r], r, f.rejected[r]) for r in order if r in f.rejected)]
            rate = "validation unfinished" if f.rate is None else f"{words.percent(f.rate)} accepted"
            bars.append(Bar(name, tuple(p for p in parts if p[2]), f"{f.made} made, {rate}"))
        legend = tuple(dict.fromkeys((css_class, label) for bar in bars for css_class, label, _ in bar.parts))
        head = ("iteration", "made", "accepted", "rate", "train", "held out", *order)
        rows = [
            (
                name,
                str(f.made),
                words.count(f.accepted),
                words.percent(f.rate),
                words.count(f.train),
                words.count(f.held_out),
                *(str(f.rejected.get(r, 0)) for r in order),
            )
            for name, f in found
        ]
        result.append(Bars(found[0][1].title, tuple(bars), legend, Table(head, tuple(rows))))
    return result


def balance(report: LoopReport) -> Bars | None:
    """Edit categories as the model chose them, as used where they were steered, and as accepted; None without any."""
    bars, rows = [], []
    for i in report.iterations:
        made, kept = (sum((Counter(m.counters) for m in i.made(what)), Counter()) for what in ("rows", "samples"))
        counted = [
            ("chosen", made, "chosen."),
            ("steered to", made if made["steered"] else {}, "used."),
            ("accepted", kept, "accepted."),
        ]
        for label, counters, prefix in counted:
            counts = [counters.get(f"{prefix}{c}", 0) for c in CATEGORIES]
            if not (total := sum(counts)):
                continue
            parts = tuple((f"c{k}", c, n) for k, (c, n) in enumerate(zip(CATEGORIES, counts, strict=True), 1) if n)
            bars.append(Bar(f"{i.name}, {label}", parts, str(total)))
            rows.append((i.name, label, *(f"{n} ({words.percent(n / total)})" for n in counts)))
    if not bars:
        return None
    legend = tuple((f"c{k}", category) for k, category in enumerate(CATEGORIES, 1))
    return Bars("Edit categories", tuple(bars), legend, Table(("iteration", "", *CATEGORIES), tuple(rows)))


def model_calls(report: LoopReport) -> Table | None:
    """What the models were asked in synthesis, how often an answer was tried again, and how often it stayed invalid."""
    rows = []
    for i in report.iterations:
        for counters in (manifest.counters for manifest in i.made("rows")):
            for key, requests in counters.items():
                step, _, kind = key.partition(".")
                if kind == "requests":
                    again = counters.get(f"{step}.attempts", requests) - requests
                    rows.append((i.name, step, str(requests), str(again), str(counters.get(f"{step}.failed", 0))))
    head = ("iteration", "step", "requests", "tried again", "given up")
    return Table(head, tuple(rows)) if rows else None


def differences(report: LoopReport) -> Table | None:
    """Every paired difference of every iteration and domain."""
    rows = [
        (
            i.name,
            " ".join((called.get(after, after), words.MINUS, called.get(before, before))),
            domain,
            words.difference(c),
            f"{c.wins} : {c.losses}",
            words.p_value(c.p_two_sided),
            words.verdict(c),
        )
        for i in report.iterations
        for called in (i.called(i.scores),)
        for pair, by_domain in i.comparisons.items()
        for after, before in (_models(pair, called),)
        for domain, c in sorted(by_domain.items(), key=lambda item: (item[0] != OVERALL, item[0]))
    ]
    head = ("iteration", "models", "domain", "difference, points [95 %]", "won : lost", "p", "")
    return Table(head, tuple(rows)) if rows else None


def _images(report: LoopReport) -> Bars | None:
    found = [(i.name, i.images) for i in report.iterations if i.images is not None]
    order = sorted({reason for _, m in found for reason in m.rejected})
    css = {reason: f"r{min(k, 6)}" for k, reason in enumerate(order)}
    bars, rows = [], []
    for name, m in found:
        total = m.accepted + sum(m.rejected.values())
        parts = [("ok", "accepted", m.accepted), *((css[r], r, n) for r, n in sorted(m.rejected.items()))]
        share = words.percent(m.accepted / total if total else None)
        bars.append(Bar(name, tuple(p for p in parts if p[2]), f"{total} read, {share} accepted"))
        rows.append((name, str(total), str(m.accepted), share, *(str(m.rejected.get(r, 0)) for r in order)))
    if not bars:
        return None
    legend = tuple(dict.fromkeys((css_class, label) for bar in bars for css_class, label, _ in bar.parts))
    return Bars("Images", tuple(bars), legend, Table(("iteration", "read", "accepted", "rate", *order), tuple(rows)))


def _models(pair: str, known: Collection[str]) -> tuple[str, str]:
    """The later and the earlier model of a comparison; a name may have hyphens of its own."""
    found = ((a, pair[len(a) + 1 :]) for a in known if pair.startswith(f"{a}-"))
    return next((both for both in found if both[1] in known), (pair.partition("-")[0], pair.partition("-")[2]))


def _css(number: int) -> str:
    return f"i{(number - 1) % 6 + 1}"


def _ends(ends: tuple[float, float] | None) -> str:
    return words.DASH if ends is None else f"{ends[0]:.3g} → {ends[1]:.3g}"
