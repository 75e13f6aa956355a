"""Status models: written without what is not known, read with what is not known yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from viper.plan import State
from viper.spec.status import IterationStatus, StageStatus, StatusCondition
from viper.spec.status import State as StatusState

CONDITION = {"type": "Succeeded", "status": "True", "reason": "Promoted"}


def test_times_are_whole_seconds_in_utc() -> None:
    time = datetime(2026, 11, 21, 5, 4, 3, 999_999, tzinfo=timezone(timedelta(hours=2)))
    condition = StatusCondition.model_validate({**CONDITION, "lastTransitionTime": time})
    assert condition.last_transition_time == datetime(2026, 11, 21, 3, 4, 3, tzinfo=UTC)
    assert condition.dump()["lastTransitionTime"] == "2026-11-21T03:04:03Z"
    assert StatusCondition.model_validate(condition.dump()) == condition


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        StatusCondition.model_validate({**CONDITION, "lastTransitionTime": "2026-11-21T03:04:03"})


def test_what_is_not_known_is_left_out() -> None:
    status = IterationStatus(outcome="Running", stages=[StageStatus(name="freeze", state="Pending")])
    assert status.dump() == {
        "conditions": [],
        "outcome": "Running",
        "stages": [{"name": "freeze", "state": "Pending", "reason": "", "message": "", "gpuSeconds": 0.0}],
        "gpuSeconds": 0.0,
        "retries": 0,
    }


def test_a_reader_ignores_fields_of_a_newer_operator() -> None:
    assert IterationStatus.model_validate({"version": 3, "mood": "good"}) == IterationStatus(version=3)


def test_a_stage_can_be_in_every_state_of_a_plan() -> None:
    assert {s.value for s in State} == set(StatusState.__args__)
