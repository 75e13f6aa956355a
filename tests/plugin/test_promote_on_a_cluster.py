"""`kubectl viper promote`, `rollback` and `render` on a real API server with its Job controller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kubelet_server import LogServer
from plugin_builders import stage
from plugin_lab import RUNNING, Lab, begun

from fakes import world
from servers.kube import eventually

pytestmark = pytest.mark.kube


def pod_of(lab: Lab, job: str) -> str:
    """The Job's pod."""
    uid = lab.get("Job", job)["metadata"]["uid"]
    return str(eventually(lambda: lab.names("Pod", f"batch.kubernetes.io/controller-uid={uid}"))[-1])


def finish(lab: Lab, job: str, code: int, message: str = "") -> None:
    """The Job's pod has ended so, and the Job controller has seen it."""
    pod = pod_of(lab, job)
    terminated = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
    lab.status("Pod", pod, {**begun(terminated=terminated), "phase": "Failed" if code else "Succeeded"})
    end = "Failed" if code else "Complete"
    eventually(lambda: end in {c["type"] for c in lab.get("Job", job).get("status", {}).get("conditions", ())})


def job_of(lab: Lab) -> str:
    """The one Job that is there."""
    found = eventually(lambda: lab.names("Job"))
    assert len(found) == 1
    return str(found[0])


def test_promote_moves_the_alias_by_a_job_in_the_namespace(lab: Lab, logs: LogServer) -> None:
    lab.operator()
    lab.iteration("it", "Registered", stage("promote", "Succeeded"), version=6)
    with lab.started("promote", "it", "--reason", "better on charts") as promoting:
        name = job_of(lab)
        pod = pod_of(lab, name)
        lab.bind(pod, f"node-{lab.namespace}")
        logs.pieces[pod] = [["2026-11-20T10:00:00Z m@generator: version 5 → version 6"]]
        finish(lab, name, 0)
        out, err = promoting.communicate()
    assert (out, err, promoting.returncode) == ("m@generator: version 5 → version 6\n", "", 0)
    job = lab.get("Job", name)
    (container_,) = job["spec"]["template"]["spec"]["containers"]
    arguments = dict(zip(container_["args"][1::2], container_["args"][2::2], strict=True))
    request = arguments.pop("--request")
    assert len(request) == 32
    assert arguments == {
        "--tracking": "http://viper-mlflow:5000",
        "--model": "m",
        "--alias": "generator",
        "--version": "6",
        "--by": "admin",
        "--reason": "better on charts",
        "--termination-log": "/dev/termination-log",
    }
    assert (container_["command"], container_["args"][0]) == (["viper-registry"], "promote")
    assert container_["image"] == "viper.local/cpu:9"
    assert {"name": "VIPER_STORE", "value": "s3://viper?endpoint=http://viper-minio:9000"} in container_["env"]
    assert container_["envFrom"] == [{"secretRef": {"name": "viper-store"}}]
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_the_programs_own_words_tell_why_it_failed(lab: Lab) -> None:
    lab.operator()
    left = json.dumps({"reason": "AliasMovedError", "message": "models:/m@generator: moved\n  → compare the versions"})
    with lab.started("rollback", "m", "--to", "3") as rolling:
        name = job_of(lab)
        finish(lab, name, 5, left)
        out, err = rolling.communicate()
    assert (out, rolling.returncode) == ("", 10)
    assert f"error: job/{name}: models:/m@generator: moved\n  → compare the versions\n" in err


def test_the_same_wish_joins_the_job_that_runs_and_replaces_the_one_that_has_ended(lab: Lab) -> None:
    lab.operator()
    with lab.started("rollback", "m") as first:
        name = job_of(lab)
        uid = lab.get("Job", name)["metadata"]["uid"]
        with lab.started("rollback", "m") as second:
            assert second.stderr is not None
            assert second.stderr.readline() == f"job/{name} does the same already; waiting for it\n"
            finish(lab, name, 0)
            assert (first.wait(), second.wait()) == (0, 0)
    assert lab.get("Job", name)["metadata"]["uid"] == uid
    with lab.started("rollback", "m") as third:
        eventually(lambda: any(job["metadata"]["uid"] != uid for job in lab.items("Job")))
        finish(lab, name, 0)
        out, _ = third.communicate()
    assert (out, third.returncode) == (f"job/{name} is done\n", 0)


def test_a_job_that_does_not_start_is_told_and_left_to_itself(lab: Lab) -> None:
    lab.operator()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    lab.apply(quota)
    code, _, err = lab.viper("rollback", "m", "--timeout", "0")
    assert code == 10
    assert "not done after 0 s" in err
    assert "kubectl delete job viper-rollback-" in err
    assert len(lab.names("Job")) == 1


def test_a_dry_run_creates_nothing_and_the_job_fits_restricted_namespaces(lab: Lab) -> None:
    lab.operator()
    code, out, _ = lab.viper("rollback", "m", "--to", "2", "--dry-run")
    assert code == 0
    assert lab.names("Job") == []
    strict = lab.kube.namespace("strict", enforce="restricted")
    job = yaml.safe_load(out)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": job["spec"]["template"]["spec"]}
    lab.kube.apply(pod, namespace=strict)


def test_promote_refuses_an_iteration_without_a_version(lab: Lab) -> None:
    lab.operator()
    lab.iteration("it", "Running", *RUNNING)
    code, _, err = lab.viper("promote", "it")
    assert code == 10
    assert "it has not registered a version (Running)" in err


def test_render_takes_profile_and_settings_from_the_cluster(lab: Lab, tmp_path: Path) -> None:
    lab.operator()
    profile = {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperProfile",
        "metadata": {"name": "eight"},
        "spec": {"stages": {"synthesize-captions": {"shards": 8}}},
    }
    lab.apply(profile)
    body = world.iteration().dump()
    del body["spec"]["profile"]
    body["spec"]["profileRef"] = "eight"
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump(body))
    code, out, _ = lab.viper("render", str(file), "--live", "--stage", "synthesize-captions")
    assert code == 0
    job = yaml.safe_load(out)
    assert job["spec"]["completions"] == 8
    assert job["metadata"]["namespace"] == lab.namespace
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "viper.local/cpu:9"
