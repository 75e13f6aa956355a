"""External data and the watching of checkpoints, as the planner sees them."""

from __future__ import annotations

from plan.builders import NOW, done, observed, spec, upto
from viper.plan import Hold, StartStage, State, plan

EXTERNAL = {"external": {"uri": "x.jsonl"}, "stages": "mixed"}


def test_supplied_samples_come_first_where_nothing_is_synthesised() -> None:
    assert plan(spec(recipe=EXTERNAL), observed(), NOW).actions == (StartStage("ingest-samples", 0, 1, 1),)


def test_beside_our_own_data_both_sources_start_at_once() -> None:
    recipe = {"external": {"uri": "x.jsonl", "use": "add"}}
    started = {a.stage for a in plan(spec(recipe=recipe), observed(), NOW).actions if isinstance(a, StartStage)}
    assert started == {"ingest-images", "ingest-samples"}


def test_too_few_usable_samples_hold_the_iteration_with_the_reasons() -> None:
    none = done(0, train=0, rejected={"no-image": 3, "duplicate-sample": 1})
    made = plan(spec(recipe=EXTERNAL), observed({"ingest-samples": none}), NOW)
    assert made.outcome == "held"
    (hold,) = made.actions
    assert isinstance(hold, Hold)
    assert (hold.stage, hold.reason) == ("ingest-samples", "TooFewSamples")
    assert "ingest-samples 0 of 4 (no-image 3, duplicate-sample 1)" in hold.message


def test_checkpoints_are_watched_beside_the_evaluation_and_before_the_promotion() -> None:
    one = spec(recipe={"stages": "captions", "analysis": {"attentionImages": 2}})
    trained = upto("train-captions", one)
    started = {a.stage for a in plan(one, observed(trained), NOW).actions if isinstance(a, StartStage)}
    assert started == {"map-attention", "evaluate"}
    waiting = plan(one, observed(trained, {"evaluate": done()}), NOW)
    states = {s.name: s.state for s in waiting.stages}
    assert states["promote"] is State.WAITING
    ready = plan(one, observed(trained, {"evaluate": done(), "map-attention": done()}), NOW)
    assert ready.actions == (StartStage("promote", 0, 1, 1),)
