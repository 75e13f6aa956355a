"""What lmms-eval's results mean, and the paper's numbers beside them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from viper.evaluation import paper
from viper.evaluation.benchmarks import CATALOGUE, Verdict, disagreements, headline, level_scores
from viper.evaluation.statistics import OVERALL
from viper.evaluation.suites import AnswerRow
from viper.evaluation.summary import below_floor, benchmark_comparisons, benchmark_scores, counts, in_order
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.evaluation import Benchmark
from viper.stage.rows import row_of


def hallusion(question: str, figure: str, said: str, truth: str, **judged: Any) -> Verdict:
    doc = {"category": "VD", "subcategory": "ocr", "set_id": "3", "figure_id": figure, "question_id": question}
    doc |= {"gt_answer": truth}
    return CATALOGUE["hallusion_bench_image"].judge(doc, {"aAcc": {**doc, "model_prediction": said, **judged}})


@pytest.mark.parametrize(
    ("said", "truth", "right"),
    [("Yes, it is.", "1", True), ("No.", "1", False), ("No.", "0", True), ("", "0", True), ("yes", "0", False)],
)
def test_hallusions_rule_reads_yes_or_no(said: str, truth: str, right: bool) -> None:
    assert hallusion("0", "1", said, truth).correct is right


def test_a_judges_verdict_comes_before_the_rule() -> None:
    assert not hallusion("0", "1", "Yes", "1", correct=0).correct
    assert hallusion("0", "1", "It is red.", "1", correct=1).correct


def test_hallusions_score_is_the_mean_of_questions_pairs_and_figures() -> None:
    asked = [("0", "1", True), ("0", "2", False), ("1", "1", True), ("1", "2", True)]
    verdicts = [hallusion(q, f, "Yes" if right else "No", "1") for q, f, right in asked]
    # 3 of 4 questions; of the two questions one is right on both figures; of the two figures one has both right.
    assert level_scores(verdicts) == [3 / 4, 1 / 2, 1 / 2]
    assert headline(verdicts) == pytest.approx(fmean([3 / 4, 1 / 2, 1 / 2]))
    info = CATALOGUE["hallusion_bench_image"]
    assert disagreements(info, verdicts, {"aAcc": 75.0, "qAcc": 50.0, "fAcc": 50.0}) == []
    assert disagreements(info, verdicts, {"aAcc": 0.75, "qAcc": 0.5, "fAcc": 0.5}) == []


def test_a_count_that_differs_from_the_tasks_own_is_told() -> None:
    verdicts = [Verdict(True, "A"), Verdict(False, "B")]
    info = CATALOGUE["mantis"]
    assert disagreements(info, verdicts, {"mantis_score": 0.5}) == []
    assert disagreements(info, verdicts, {"mantis_score": 1.0}) == [
        "mantis_score is 1.0 in lmms-eval and 0.5 by its questions"
    ]
    assert "is None in lmms-eval" in disagreements(info, verdicts, {})[0]


def test_scores_have_intervals_domains_and_a_mean() -> None:
    answered = {
        "mmstar": {f"m{i}": Verdict(i < 30, "A", "math" if i % 2 else "logical reasoning") for i in range(40)},
        "mantis": {f"t{i}": Verdict(i < 5, "A") for i in range(10)},
    }
    found = benchmark_scores(answered, {"mantis": {"truncated": 2, "unanswered": 0}})
    assert found["mmstar"]["score"] == 0.75
    assert found["mmstar"]["low"] < 0.75 < found["mmstar"]["high"]
    assert {d: s["n"] for d, s in found["mmstar"]["domains"].items()} == {"logical reasoning": 20, "math": 20}
    assert found["mantis"]["truncated"] == 2
    assert found[OVERALL]["score"] == pytest.approx((0.75 + 0.5) / 2)
    assert found[OVERALL]["n"] == 50


def test_models_are_compared_on_the_same_questions_only() -> None:
    one, other = ({"mantis": {f"t{i}": Verdict(i < k, "A") for i in range(10)}} for k in (5, 8))
    found = benchmark_comparisons(one, other)
    assert found["mantis"]["difference"] == pytest.approx(0.3)
    assert (found["mantis"]["mcnemar"]["wins"], found["mantis"]["mcnemar"]["losses"]) == (3, 0)
    with pytest.raises(ValueError, match="different questions of mantis"):
        benchmark_comparisons(one, {"mantis": {"else": Verdict(True, "A")}})


def test_benchmarks_below_their_floor_are_named() -> None:
    scores = {"mmstar": {"score": 0.55}, "mantis": {"score": 0.7}, "blink": {"score": 0.1}}
    tasks = {"mmstar": Benchmark(floor=0.6), "mantis": Benchmark(floor=0.7), "blink": Benchmark()}
    assert below_floor(scores, tasks) == ["mmstar 55.0 % < 60.0 %"]


def test_answers_that_were_cut_off_are_counted_apart_from_those_that_never_came() -> None:
    rows = [
        row_of(AnswerRow, {"finished": finished, "note": note})
        for finished, note in ((True, ""), (False, ""), (False, "the prompt is too long"))
    ]
    assert counts(rows) == {"truncated": 1, "unanswered": 1}


def test_benchmarks_come_in_the_papers_order() -> None:
    assert in_order(["mantis", "mmstar"], BENCHMARKS) == ["mmstar", "mantis"]


@pytest.mark.parametrize("model", list(paper.SCORES))
def test_the_papers_overall_is_the_mean_of_its_seven(model: str) -> None:
    assert fmean(paper.SCORES[model].values()) == pytest.approx(paper.OVERALL_SCORES[model], abs=0.06)
