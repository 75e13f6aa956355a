"""What a person does with iterations, and what happens to operators, on a real API server."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from fakes import world
from fakes.cluster import Cluster, manifest, stages
from servers.kube import eventually

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.usefixtures("watched")]


def running(stage: str) -> Any:
    """Whether a status says that a stage runs."""
    return lambda status: stages(status).get(stage, {}).get("state") == "Running"


def pod_runs(cluster: Cluster, stage: str, name: str = "it") -> None:
    """Returns once the program of a stage is at work and has met the faults that were meant for it."""

    def runs() -> bool:
        assert cluster.operator is None or cluster.operator.alive, cluster.tail()
        return any(p.startswith(f"{name}-{stage}-") for p in cluster.kubelet.running)

    eventually(runs, 240)
    eventually(lambda: not world.pending_faults(cluster.store), 120)


def test_an_operator_that_is_killed_in_a_training_leaves_the_job_alone_and_its_successor_goes_on(
    cluster: Cluster,
) -> None:
    world.fault(cluster.store, "train-captions", "hang")
    cluster.start()
    cluster.iteration()
    pod_runs(cluster, "train-captions")
    cluster.until(running("train-captions"))
    before = cluster.jobs()["it-train-captions"]
    cluster.kill()
    pods = cluster.kubelet.running
    operator = cluster.start()
    eventually(lambda: _answers(operator) and operator.metric("viper_reconciles_total") >= 1)
    cluster.until(running("train-captions"))
    after = cluster.jobs()["it-train-captions"]
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert cluster.kubelet.running == pods


def test_suspending_stops_the_pods_and_resuming_repeats_only_the_part_in_flight(cluster: Cluster) -> None:
    world.fault(cluster.store, "synthesize-captions", "hang", at=10)
    cluster.start()
    cluster.iteration()
    pod_runs(cluster, "synthesize-captions")
    cluster.patch({"spec": {"suspend": True}})
    status = cluster.until(lambda s: s.get("outcome") == "Suspended")
    assert stages(status)["synthesize-captions"]["state"] == "Suspended"
    eventually(lambda: not cluster.kubelet.running)
    assert cluster.jobs()["it-synthesize-captions"]["spec"]["suspend"] is True
    cluster.patch({"spec": {"suspend": False}})
    assert cluster.finished()["outcome"] == "Promoted"
    made = world.made(cluster.store)
    assert sum(made.values()) <= len(made) + 1
    reasons = [reason for reason, _ in cluster.events()]
    assert {"Suspended", "Resumed", "Promoted"} <= set(reasons)


def test_a_failed_iteration_goes_on_when_a_person_asks_for_a_retry(cluster: Cluster) -> None:
    world.fault(cluster.store, "validate-captions", "input-error")
    cluster.start()
    cluster.iteration()
    status = cluster.finished()
    assert (status["outcome"], status["conditions"][0]["reason"]) == ("Failed", "InputError")
    assert "row 7 has no image" in status["conditions"][0]["message"]
    before = cluster.jobs()["it-ingest-images"]["metadata"]["uid"]
    cluster.annotate("viper.dev/retry", "1")
    status = cluster.until(lambda s: s.get("outcome") == "Promoted")
    assert status["retries"] == 1
    assert stages(status)["validate-captions"]["job"] == "it-validate-captions-r1"
    assert cluster.jobs()["it-ingest-images"]["metadata"]["uid"] == before


def test_a_profile_is_awaited_used_and_frozen(cluster: Cluster) -> None:
    cluster.start()
    one = manifest("it", profileRef="small")
    del one["spec"]["profile"]
    cluster.apply(one)
    status = cluster.until(lambda s: s.get("conditions"))
    assert status["conditions"][0]["reason"] == "ProfileNotFound"
    profile = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperProfile", "metadata": {"name": "small"}}
    env = [{"name": "COLOUR", "value": "blue"}]
    cluster.apply({**profile, "spec": {"defaults": {"retries": 0, "env": env}}})
    cluster.until(lambda s: stages(s).get("ingest-images", {}).get("job"))  # it may be done before it is said to run
    job = cluster.jobs()["it-ingest-images"]
    assert env[0] in job["spec"]["template"]["spec"]["containers"][0]["env"]
    cluster.apply({**profile, "spec": {"defaults": {"retries": 5}}})
    assert cluster.finished()["outcome"] == "Promoted"
    assert cluster.jobs()["it-promote"]["spec"]["backoffLimit"] == 0


def test_two_iterations_of_a_model_never_train_at_the_same_time(cluster: Cluster) -> None:
    world.fault(cluster.store, "train-captions", "hang")
    cluster.start()
    cluster.iteration("first")
    pod_runs(cluster, "train-captions", "first")
    cluster.iteration("second")
    waits = lambda s: stages(s).get("train-captions", {}).get("reason") == "WaitsForModel"  # noqa: E731
    status = cluster.until(waits, "second")
    assert "first" in stages(status)["train-captions"]["message"]
    assert "second-train-captions" not in cluster.jobs()
    cluster.patch({"spec": {"suspend": True}}, "first")
    assert cluster.finished("second")["outcome"] == "Promoted"
    cluster.patch({"spec": {"suspend": False}}, "first")
    assert cluster.finished("first")["outcome"] == "Promoted"


def test_a_loop_makes_the_next_iteration_after_a_promotion_and_stops_at_its_count(cluster: Cluster) -> None:
    cluster.start()
    template = manifest()["spec"]
    template["images"]["limit"] = 100
    kind = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperLoop", "metadata": {"name": "turn"}}
    cluster.apply({**kind, "spec": {"iterations": 2, "template": template}})
    eventually(lambda: _loop_status(cluster).get("conditions", [{}])[0].get("status") == "True", 240)
    status = _loop_status(cluster)
    assert (status["iteration"], status["of"], status["current"], status["version"]) == (2, 2, "turn-2", 2)
    assert status["conditions"][0]["reason"] == "AllIterationsDone"
    first, second = cluster.get("turn-1"), cluster.get("turn-2")
    assert (first["spec"]["images"]["offset"], second["spec"]["images"]["offset"]) == (0, 100)
    assert [o["name"] for o in second["metadata"]["ownerReferences"]] == ["turn"]
    told = sorted(reason for reason, _ in cluster.events("turn"))
    assert told == ["AllIterationsDone", "IterationStarted", "IterationStarted"]


def _loop_status(cluster: Cluster) -> dict[str, Any]:
    return cluster.status("turn", "viperloops")


def test_a_namespace_goes_while_the_operator_is_dead_and_an_iteration_is_at_work(cluster: Cluster) -> None:
    world.fault(cluster.store, "ingest-images", "hang")
    cluster.start()
    cluster.iteration()
    pod_runs(cluster, "ingest-images")
    cluster.kill()
    cluster.api.call("DELETE", f"/api/v1/namespaces/{cluster.namespace}")
    names = lambda: [n["metadata"]["name"] for n in cluster.api.call("GET", "/api/v1/namespaces")["items"]]  # noqa: E731
    eventually(lambda: cluster.namespace not in names(), 90)


def test_deleting_an_iteration_takes_its_jobs_and_an_equal_one_goes_on_where_it_was(cluster: Cluster) -> None:
    world.fault(cluster.store, "validate-captions", "hang")
    cluster.start()
    one = cluster.iteration()
    pod_runs(cluster, "validate-captions")
    cluster.api.call("DELETE", f"/apis/viper.dev/v1alpha1/namespaces/{cluster.namespace}/viperiterations/it")
    cluster.apply(one)
    assert cluster.finished()["outcome"] == "Promoted"
    assert set(world.made(cluster.store).values()) == {1}


def test_another_replica_takes_over_within_twenty_seconds_of_a_crash(cluster: Cluster) -> None:
    world.fault(cluster.store, "synthesize-captions", "hang")
    cluster.start(VIPER_LEASE="shared", VIPER_IDENTITY="one")
    cluster.iteration()
    pod_runs(cluster, "synthesize-captions")
    standby = cluster.another(VIPER_LEASE="shared", VIPER_IDENTITY="two")
    eventually(lambda: _answers(standby), 60)
    assert standby.metric("viper_leader") == 0
    cluster.kill()
    eventually(lambda: standby.metric("viper_leader") == 1, 20)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{cluster.namespace}/leases/shared"
    assert cluster.api.call("GET", lease)["spec"]["holderIdentity"] == "two"


def test_a_replica_that_is_told_to_stop_hands_over_at_once(cluster: Cluster) -> None:
    first = cluster.start(VIPER_LEASE="shared", VIPER_IDENTITY="one")
    eventually(lambda: _answers(first) and first.metric("viper_leader") == 1, 60)
    standby = cluster.another(VIPER_LEASE="shared", VIPER_IDENTITY="two")
    eventually(lambda: _answers(standby), 60)
    cluster.operator = None
    assert first.terminate() == 0
    eventually(lambda: standby.metric("viper_leader") == 1, 8)


def test_a_leader_that_was_frozen_for_long_ends_and_does_nothing_any_more(cluster: Cluster) -> None:
    first = cluster.start(VIPER_LEASE="shared", VIPER_IDENTITY="one")
    eventually(lambda: _answers(first) and first.metric("viper_leader") == 1, 60)
    cluster.operator = None
    first.signal(signal.SIGSTOP)
    standby = cluster.another(VIPER_LEASE="shared", VIPER_IDENTITY="two")
    eventually(lambda: _answers(standby) and standby.metric("viper_leader") == 1, 60)
    first.signal(signal.SIGCONT)
    assert first.wait(60) == 1


def _answers(operator: Any) -> bool:
    try:
        return operator.metric("viper_leader") >= 0  # type: ignore[no-any-return]
    except OSError:
        return False
