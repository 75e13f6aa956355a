"""What a manifest says of benchmarks: scores with intervals, paired comparisons, against the floors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from viper.evaluation.benchmarks import Verdict, headline, levels
from viper.evaluation.gate import is_number
from viper.evaluation.statistics import OVERALL, compare, score
from viper.spec.evaluation import Benchmark

if TYPE_CHECKING:
    from viper.evaluation.suites import AnswerRow

Answered = Mapping[str, Mapping[str, Verdict]]
"""Benchmark → question id → verdict, of one model."""


def benchmark_scores(answered: Answered, notes: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    """Of one model: benchmark → score, interval, counts and domains; `overall`, the mean of the benchmarks.

    Plain accuracy has Wilson's interval; HallusionBench, a mean over questions, pairs and figures, and the overall
    mean have the bootstrap's.

    Args:
        answered: the verdicts.
        notes: further counts of each benchmark, such as answers that were cut off.
    """
    from viper.evaluation.bootstrap import interval

    found: dict[str, dict[str, Any]] = {}
    for name, verdicts in answered.items():
        all_of = list(verdicts.values())
        plain = score([v.correct for v in all_of])
        low, high = plain.low, plain.high
        if levels(all_of):
            spread = interval({name: verdicts})
            low, high = spread.low, spread.high
        domains = dict.fromkeys(v.domain for v in all_of if v.domain)
        found[name] = {
            "score": headline(all_of),
            "low": low,
            "high": high,
            "n": plain.n,
            "correct": plain.correct,
            "domains": {d: asdict(score([v.correct for v in all_of if v.domain == d])) for d in sorted(domains)},
            **notes.get(name, {}),
        }
    mean = interval(answered)
    total = sum(s["n"] for s in found.values())
    return {**found, OVERALL: {"score": mean.value, "low": mean.low, "high": mean.high, "n": total}}


def benchmark_comparisons(before: Answered, after: Answered) -> dict[str, dict[str, Any]]:
    """Benchmark → the paired difference of scores by bootstrap, and `mcnemar` over its questions; `overall`: the mean.

    Raises `ValueError` when the two were asked different questions.
    """
    from viper.evaluation.bootstrap import difference

    found: dict[str, dict[str, Any]] = {}
    for name in after:
        if set(before[name]) != set(after[name]):
            raise ValueError(f"the two models were asked different questions of {name}")
        paired = [(before[name][q].correct, after[name][q].correct) for q in after[name]]
        exact = asdict(compare([a for a, _ in paired], [b for _, b in paired]))
        kept = ("n", "wins", "losses", "p_two_sided", "p_worse", "p_better")
        found[name] = {
            **asdict(difference({name: before[name]}, {name: after[name]})),
            "mcnemar": {k: exact[k] for k in kept},
        }
    return {**found, OVERALL: asdict(difference(before, after))}


def below_floor(scores: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Benchmark]) -> list[str]:
    """Benchmarks whose score is below the floor that is set for them, in words."""
    return [
        f"{name} {100 * scores[name]['score']:.1f} % < {100 * task.floor:.1f} %"
        for name, task in tasks.items()
        if task.floor is not None and name in scores and scores[name]["score"] < task.floor
    ]


def has_result(scores: Mapping[str, Any] | None) -> bool:
    """Whether a model's scores of one benchmark say anything: a number, of questions of which one was answered."""
    if scores is None or not is_number(scores.get("score")):
        return False
    return bool(scores.get("n", 0) > scores.get("unanswered", 0))


def counts(rows: Iterable[AnswerRow]) -> dict[str, int]:
    """Answers of a benchmark that were cut off at the token limit, and questions without an answer."""
    cut = unanswered = 0
    for row in rows:
        cut += row.finished is False and not row.note
        unanswered += bool(row.note)
    return {"truncated": cut, "unanswered": unanswered}


def in_order(tasks: Iterable[str], order: Iterable[str]) -> list[str]:
    """Tasks in the order of the paper's table, however the specification lists them."""
    wanted = set(tasks)
    return [name for name in order if name in wanted]
