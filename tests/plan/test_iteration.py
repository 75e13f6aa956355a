"""What `plan` makes of the table of cases, and what holds for every observation."""

from __future__ import annotations

import pytest

from plan.builders import NOW, done, ended, observed, spec
from plan.cases import CASES, PROMOTED, Case
from viper.plan import Done, Observed, StartStage, backoff, plan
from viper.stage import Manifest


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_plan(case: Case) -> None:
    made = plan(case.spec, case.seen, NOW)
    assert list(made.actions) == case.actions
    assert made.outcome == case.outcome
    assert made.wake_at == case.wake_at
    assert made.summary.type == "Succeeded"
    assert made.summary.status == {"promoted": "True", "registered": "True", "held": "False", "failed": "False"}.get(
        made.outcome, "Unknown"
    )
    if case.reason:
        assert made.summary.reason == case.reason
    if case.message:
        assert made.summary.message == case.message
    states = {s.name: s.state for s in made.stages}
    assert states.items() >= case.states.items()


def test_the_same_observation_gives_the_same_plan_however_often_it_is_asked() -> None:
    for case in CASES:
        assert plan(case.spec, case.seen, NOW) == plan(case.spec, case.seen, NOW)


def test_every_action_leads_on_until_the_iteration_is_promoted() -> None:
    """Carries out each plan in an ideal world: every stage that is started gets its manifest."""
    for recipe in (
        {},
        {"schedule": "upfront"},
        {"stages": "captions"},
        {"stages": "operations"},
        {"stages": "mixed"},
        {"coldStart": {"samplesUri": "file:///s"}},
    ):
        one, stages = spec(recipe=recipe), {}
        while not (made := plan(one, Observed(stages), NOW)).finished:
            started = [a.stage for a in made.actions if isinstance(a, StartStage)]
            assert started, made
            stages |= {s: done(decision="promoted" if s == "promote" else "") for s in started}
        assert made.outcome == "promoted"


def test_freezing_comes_before_every_stage_where_it_is_a_job() -> None:
    first = plan(spec(), observed(), NOW, freeze=True)
    assert list(first.actions) == [StartStage("freeze", 0, 1, 1)]
    assert [s.message for s in first.stages[1:3]] == ["waits for freeze", "waits for ingest-images"]
    then = plan(spec(), observed({"freeze": done()}), NOW, freeze=True)
    assert list(then.actions) == [StartStage("ingest-images", 0, 1, 1)]
    failed = plan(spec(), observed({"freeze": ended(2, message="no such model")}), NOW, freeze=True)
    assert (failed.outcome, failed.summary.message) == ("failed", "freeze: no such model")


@pytest.mark.parametrize(
    ("scores", "final", "text"),
    [
        ({"theta0": 0.719, "theta2": 0.803}, "theta2", "80.3 % (+8.4)"),
        ({"theta2": 0.5}, "theta2", "50.0 %"),
        ({"theta0": 0.5, "theta1": 0.4}, "theta1", "40.0 % (-10.0)"),
        ({"theta0": 0.5}, "theta2", ""),
        ({}, None, ""),
    ],
)
def test_the_score_of_an_evaluation_is_its_final_accuracy_and_the_gain(
    scores: dict[str, float], final: str | None, text: str
) -> None:
    found = {name: {"overall": {"accuracy": a}} for name, a in scores.items()}
    outputs = {"scores": found, "final": final}
    manifest = Manifest(stage="evaluate", iteration="it", identity="i", outputs=outputs)
    assert Done.of(manifest).score == text


@pytest.mark.parametrize(
    ("seen", "held", "suspended"),
    [
        (observed(), ("False", "NothingHeld"), ("False", "Active")),
        (observed(suspend=True), ("False", "NothingHeld"), ("True", "Suspended")),
        (observed({"ingest-images": done(0)}), ("True", "NoData"), ("False", "Active")),
        (observed({"ingest-images": ended(3)}), ("False", "NothingHeld"), ("False", "Active")),
        (observed(PROMOTED, suspend=True), ("False", "NothingHeld"), ("False", "Ended")),
        (observed({"ingest-images": done(0)}, suspend=True), ("True", "NoData"), ("False", "Ended")),
    ],
)
def test_conditions_tell_holds_from_suspension(
    seen: Observed, held: tuple[str, str], suspended: tuple[str, str]
) -> None:
    conditions = {c.type: (c.status, c.reason) for c in plan(spec(), seen, NOW).conditions}
    assert conditions["Held"] == held
    assert conditions["Suspended"] == suspended


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, 320), (8, 360), (20, 360)])
def test_pauses_double_up_to_a_limit(failures: int, seconds: float) -> None:
    assert backoff(5.0, failures) == seconds
