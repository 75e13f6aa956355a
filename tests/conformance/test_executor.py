"""What every executor of plans does, whatever it runs programs on. A new executor joins `EXECUTORS` in conftest.py."""

from __future__ import annotations

import pytest

from conformance.executors import Executor
from fakes import world
from viper.methods.stages import INGEST, SYNTHESIZE_CAPTIONS, TRAIN_CAPTIONS, VALIDATE_CAPTIONS, stage_graph
from viper.plan import State


def stages(executor: Executor) -> list[str]:
    return [n.name for n in stage_graph(executor.frozen.iteration.spec.recipe)]


def test_an_iteration_runs_every_stage_once_and_ends_promoted(executor: Executor) -> None:
    made = executor.run()
    assert made.outcome == "promoted"
    assert made.summary.status == "True"
    assert all(world.manifests(executor.store, executor.frozen).values())
    assert set(world.made(executor.store).values()) == {1}


def test_a_finished_iteration_is_left_alone(executor: Executor) -> None:
    executor.run()
    before = [(o.key, o.size) for o in executor.store.list()]
    assert executor.run().outcome == "promoted"
    assert [(o.key, o.size) for o in executor.store.list()] == before


@pytest.mark.parametrize("act", ["killed", "broken"])
def test_a_stage_that_dies_is_tried_again_and_repeats_only_the_part_in_flight(executor: Executor, act: str) -> None:
    expected = undisturbed(executor)
    world.fault(executor.store, "synthesize-captions", act, at=7)
    assert executor.run().outcome == "promoted"
    assert not world.pending_faults(executor.store)
    assert world.manifests(executor.store, executor.frozen) == expected
    assert sum(world.made(executor.store).values()) <= len(world.made(executor.store)) + 1


def test_a_stage_that_dies_too_often_fails_the_iteration_with_its_last_error(executor: Executor) -> None:
    for _ in range(3):
        world.fault(executor.store, "validate-captions", "the disk is on fire")
    made = executor.run()
    assert made.outcome == "failed"
    assert made.summary.status == "False"
    assert made.summary.message.startswith("validate-captions: ")
    assert "the disk is on fire" in made.summary.message
    assert "3 attempts" in made.summary.message


def test_bad_input_fails_at_once_because_another_attempt_would_end_the_same(executor: Executor) -> None:
    world.fault(executor.store, "synthesize-captions", "input-error")
    made = executor.run()
    assert made.outcome == "failed"
    assert made.summary.reason == "InputError"
    assert "samples.jsonl: row 7 has no image" in made.summary.message


def test_success_without_a_manifest_is_a_failure(executor: Executor) -> None:
    for _ in range(3):
        world.fault(executor.store, "train-captions", "exit-0")
    made = executor.run()
    assert (made.outcome, made.summary.reason) == ("failed", "ManifestMissing")


def test_success_without_a_manifest_is_tried_again(executor: Executor) -> None:
    world.fault(executor.store, "train-captions", "exit-0")
    assert executor.run().outcome == "promoted"


def test_a_manifest_of_another_iteration_is_not_believed(executor: Executor) -> None:
    other = world.frozen("it", recipe={"seed": 5})
    executor.store.put(
        f"{executor.frozen.prefix}/stages/ingest-images/manifest.json",
        b'{"stage": "ingest-images", "iteration": "it", "identity": "%s"}' % other.identity.encode(),
    )
    made = executor.run()
    assert (made.outcome, made.summary.reason) == ("failed", "ManifestInvalid")
    assert "another frozen iteration" in made.summary.message


def test_rejecting_every_sample_holds_the_iteration_with_the_funnel_as_reason(executor: Executor) -> None:
    executor.store.put("settings/reject-validate-captions", b"")
    made = executor.run()
    assert (made.outcome, made.summary.reason) == ("held", "TooFewSamples")
    assert "validate-captions 0 of 12 (odd 12)" in made.summary.message
    started = [s.name for s in made.stages if s.state is not State.WAITING]
    assert "train-captions" not in started


@pytest.mark.parametrize("executor", [{"shards": 3}], indirect=True)
def test_shards_share_the_parts_and_end_in_the_manifests_of_a_single_process(executor: Executor) -> None:
    expected = undisturbed(executor)
    assert executor.run().outcome == "promoted"
    parts = [p for p in world.made(executor.store) if p.startswith("synthesize-captions/")]
    assert len(parts) == 3
    assert world.manifests(executor.store, executor.frozen) == expected
    assert set(world.made(executor.store).values()) == {1}


@pytest.mark.parametrize("executor", [{"deadline": 5}], indirect=True)
def test_a_stage_that_hangs_is_stopped_at_its_deadline_and_tried_again(executor: Executor) -> None:
    world.fault(executor.store, "evaluate", "hang")
    made = executor.run()
    assert made.outcome == "promoted"
    assert not world.pending_faults(executor.store)


def test_nothing_starts_while_the_iteration_is_suspended_and_it_goes_on_afterwards(executor: Executor) -> None:
    made = executor.run(suspend=True)
    assert made.outcome == "suspended"
    assert not any(world.manifests(executor.store, executor.frozen).values())
    assert executor.run().outcome == "promoted"


@pytest.mark.process
@pytest.mark.parametrize("stage", [INGEST, SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS, TRAIN_CAPTIONS])
def test_an_executor_that_dies_in_any_stage_is_succeeded_by_another(executor: Executor, stage: str) -> None:
    expected = undisturbed(executor)
    world.fault(executor.store, stage, "executor-killed", at=3)
    executor.crash()
    assert not world.pending_faults(executor.store)
    assert executor.run().outcome == "promoted"
    assert world.manifests(executor.store, executor.frozen) == expected


def undisturbed(executor: Executor) -> dict[str, str | None]:
    """Manifests of the same iteration, run elsewhere without faults."""
    twin = executor.twin()
    assert twin.run().outcome == "promoted"
    return world.manifests(twin.store, twin.frozen)
