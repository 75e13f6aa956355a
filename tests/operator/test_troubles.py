"""Nothing fails silently: what keeps an iteration from running is in its status, on a real API server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fakes import world
from fakes.cluster import Cluster, manifest, stages
from fakes.kubelet import MERGE
from servers.kube import eventually

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.usefixtures("watched")]


def said(cluster: Cluster, reason: str) -> dict[str, Any]:
    """The status, once its summary gives this reason."""
    return cluster.until(lambda s: s["conditions"][0]["reason"] == reason)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.api.call("GET", f"/api/v1/namespaces/{cluster.namespace}/pods")
    return found["items"]  # type: ignore[no-any-return]


def test_a_pod_that_no_node_takes_is_said_and_forgotten_once_it_runs(cluster: Cluster) -> None:
    cluster.kubelet.hold = lambda pod: True
    cluster.start()
    cluster.iteration()
    pod = eventually(lambda: pods(cluster))[0]["metadata"]["name"]
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPUs"}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/status"
    cluster.api.call("PATCH", path, {"status": {"conditions": [why]}}, MERGE)
    status = said(cluster, "Unschedulable")
    assert status["conditions"][0]["status"] == "Unknown"
    assert "0/3 nodes: no GPUs" in status["conditions"][0]["message"]
    assert status["progress"] == "0/10 stages, freeze Unschedulable"
    assert stages(status)["freeze"]["state"] == "Pending"
    assert "Unschedulable" in [reason for reason, _ in cluster.events()]
    cluster.kubelet.hold = lambda pod: False
    cluster.kubelet.look_again()
    assert cluster.finished()["outcome"] == "Promoted"


def test_pods_that_a_policy_forbids_are_said_with_the_policys_words(cluster: Cluster) -> None:
    """Restricted Pod Security refuses a privileged pod; the Job controller alone hears of it."""
    cluster.start(VIPER_POD_TEMPLATES="unrestricted")
    stage = {"name": "stage", "securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}
    cluster.iteration(profile={"defaults": {"podTemplate": {"spec": {"containers": [stage]}}}})
    status = said(cluster, "FailedCreate")
    assert "violates PodSecurity" in status["conditions"][0]["message"]


def test_a_job_that_cannot_be_made_fails_the_iteration_with_the_servers_words(cluster: Cluster) -> None:
    cluster.start()
    cluster.iteration(profile={"defaults": {"podTemplate": {"spec": {"restartPolicy": "Always"}}}})
    status = cluster.finished()
    assert (status["outcome"], status["conditions"][0]["reason"]) == ("Failed", "JobRefused")
    assert re.search("restartPolicy", status["conditions"][0]["message"])


def test_somebody_elses_job_of_the_same_name_is_left_alone(cluster: Cluster) -> None:
    container = {
        "name": "c",
        "image": "x",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    jobs = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs"
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "it-freeze"}, "spec": spec}
    before = cluster.api.call("POST", jobs, body)
    cluster.start()
    cluster.iteration()
    status = said(cluster, "NameTaken")
    assert "it-freeze" in status["conditions"][0]["message"]
    after = cluster.jobs()["it-freeze"]
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])


def test_a_loop_passes_suspension_on_and_makes_no_further_iteration_meanwhile(cluster: Cluster) -> None:
    world.fault(cluster.store, "validate-captions", "hang")
    cluster.start()
    kind = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperLoop", "metadata": {"name": "turn"}}
    loop = {**kind, "spec": {"iterations": 1, "template": manifest()["spec"]}}
    cluster.apply(loop)
    eventually(lambda: any(p.startswith("turn-1-validate-captions-") for p in cluster.kubelet.running), 120)
    eventually(lambda: not world.pending_faults(cluster.store))
    cluster.patch({"spec": {"suspend": True}}, "turn", "viperloops")
    cluster.until(lambda s: s.get("outcome") == "Suspended", "turn-1")
    conditions = cluster.status("turn", "viperloops")["conditions"]
    assert conditions[0]["status"] == "Unknown"
    cluster.patch({"spec": {"suspend": False}}, "turn", "viperloops")
    assert cluster.finished("turn-1")["outcome"] == "Promoted"
    eventually(lambda: cluster.status("turn", "viperloops")["conditions"][0]["status"] == "True")


def test_progress_is_in_the_status_while_a_stage_runs(cluster: Cluster) -> None:
    world.fault(cluster.store, "synthesize-captions", "hang", at=15)
    cluster.start()
    cluster.iteration()
    status = cluster.until(lambda s: stages(s).get("synthesize-captions", {}).get("items"))
    items = stages(status)["synthesize-captions"]["items"]
    assert items["total"] == 3
    assert 0 <= items["done"] <= 3
    assert f"{items['done']}/3 synthesize-captions" in status["progress"]


def test_a_pod_template_that_breaks_out_is_refused_before_anything_is_made(cluster: Cluster) -> None:
    """By the operator, which would otherwise have it made in the name of somebody who may not."""
    cluster.start()
    stage = {"name": "stage", "securityContext": {"privileged": True}}
    cluster.iteration(profile={"stages": {"evaluate": {"podTemplate": {"spec": {"containers": [stage]}}}}})
    status = cluster.finished()
    condition = status["conditions"][0]
    assert (status["outcome"], condition["status"], condition["reason"]) == ("Failed", "False", "PodTemplateRefused")
    assert "evaluate: podTemplate: spec.containers[stage].securityContext.privileged" in condition["message"]
    assert cluster.jobs() == {}


def test_one_bad_object_of_each_kind_stops_nothing_else(cluster: Cluster) -> None:
    """Progress with 400 digits, a Job with copied labels that trains, an iteration that nobody can read: others end."""
    world.fault(cluster.store, "synthesize-captions", "hang", at=15)
    operator = cluster.start()
    cluster.iteration()
    cluster.until(lambda s: stages(s).get("synthesize-captions", {}).get("state") == "Running")
    eventually(lambda: not world.pending_faults(cluster.store))
    key = "iterations/it/stages/synthesize-captions/progress/0-of-1.json"
    good = cluster.store.get(key)
    cluster.store.put(key, b'{"done": 1, "total": 1' + b"0" * 400 + b"}")
    jobs = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs"
    copied = cluster.jobs()["it-synthesize-captions"]
    meta = {k: v for k, v in copied["metadata"].items() if k in ("labels", "annotations")}
    labels = {k: v for k, v in meta["labels"].items() if k.startswith(("viper.dev/", "app.kubernetes.io/"))}
    meta = {"name": "copy", "annotations": meta["annotations"]}
    meta["labels"] = {**labels, "viper.dev/stage": "train-captions"}
    pod = copied["spec"]["template"]["spec"]
    template = {"metadata": {"labels": {"copy": "true"}}, "spec": {**pod, "nodeSelector": {"none": "such"}}}
    cluster.kubelet.hold = lambda pod: "copy" in pod["metadata"]["labels"]
    spec = {"template": template, "backoffLimit": 0}
    cluster.api.call("POST", jobs, {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec})
    status = cluster.until(lambda s: any(c["type"] == "InternalError" for c in s["conditions"]))
    odd = next(c for c in status["conditions"] if c["type"] == "InternalError")
    assert (odd["reason"], status["outcome"]) == ("ProgressUnreadable", "Running")
    cluster.iteration("other")
    assert cluster.finished("other")["outcome"] == "Promoted", "the copy trains the same model, and is nobody's"
    cluster.store.put(key, good)
    cluster.until(lambda s: all(c["type"] != "InternalError" for c in s["conditions"]))
    for name in [p for p in cluster.kubelet.running if p.startswith("it-synthesize-captions-")]:
        cluster.kubelet.kill(name)
    assert cluster.finished()["outcome"] == "Promoted"
    assert operator.alive
    assert "copy" in cluster.jobs()


def test_a_spec_that_is_large_with_its_defaults_written_out_is_frozen(cluster: Cluster) -> None:
    """More than Linux takes in one variable, and with what Kubernetes would expand in one."""
    env = [{"name": f"V{i}", "value": "漢" * 1300 + "$(HOME)"} for i in range(3)]
    every = ("freeze", "ingest-images", "synthesize-captions", "validate-captions", "train-captions")
    made = cluster.iteration(profile={"stages": {stage: {"env": env} for stage in (*every, "evaluate", "promote")}})
    assert len(json.dumps(made)) > 128 * 1024
    cluster.start()
    cluster.until(lambda s: stages(s).get("freeze", {}).get("state") == "Succeeded")
    container = cluster.jobs()["it-freeze"]["spec"]["template"]["spec"]["containers"][0]
    assert max(len(e.get("value", "").encode()) for e in container["env"]) < 128 * 1024
    frozen = json.loads(cluster.store.get("iterations/it/iteration.json"))
    given = frozen["iteration"]["spec"]["profile"]["stages"]["evaluate"]["env"]
    assert [e["value"] for e in given] == [e["value"] for e in env]
