"""The benchmarks in the table and on the page, beside the paper's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_builders import Plan, build_iteration

from viper.report import page
from viper.report.benchmarks import conclusion, tables, verdict
from viper.report.collect import collect, collect_iteration
from viper.report.table import summary_table
from viper.store import DirectoryStore


@pytest.fixture
def store(directory_store: DirectoryStore, tmp_path: Path) -> DirectoryStore:
    build_iteration(directory_store, tmp_path / "work", Plan(benchmarks=True, gain=0.15))
    return directory_store


def line_of(table: str, start: str) -> list[str]:
    return next(line for line in table.splitlines() if line.strip().startswith(start)).split()


def test_scores_stand_beside_the_papers(store: DirectoryStore) -> None:
    text = summary_table(store, ["demo-1"])
    row = line_of(text, "MME-RealWorld")
    assert row[1] == "120"
    assert row[-6:] == ["53.1", "→", "54.6", "57.4", "→", "59.0"]
    assert line_of(text, "mean")[-6:] == ["58.7", "→", "60.4", "64.4", "→", "66.0"]
    assert max(map(len, text.splitlines())) <= 120


def test_mmstars_domains_come_with_the_papers_gains(store: DirectoryStore) -> None:
    (scores, *_) = tables(collect_iteration(store, "demo-1"))
    inner = {scores.rows[n][0]: scores.rows[n] for n in scores.inner}
    assert set(inner) == {"coarse perception", "math"}
    assert inner["coarse perception"][1] == "60"
    assert inner["coarse perception"][-2:] == ["+1.2", "+1.6"]


def test_differences_are_told_with_both_tests(store: DirectoryStore) -> None:
    (_, change, *_) = tables(collect_iteration(store, "demo-1"))
    assert change.title == "θ2 − θ0, points"
    mean = change.rows[-1]
    assert mean[0] == "mean"
    assert mean[3] == "better"
    assert mean[4:] == ["–", "–", "–"]
    mmstar = change.rows[0]
    won, lost = int(mmstar[4]), int(mmstar[5])
    assert won > lost
    assert mmstar[1].startswith(f"+{100 * (won - lost) / 120:.1f} [")


def test_the_conclusion_names_the_mean(store: DirectoryStore) -> None:
    said = conclusion(collect(store, ["demo-1"]))
    assert said.startswith("Held-out accuracy")
    assert "Mean of 7 benchmarks: " in said
    assert said.endswith(": better.")


def test_benchmarks_alone_are_a_result(directory_store: DirectoryStore, tmp_path: Path) -> None:
    build_iteration(directory_store, tmp_path / "work", Plan(benchmarks=True, questions=False, gain=0.15))
    text = summary_table(directory_store, ["demo-1"])
    assert "Result: Mean of 7 benchmarks" in text
    assert "not evaluated" not in text
    assert "No held-out evaluation" not in text


def test_the_page_has_the_tables_and_who_judged(store: DirectoryStore) -> None:
    html = page.render(store, collect(store, ["demo-1"]))
    assert '<section id="benchmarks">' in html
    assert "HallusionBench judged by rules" in html
    assert "76.4 → 77.6" in html


def test_without_benchmarks_there_is_no_section(directory_store: DirectoryStore, tmp_path: Path) -> None:
    build_iteration(directory_store, tmp_path / "work", Plan())
    assert 'id="benchmarks"' not in page.render(directory_store, collect(directory_store, ["demo-1"]))


@pytest.mark.parametrize(
    ("difference", "worse", "better", "word"),
    [
        (0.02, 0.99, 0.01, "better"),
        (-0.02, 0.01, 0.99, "WORSE"),
        (0.02, 0.9, 0.1, "not significant"),
        (0.0, 1.0, 1.0, "no difference"),
    ],
)
def test_verdicts(difference: float, worse: float, better: float, word: str) -> None:
    assert verdict({"difference": difference, "p_worse": worse, "p_better": better}) == word
