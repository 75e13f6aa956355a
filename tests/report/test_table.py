from __future__ import annotations

from pathlib import Path

import pytest
from report_builders import Plan, build_iteration

from viper.report.table import summary_table
from viper.store import DirectoryStore

Loop = tuple[DirectoryStore, list[str]]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def built(store: DirectoryStore, tmp_path: Path, **changes: object) -> str:
    build_iteration(store, tmp_path / "work", Plan(**changes))  # type: ignore[arg-type]
    return summary_table(store, ["demo-1"])


def line_of(table: str, start: str) -> str:
    return next(line for line in table.splitlines() if line.strip().startswith(start))


def test_every_iteration_shows_its_data_rewards_accuracy_and_decision(loop: Loop) -> None:
    table = summary_table(*loop)
    for number in (1, 2, 3):
        assert f"demo-{number}: promoted as version {number + 1}" in table
    assert line_of(table, "captions").split()[1:5] == ["44", "24", "20", "54.5"]
    assert line_of(table, "fine-grained perception").split()[2] == "600"
    assert "θ2 − starter" in table
    assert table.index("over iterations") > table.index("demo-3: promoted")


def test_the_last_line_of_figures_compares_the_newest_model_with_the_starter(loop: Loop) -> None:
    table = summary_table(*loop)
    assert "Held-out accuracy got better: θ2 of demo-3 against the starter, +" in table


def test_lines_fit_a_wide_terminal(loop: Loop) -> None:
    assert max(map(len, summary_table(*loop).splitlines())) <= 120


def test_the_same_store_gives_the_same_table(loop: Loop) -> None:
    assert summary_table(*loop) == summary_table(*loop)


def test_a_held_iteration_says_why_and_that_it_got_worse(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, decision="held", gain=-0.08)
    assert "demo-1: HELD: registered as version 2, the alias did not move" in table
    assert "Reason: θ2 is significantly worse than θ0" in table
    assert "Held-out accuracy got WORSE" in table
    assert "version 1 stays the generator" in " ".join(table.split())
    assert line_of(table[table.index("paired difference") :], "overall").endswith("WORSE")


def test_a_small_difference_is_called_not_significant(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, gain=0.01)
    assert "No significant change in held-out accuracy" in table


def test_no_difference_is_called_that(store: DirectoryStore, tmp_path: Path) -> None:
    assert "equals that of the starter" in built(store, tmp_path, gain=0.0)


def test_a_reward_that_fell_is_marked(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path)
    assert "fell" not in table
    key = "iterations/demo-1/stages/train-captions/curves.jsonl"
    store.put(key, b'{"step": 1, "reward/mean": 0.5}\n{"step": 2, "reward/mean": 0.25}\n')
    assert "0.500 → 0.250 (−0.250 fell)" in summary_table(store, ["demo-1"])


def test_an_unfinished_iteration_shows_what_is_there_and_what_is_missing(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, running="train-captions")
    assert "demo-1: unfinished at train-captions" in table
    assert "train-captions (begun (caption 10/64))" in table
    assert line_of(table, "captions").split()[1] == "48"
    assert "accuracy: not evaluated" in table
    assert "nothing can be said about perception" in table


def test_an_iteration_that_was_never_started_is_named(store: DirectoryStore) -> None:
    assert "demo-1: not started" in summary_table(store, ["demo-1"])


def test_zero_accepted_samples_show_as_such_with_their_reasons(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, accept=False, until="validate-captions")
    row = line_of(table, "captions").split()
    assert row[2] == "0"
    assert "demo-1: HELD at validate-captions" in table
    assert "recipe.validation.minimumSamples is 1" in table
    assert "0.0 %" in line_of(table, "captions")
    assert "perfect-caption" in line_of(table, "captions")


def test_an_evaluation_without_questions_is_not_an_error(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, evaluate=False)
    assert "accuracy: not evaluated" in table
    assert "promoted as version 2" in table


def test_an_unreadable_manifest_is_reported_and_the_rest_still_shown(store: DirectoryStore, tmp_path: Path) -> None:
    built(store, tmp_path)
    store.put("iterations/demo-1/stages/evaluate/manifest.json", b"{}")
    table = summary_table(store, ["demo-1"])
    assert "demo-1: FAILED at evaluate" in table
    assert "is not a manifest" in table
    assert line_of(table, "captions").split()[1] == "48"


def test_with_captions_alone_the_final_checkpoint_is_theta1(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, stages="captions", images=16)
    assert "θ1 − θ0" in table
    assert "θ2" not in table.replace("θ2 is not significantly worse than θ0", "")
    assert "θ1 of demo-1" in table


def test_mixed_training_is_one_row(store: DirectoryStore, tmp_path: Path) -> None:
    table = built(store, tmp_path, stages="mixed", images=16)
    assert line_of(table, "mixed").split()[1] == "24"
