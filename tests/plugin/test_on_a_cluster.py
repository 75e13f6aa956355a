"""`kubectl viper` on a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubelet_server import LogServer
from plugin_builders import container, stage
from plugin_lab import Lab

from fakes import world
from servers.kube import eventually

pytestmark = pytest.mark.kube

RUNNING = (
    stage("freeze", "Succeeded", headline="generator is version 5 of m"),
    stage("synthesize-captions", "Running", job="it-synthesize-captions", gpuSeconds=60.0,
          items={"done": 4, "total": 8, "rate": 0.5, "etaSeconds": 8.0}),
    stage("validate-captions", "Waiting"),
)  # fmt: skip
FAILED = (stage("freeze", "Succeeded"), stage("evaluate", "Failed", message="killed"))


def test_the_real_kubectl_finds_it(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    folder = Path(sys.executable).parent
    done = subprocess.run(
        [lab.kube.bin / "kubectl", "viper", "status", "it", "-n", lab.namespace],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(lab.kube.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "▶ synthesize-captions" in done.stdout
    assert "4/8 (0.5/s, 8 s left)" in done.stdout


def test_status_shows_what_keeps_pods_from_working(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    for index in range(2):
        waiting = container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})
        status = {"image": "", "imageID": "", "ready": False, "restartCount": 0}
        lab.pod(f"p-{index}", "it", "synthesize-captions", shard=index, containerStatuses=[{**status, **waiting[0]}])
    code, out, _ = lab.viper("status", "it")
    assert code == 0
    assert "! 2 pods: ImagePullBackOff: no such image" in out


def test_status_shows_why_a_job_has_no_pods(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "it.1"},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "exceeded quota: gpus",
        "involvedObject": {"kind": "Job", "name": "it-synthesize-captions", "namespace": lab.namespace},
    }
    lab.kube.apply(event, namespace=lab.namespace)
    assert "! FailedCreate: exceeded quota: gpus" in lab.viper("status", "it")[1]


def test_a_loop_shows_its_iterations_and_the_table_shows_everything(lab: Lab) -> None:
    lab.loop("evolve", iteration=2, of=3, current="evolve-2", version=5)
    lab.iteration("evolve-1", "Promoted", stage("freeze", "Succeeded"), loop="evolve", version=5, score="80.3 % (+8.4)")
    lab.iteration("evolve-2", "Running", *RUNNING, loop="evolve")
    lab.iteration("alone", "Failed", *FAILED)
    tree = lab.viper("status", "evolve")[1].splitlines()
    assert tree[0] == "evolve  Running  iteration 2 of 3  promoted: version 5"
    assert tree[1] == "├─ evolve-1  Promoted  version 5  80.3 % (+8.4)"
    assert tree[2].startswith("└─ evolve-2  Running")
    table = lab.viper("status")[1].splitlines()
    assert [line.split("  ")[0] for line in table] == ["NAME", "evolve", "├─ evolve-1", "└─ evolve-2", "alone"]
    everywhere = lab.viper("status", "-A")[1]
    assert f"{lab.namespace}   evolve " in everywhere


def test_status_is_machine_readable(lab: Lab) -> None:
    lab.loop("evolve", current="evolve-1")
    lab.iteration("evolve-1", "Running", *RUNNING, loop="evolve")
    found = json.loads(lab.viper("status", "evolve", "-o", "json")[1])
    assert found["iterations"][0]["status"]["stages"][1]["items"]["rate"] == 0.5
    found = yaml.safe_load(lab.viper("status", "-o", "yaml")[1])
    assert [i["kind"] for i in found["items"]] == ["ViperLoop"]


def test_an_empty_namespace_says_what_to_do(lab: Lab) -> None:
    code, out, _ = lab.viper("status")
    assert code == 0
    assert f"no iteration and no loop in namespace {lab.namespace}" in out


def test_watching_ends_when_the_iteration_has_ended(lab: Lab, tmp_path: Path) -> None:
    lab.iteration("it", "Running", *RUNNING)
    folder = Path(sys.executable).parent
    where = ["--kubeconfig", lab.kube.kubeconfig, "-n", lab.namespace]
    with subprocess.Popen(
        [folder / "kubectl-viper", "status", "it", "--watch", *where], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        lab.describe("it", "Promoted", stage("promote", "Succeeded", headline="promoted, version 6"), version=6)
        rest = watching.stdout.read()
    assert first.startswith("it  Running")
    assert watching.returncode == 0
    assert "it  Promoted  version 6" in rest
    assert "promoted, version 6" in rest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status", "nobody"], "there is no iteration or loop nobody"),
        (["retry", "iteration/nobody"], "there is no ViperIteration nobody"),
        (["suspend", "pod/nobody"], "write NAME, iteration/NAME or loop/NAME"),
        (["rollback", "m"], "no operator is installed here"),
    ],
)
def test_what_is_not_there_is_named(lab: Lab, arguments: list[str], expected: str) -> None:
    code, out, err = lab.viper(*arguments)
    assert (code, out) == (10, "")
    assert expected in err
    assert lab.namespace in err or "NAME" in err


def test_an_iteration_and_a_loop_of_one_name_are_told_apart(lab: Lab) -> None:
    lab.loop("same")
    lab.iteration("same", "Running", *RUNNING)
    code, _, err = lab.viper("suspend", "same")
    assert code == 10
    assert "write iteration/same or loop/same" in err
    assert lab.viper("suspend", "loop/same")[0] == 0
    assert lab.get("viperloop", "same")["spec"]["suspend"] is True
    assert lab.get("viperiteration", "same")["spec"]["suspend"] is False


def test_suspend_and_resume_change_the_spec_once(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    assert lab.viper("suspend", "it")[1] == "ViperIteration it suspended; running stages stop, their work stays\n"
    version = lab.get("viperiteration", "it")["metadata"]["resourceVersion"]
    assert lab.viper("suspend", "it")[1] == "ViperIteration it is suspended: nothing to do\n"
    assert lab.get("viperiteration", "it")["metadata"]["resourceVersion"] == version
    assert lab.viper("resume", "it")[1] == "ViperIteration it resumed\n"
    assert lab.get("viperiteration", "it")["spec"]["suspend"] is False


def test_what_has_ended_is_not_suspended(lab: Lab) -> None:
    lab.iteration("it", "Failed", *FAILED)
    code, _, err = lab.viper("suspend", "it")
    assert code == 10
    assert "has ended (Failed)" in err


def test_an_iteration_of_a_suspended_loop_is_resumed_by_its_loop(lab: Lab) -> None:
    lab.loop("evolve")
    lab.iteration("evolve-1", "Suspended", stage("freeze", "Suspended"), loop="evolve")
    lab.viper("suspend", "loop/evolve")
    code, _, err = lab.viper("resume", "evolve-1")
    assert code == 10
    assert "`kubectl viper resume loop/evolve`" in err


def test_retry_asks_for_the_next_number(lab: Lab) -> None:
    lab.iteration("it", "Failed", *FAILED, retries=2)
    code, out, err = lab.viper("retry", "it")
    assert (code, err) == (0, "")
    assert "retry 3 asked for" in out
    assert lab.get("viperiteration", "it")["metadata"]["annotations"]["viper.dev/retry"] == "3"
    code, _, err = lab.viper("retry", "it")
    assert code == 10
    assert "retry 3 of it has been asked for already" in err


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("Running", "neither failed nor held (Running)"),
        ("Suspended", "`kubectl viper resume it`"),
        ("Promoted", "never run again"),
        ("Registered", "`kubectl viper promote it`"),
    ],
)
def test_retry_refuses_what_has_not_failed(lab: Lab, outcome: str, expected: str) -> None:
    lab.iteration("it", outcome, *RUNNING)
    code, _, err = lab.viper("retry", "it")
    assert code == 10
    assert expected in err
    assert "viper.dev/retry" not in lab.get("viperiteration", "it")["metadata"].get("annotations", {})


def test_retry_of_a_held_promotion_says_what_overrules_it(lab: Lab) -> None:
    lab.iteration("it", "Held", stage("promote", "Held"), reason="PromotionHeld")
    code, out, err = lab.viper("retry", "it")
    assert code == 0
    assert "retry 1 asked for" in out
    assert "`kubectl viper promote it` overrules it" in err


def test_who_may_only_look_is_told_which_right_is_missing(lab: Lab, tmp_path: Path) -> None:
    lab.iteration("it", "Running", *RUNNING)
    look = {
        "apiGroups": ["viper.dev"],
        "resources": ["viperiterations", "viperloops"],
        "verbs": ["get", "list", "watch"],
    }
    jane = lab.user(tmp_path, look)
    code, out, _ = lab.viper("status", "it", kubeconfig=jane)
    assert code == 0
    assert "! troubles of pods are not shown: you may not list pods" in out
    code, _, err = lab.viper("suspend", "it", kubeconfig=jane)
    assert code == 10
    assert "you may not patch viperiterations.viper.dev" in err
    assert f"kubectl auth can-i patch viperiterations.viper.dev -n {lab.namespace}" in err
    assert lab.get("viperiteration", "it")["spec"]["suspend"] is False


def test_a_cluster_without_viper_says_so(lab: Lab) -> None:
    from viper_operator.plugin.api import Cluster, Resource, connect
    from viper_operator.plugin.errors import ClusterError

    arguments = type("Arguments", (), {"kubeconfig": str(lab.kube.kubeconfig), "context": None, "namespace": "default"})
    cluster: Cluster = connect(arguments())  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=r"does not know others\.viper\.dev"):
        cluster.collection(Resource("viper.dev", "v1alpha1", "others", "Other"))


def test_versions_of_all_parts_are_shown(lab: Lab) -> None:
    lab.operator()
    out = lab.viper("version")[1]
    assert "kubernetes  v1." in out
    assert "operator    9 (viper.local/operator:9, NOT RUNNING)" in out


# ---- logs ------------------------------------------------------------------------------------------------------------


def begun(**state: object) -> dict[str, object]:
    status = {"name": "stage", "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
    ended = "terminated" in state
    return {"phase": "Succeeded" if ended else "Running", "containerStatuses": [status]}


ENDED = begun(terminated={"exitCode": 0})


def test_logs_are_those_of_the_current_stage_with_shards_in_front(lab: Lab, logs: LogServer) -> None:
    lab.iteration("it", "Running", *RUNNING)
    for index in range(2):
        lab.pod(
            f"p-{index}", "it", "synthesize-captions", shard=index, node=f"node-{lab.namespace}", **begun(running={})
        )
        logs.pieces[f"p-{index}"] = [[f"2026-11-20T10:00:00Z line of {index}"]]
    assert lab.viper("logs", "it") == (0, "[0] line of 0\n[1] line of 1\n", "")
    assert lab.viper("logs", "it", "--shard", "1", "--tail", "5") == (0, "line of 1\n", "")
    assert logs.queries[-1] == {"pod": "p-1", "tailLines": "5"}


def test_a_pod_that_has_not_begun_says_why_there_is_no_log(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    lab.pod("p", "it", "synthesize-captions", conditions=[scheduled])
    code, _, err = lab.viper("logs", "it")
    assert code == 10
    assert "has written nothing yet: Unschedulable: no GPU" in err
    assert "validate-captions has not started" in lab.viper("logs", "it", "validate-captions")[2]


def test_following_survives_cut_connections_and_ends_with_the_stage(lab: Lab, logs: LogServer) -> None:
    lab.iteration("it", "Running", *RUNNING)
    node = f"node-{lab.namespace}"
    lab.pod("p", "it", "synthesize-captions", node=node, **begun(running={}))
    first = ["2026-11-20T10:00:00.1Z one", "2026-11-20T10:00:00.2Z two"]
    logs.pieces["p"] = [first, [*first, "2026-11-20T10:00:01Z three"]]
    folder = Path(sys.executable).parent
    where = ["--kubeconfig", lab.kube.kubeconfig, "-n", lab.namespace]
    command = [folder / "kubectl-viper", "logs", "it", "synthesize-captions", "-f", *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(3)]
        lab.status("pod", "p", ENDED)
        done = (stage("synthesize-captions", "Succeeded"), stage("validate-captions", "Running"))
        lab.describe("it", "Running", *done)
        rest, notes = following.communicate()
    assert lines == ["one\n", "two\n", "three\n"]
    assert (rest, following.returncode) == ("", 0)
    assert notes == "==> synthesize-captions, pod p\n"
    assert logs.queries[1]["sinceTime"].startswith("2026-11-20T10:00:00")


def test_following_goes_on_to_the_next_stage_until_the_iteration_ends(lab: Lab, logs: LogServer) -> None:
    node = f"node-{lab.namespace}"
    lab.iteration("it", "Running", *RUNNING)
    folder = Path(sys.executable).parent
    where = ["--kubeconfig", lab.kube.kubeconfig, "-n", lab.namespace]
    with subprocess.Popen(
        [folder / "kubectl-viper", "logs", "it", "-f", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stderr.readline() == "waiting for synthesize-captions: its pods have not started\n"
        logs.pieces["p"] = [["2026-11-20T10:00:00Z captions"]]
        lab.pod("p", "it", "synthesize-captions", node=node, **ENDED)
        assert following.stdout.readline() == "captions\n"
        lab.describe("it", "Running", stage("synthesize-captions", "Succeeded"), stage("validate-captions", "Running"))
        logs.pieces["q"] = [["2026-11-20T10:01:00Z validated"]]
        lab.pod("q", "it", "validate-captions", node=node, **ENDED)
        assert following.stdout.readline() == "validated\n"
        lab.describe("it", "Held", stage("validate-captions", "Held"))
        rest, _ = following.communicate()
    assert (rest, following.returncode) == ("", 0)


# ---- promote and rollback --------------------------------------------------------------------------------------------


def finish(lab: Lab, job: str, code: int, message: str = "") -> str:
    """The Job's pod has ended so; returns its name once the Job controller has seen it."""
    pods = ("-n", lab.namespace, "get", "pods", "-l", f"batch.kubernetes.io/job-name={job}")
    pod = eventually(lambda: lab.kube.kubectl(*pods, "-o", "jsonpath={.items[*].metadata.name}")).split()[-1]
    terminated = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
    lab.status("pod", pod, {**begun(terminated=terminated), "phase": "Failed" if code else "Succeeded"})
    condition = "Failed" if code else "Complete"
    lab.kube.kubectl("-n", lab.namespace, "wait", f"--for=condition={condition}", f"job/{job}", "--timeout=60s")
    return pod


