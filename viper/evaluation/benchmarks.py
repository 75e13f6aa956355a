"""The seven benchmarks: what lmms-eval's per-question results mean. Pure.

lmms-eval's tasks report in seven forms. Here each becomes a `Verdict` per question, and back: `counted` computes from
verdicts the very numbers that the task's own aggregation gives, which is how the two are held against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from viper.spec.benchmarks import BENCHMARKS, BenchmarkFacts

Document = Mapping[str, Any]
"""A row of a data set, without its images."""
Metrics = Mapping[str, Any]
"""What `process_results` of a task makes of one answer."""


@dataclass(frozen=True)
class Verdict:
    """One question judged. `domain` and `kind` divide the questions (finer); empty where the task has no such thing.

    `groups` are sets of questions that only count when all are right (HallusionBench's qAcc and fAcc), each named by
    its level and key; `cluster` names what is resampled as a whole, the question itself where that is empty.
    """

    correct: bool
    expected: str
    domain: str = ""
    kind: str = ""
    groups: tuple[str, ...] = ()
    cluster: str = ""


@dataclass(frozen=True)
class BenchmarkInfo:
    """How answers to a benchmark of lmms-eval are judged.

    Args:
        task: a key of `BENCHMARKS`, which has its title, data set, folder and size.
        judge: see `Verdict`; raises `KeyError` when document or metrics are not the task's.
        aggregates: what the task's own aggregation gives, from verdicts: metric → value.
        cluster: questions of one cluster are drawn together when there is a limit.
        judged: a model scores the answers, unless the rule-based variant is taken.
    """

    task: str
    judge: Callable[[Document, Metrics], Verdict]
    aggregates: Callable[[Sequence[Verdict]], dict[str, float]]
    cluster: Callable[[Document], str] | None = None
    judged: bool = False

    @property
    def facts(self) -> BenchmarkFacts:
        """Where it is, and how large."""
        return BENCHMARKS[self.task]


def _mmstar(doc: Document, metrics: Metrics) -> Verdict:
    right = bool(metrics["average"]["score"] == 1)
    return Verdict(right, str(doc["answer"]), str(doc["category"]), str(doc["l2_category"]))


def _mmstar_aggregates(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Means over the finer categories of their accuracies, as lmms-eval has them; per domain, and over all."""
    found = {"average": _mean_of_kinds(verdicts)}
    for domain in dict.fromkeys(v.domain for v in verdicts):
        found[domain] = _mean_of_kinds([v for v in verdicts if v.domain == domain])
    return found


def _mean_of_kinds(verdicts: Sequence[Verdict]) -> float:
    kinds: dict[str, list[bool]] = defaultdict(list)
    for v in verdicts:
        kinds[v.kind].append(v.correct)
    return fmean(accuracy(right) for right in kinds.values())


def _exact_match(answer: str, domain: str = "") -> Callable[[Document, Metrics], Verdict]:
    def judge(doc: Document, metrics: Metrics) -> Verdict:
        return Verdict(bool(metrics["exact_match"] == 1), str(doc[answer]), str(doc.get(domain) or ""))

    return judge


def _mmerealworld(doc: Document, metrics: Metrics) -> Verdict:
    found = metrics["mme_realworld_score"]
    said, expected = str(found["pred_answer"]).lower(), str(found["answer"]).lower()
    domain = f"{found['category']}/{found['sub_category']}"
    return Verdict(said == expected or expected in said, str(doc["answer"]), domain, str(found["task_category"]))


def _blink(doc: Document, metrics: Metrics) -> Verdict:
    found = metrics["blink_acc"]
    return Verdict(bool(found["is_correct"]), str(found["gt_content"]), str(found["sub_task"]))


def _mantis(doc: Document, metrics: Metrics) -> Verdict:
    return Verdict(bool(metrics["mantis_score"]["correct"]), str(doc["answer"]), str(doc["question_type"]))


def _hallusion(doc: Document, metrics: Metrics) -> Verdict:
    """`correct` is what the judge left in the result; without one the rule: yes is answered exactly when it is true."""
    found = metrics["aAcc"]
    if "correct" in found:
        right = bool(found["correct"])
    else:
        right = ("1" if "yes" in found["model_prediction"].lower() else "0") == str(found["gt_answer"])
    cluster = hallusion_set(doc)
    groups = (f"q:{cluster}/{doc['question_id']}", f"f:{cluster}/{doc['figure_id']}")
    return Verdict(right, str(doc["gt_answer"]), str(doc["category"]), str(doc["subcategory"]), groups, cluster)


def hallusion_set(doc: Document) -> str:
    """The set of figures and questions that a row belongs to."""
    return f"{doc['category']}/{doc['subcategory']}/{doc['set_id']}"


def _hallusion_aggregates(verdicts: Sequence[Verdict]) -> dict[str, float]:
    all_right = level_scores(verdicts)
    return dict(zip(("aAcc", "qAcc", "fAcc"), all_right, strict=True))


def _mean(metric: str) -> Callable[[Sequence[Verdict]], dict[str, float]]:
    return lambda verdicts: {metric: accuracy([v.correct for v in verdicts])}


def accuracy(right: Sequence[bool]) -> float:
    """Share of right answers, 0 of none."""
    return sum(right) / len(right) if right else 0.0


def levels(verdicts: Iterable[Verdict]) -> list[str]:
    """Levels of groups (`q`, `f`), in order."""
    return list(dict.fromkeys(g.partition(":")[0] for v in verdicts for g in v.groups))


def level_scores(verdicts: Sequence[Verdict]) -> list[float]:
    """Accuracy per question, then, for every level, the share of groups whose questions are all right."""
    found = [accuracy([v.correct for v in verdicts])]
    for level in levels(verdicts):
        groups: dict[str, bool] = {}
        for v in verdicts:
            for group in v.groups:
                if group.partition(":")[0] == level:
                    groups[group] = groups.get(group, True) and v.correct
        found.append(accuracy(list(groups.values())))
    return found


def headline(verdicts: Sequence[Verdict]) -> float:
    """The score of a benchmark in 0..1: accuracy; for HallusionBench the mean of aAcc, qAcc and fAcc, as published."""
    return fmean(level_scores(verdicts)) if verdicts else 0.0


#: Task of lmms-eval → how its answers are judged and added up.
CATALOGUE: dict[str, BenchmarkInfo] = {
    info.task: info
    for info in (
        BenchmarkInfo("mmstar", _mmstar, _mmstar_aggregates),
        BenchmarkInfo("realworldqa", _exact_match("answer"), _mean("exact_match")),
        BenchmarkInfo("mmerealworld", _mmerealworld, _mean("mme_realworld_score")),
        BenchmarkInfo("blink", _blink, _mean("blink_acc")),
        BenchmarkInfo("mantis", _mantis, _mean("mantis_score")),
        BenchmarkInfo("hallusion_bench_image", _hallusion, _hallusion_aggregates, cluster=hallusion_set, judged=True),
        BenchmarkInfo("crpe_relation", _exact_match("correct_option", "category"), _mean("exact_match")),
    )
}
assert tuple(CATALOGUE) == tuple(BENCHMARKS)  # noqa: S101 - the specification names what is here


def disagreements(
    info: BenchmarkInfo, verdicts: Sequence[Verdict], reported: Mapping[str, float], tolerance: float = 1e-4
) -> list[str]:
    """Where the task's own aggregation does not give what its verdicts add up to; in words.

    Args:
        reported: metric → value, in 0..1 or (aAcc, qAcc and fAcc of the judged variant) in 0..100.
    """
    found = []
    for metric, value in info.aggregates(verdicts).items():
        said = reported.get(metric)
        scale = 100 if info.judged and said is not None and said > 1 else 1
        if said is None or abs(said / scale - value) > tolerance:
            found.append(f"{metric} is {said} in lmms-eval and {value:.6g} by its questions")
    return found
