"""Figures and judgements in words, the same in the table and on the page."""

from __future__ import annotations

from dataclasses import dataclass

from viper.evaluation.stage import BASE, THETA0
from viper.evaluation.statistics import OVERALL, Comparison, Score
from viper.report.collect import IterationReport, LoopReport
from viper.reward.sentences import normalise

DASH = "–"
MINUS = "−"
#: Two-sided p-value below which a difference is called significant.
SIGNIFICANT = 0.05


def verdict(c: Comparison) -> str:
    """`better`, `WORSE`, `not significant` or `no difference`: plainly."""
    if c.difference == 0:
        return "no difference"
    if c.p_two_sided >= SIGNIFICANT:
        return "not significant"
    return "better" if c.difference > 0 else "WORSE"


def percent(share: float | None) -> str:
    """`37.5 %`; a dash while unknown."""
    return DASH if share is None else f"{100 * share:.1f} %"


def one_line(text: object, most: int) -> str:
    """Untrusted text for display: one line, no control characters (bidirectional overrides too), at most `most`."""
    line = normalise(str(text or ""))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def count(value: int | None) -> str:
    """The number; a dash while unknown."""
    return DASH if value is None else str(value)


def signed(value: float, digits: int = 1) -> str:
    """With an explicit sign and a real minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed."""
    return signed(100 * difference)


def p_value(p: float) -> str:
    """`p = 0.031` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(score: Score | None) -> str:
    """`38.0 [34.6, 41.5]` in per cent; a dash while unknown."""
    if score is None:
        return DASH
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def difference(c: Comparison | None) -> str:
    """`+6.8 [+2.1, +11.5]` in percentage points; a dash while unknown."""
    return DASH if c is None else f"{points(c.difference)} [{points(c.low)}, {points(c.high)}]"


def duration(seconds: float) -> str:
    """`41 s`, `2 min 05 s`, `1 h 12 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


def kept(best_step: int | None) -> str:
    """Which step's model a training kept: `step 40`, `start` (nothing was better), or a dash."""
    return {None: DASH, 0: "start"}.get(best_step, f"step {best_step}")


def reasons(counts: dict[str, int], empty: str = "none") -> str:
    """`perfect-caption 30, invalid-json 20`."""
    return ", ".join(f"{reason}\N{NO-BREAK SPACE}{count}" for reason, count in counts.items()) or empty


def outcome(iteration: IterationReport) -> str:
    """What became of the iteration, in one line without the reason."""
    o = iteration.outcome
    if o is None:
        stopped = next((s for s in iteration.stages if s.words != "done"), None)
        state = iteration.state.upper() if iteration.state in ("held", "failed") else iteration.state
        return f"{state} at {stopped.name}" if stopped else state
    version = "" if o.version is None else f" as version {o.version}"
    if o.decision == "promoted":
        before = "" if o.previous_version is None else f" (before: version {o.previous_version})"
        moved = f"; alias {o.alias!r} now points to it{before}" if o.alias else ""
        return f"promoted{version}{moved}"
    if o.decision == "held":
        return f"HELD: {'registered' + version if version else 'not registered'}, the alias did not move"
    return f"{o.decision}{version}; the alias did not move" if o.decision == "registered" else o.decision


def reason(iteration: IterationReport) -> str:
    """Why it was promoted, held or failed; empty while it is unfinished."""
    if iteration.outcome is not None:
        return iteration.outcome.reason
    return iteration.plan.summary.message if iteration.state in ("held", "failed") else ""


@dataclass(frozen=True)
class Finding:
    """The last evaluated checkpoint against a reference, in one domain."""

    iteration: IterationReport
    domain: str
    reference: str
    before: Score
    after: Score
    comparison: Comparison

    @property
    def checkpoint(self) -> str:
        """`θ2 of demo-3`."""
        final = self.iteration.final
        return f"{self.iteration.called([final])[final]} of {self.iteration.name}"

    @property
    def sentence(self) -> str:
        """One plain sentence."""
        c = self.comparison
        against = "the starter" if self.reference == BASE else "its θ0"
        return (
            f"{self.domain}: {percent(self.before.accuracy)} ({against}) → {percent(self.after.accuracy)} "
            f"({self.checkpoint}), {points(c.difference)} points, {p_value(c.p_two_sided)}: {verdict(c)}"
        )


def findings(report: LoopReport) -> list[Finding]:
    """Overall and per domain: the last evaluated θ2 against the starter, or against its θ0 when that is the starter."""
    for iteration in reversed(report.iterations):
        for reference in (BASE, THETA0):
            compared = iteration.comparisons.get(f"{iteration.final}-{reference}", {})
            before, after = iteration.scores.get(reference, {}), iteration.scores.get(iteration.final, {})
            if OVERALL in compared and OVERALL in before and OVERALL in after:
                order = [OVERALL, *(d for d in iteration.domains if d != OVERALL)]
                # θ0 of the first iteration is the starter, whatever the comparison is called.
                started = reference == BASE or iteration.frozen.generator.digest == iteration.frozen.base.digest
                return [
                    Finding(iteration, d, BASE if started else THETA0, before[d], after[d], compared[d])
                    for d in order
                    if d in compared and d in before and d in after
                ]
    return []


def conclusion(report: LoopReport) -> str:
    """The headline: what happened to held-out accuracy, whatever it is."""
    found = findings(report)
    if not found:
        return "No held-out evaluation yet: nothing can be said about perception."
    total = found[0]
    c, against = total.comparison, "the starter" if total.reference == BASE else "its θ0"
    size = f"{points(c.difference)} points overall ({p_value(c.p_two_sided)}, n = {total.after.n})"
    if c.difference == 0:
        text = f"Held-out accuracy of {total.checkpoint} equals that of {against}."
    elif c.p_two_sided >= SIGNIFICANT:
        text = f"No significant change in held-out accuracy: {total.checkpoint} against {against}, {size}."
    else:
        word = "better" if c.difference > 0 else "WORSE"
        text = f"Held-out accuracy got {word}: {total.checkpoint} against {against}, {size}."
    for word in ("better", "WORSE"):
        domains = ", ".join(f.domain for f in found[1:] if verdict(f.comparison) == word)
        text += f" {word[0].upper()}{word[1:]} in {domains}." if domains else ""
    o = total.iteration.outcome
    if o is not None and o.decision == "held":
        stays = "" if o.previous_version is None else f"; version {o.previous_version} stays the generator"
        text += f" {total.checkpoint} was held{stays}."
    return text