def started(lab: Lab, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    where = ["--kubeconfig", str(lab.kube.kubeconfig), "-n", lab.namespace]
    program = Path(sys.executable).parent / "kubectl-viper"
    return subprocess.Popen([program, *arguments, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def job_of(lab: Lab) -> str:
    """The one Job that is there."""
    found = eventually(lambda: lab.names("jobs"))
    assert len(found) == 1
    return str(found[0])


def test_promote_moves_the_alias_by_a_job_in_the_namespace(lab: Lab) -> None:
    lab.operator()
    lab.iteration("it", "Registered", stage("promote", "Succeeded"), version=6)
    with started(lab, "promote", "it", "--reason", "better on charts") as promoting:
        name = job_of(lab)
        finish(lab, name, 0)
        out, err = promoting.communicate()
    assert promoting.returncode == 0, err
    assert f"job/{name} is done" in out
    job = lab.get("job", name)
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
    assert container_["envFrom"] == [{"secretRef": {"name": "viper-store"}}]
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_the_programs_own_words_tell_why_it_failed(lab: Lab) -> None:
    lab.operator()
    left = json.dumps({"reason": "AliasMovedError", "message": "models:/m@generator: moved\n  → compare the versions"})
    with started(lab, "rollback", "m", "--to", "3") as rolling:
        name = job_of(lab)
        finish(lab, name, 5, left)
        out, err = rolling.communicate()
    assert (out, rolling.returncode) == ("", 10)
    assert f"error: job/{name}: models:/m@generator: moved\n  → compare the versions\n" in err


def test_the_same_wish_joins_the_job_that_runs_and_replaces_the_one_that_has_ended(lab: Lab) -> None:
    lab.operator()
    with started(lab, "rollback", "m") as first:
        name = job_of(lab)
        uid = lab.get("job", name)["metadata"]["uid"]
        with started(lab, "rollback", "m") as second:
            finish(lab, name, 0)
            assert (first.wait(), second.wait()) == (0, 0)
    assert lab.get("job", name)["metadata"]["uid"] == uid
    with started(lab, "rollback", "m") as third:
        eventually(lambda: name in lab.names("jobs") and lab.get("job", name)["metadata"]["uid"] != uid)
        finish(lab, name, 0)
        assert third.wait() == 0


def test_a_job_that_does_not_start_is_told_and_left_to_itself(lab: Lab) -> None:
    lab.operator()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    lab.kube.apply(quota, namespace=lab.namespace)
    code, _, err = lab.viper("rollback", "m", "--timeout", "0")
    assert code == 10
    assert "not done after 0 s" in err
    assert "kubectl delete job viper-rollback-" in err
    assert len(lab.names("jobs")) == 1


def test_a_dry_run_creates_nothing_and_the_job_fits_restricted_namespaces(lab: Lab) -> None:
    lab.operator()
    code, out, _ = lab.viper("rollback", "m", "--to", "2", "--dry-run")
    assert code == 0
    assert lab.names("jobs") == []
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
    lab.kube.apply(profile, namespace=lab.namespace)
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
