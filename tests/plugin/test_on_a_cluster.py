"""`kubectl viper` on a real API server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from plugin_builders import container, stage
from plugin_lab import RUNNING, Lab

from servers.kube import eventually

pytestmark = pytest.mark.kube

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
    assert (done.returncode, done.stderr) == (0, "note: no operator has acted in this namespace yet\n")
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
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": {"hard": {"pods": "0"}}}
    lab.apply(quota)
    pod = {"restartPolicy": "Never", "containers": [{"name": "stage", "image": "none"}]}
    meta = {"name": "it-synthesize-captions", "labels": {"viper.dev/iteration": "it"}}
    lab.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {"spec": pod}}})
    shown = eventually(lambda: next((t for t in [lab.viper("status", "it")[1]] if "!" in t), ""))
    assert "! FailedCreate: " in shown
    assert "exceeded quota: gpus" in shown


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
    assert re.search(rf"^{lab.namespace} +evolve ", everywhere, re.MULTILINE)  # as wide as the longest name of any test


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


def test_watching_ends_when_the_iteration_has_ended(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    with lab.started("status", "it", "--watch") as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        lab.describe("it", "Promoted", stage("promote", "Succeeded", headline="promoted, version 6"), version=6)
        rest, _ = watching.communicate()
    assert first.startswith("it  Running")
    assert watching.returncode == 0
    assert "it  Promoted  version 6" in rest
    assert "promoted, version 6" in rest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status", "nobody"], "there is no iteration or loop nobody"),
        (["retry", "iteration/nobody"], "there is no ViperIteration nobody"),
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
    assert lab.get("ViperLoop", "same")["spec"]["suspend"] is True
    assert lab.get("ViperIteration", "same")["spec"]["suspend"] is False


def test_suspend_and_resume_change_the_spec_once(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    assert lab.viper("suspend", "it")[1] == "ViperIteration it suspended; running stages stop, their work stays\n"
    version = lab.get("ViperIteration", "it")["metadata"]["resourceVersion"]
    assert lab.viper("suspend", "it")[1] == "ViperIteration it is suspended: nothing to do\n"
    assert lab.get("ViperIteration", "it")["metadata"]["resourceVersion"] == version
    assert lab.viper("resume", "it")[1] == "ViperIteration it resumed\n"
    assert lab.get("ViperIteration", "it")["spec"]["suspend"] is False


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
    assert lab.get("ViperIteration", "it")["metadata"]["annotations"]["viper.dev/retry"] == "3"
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
    assert "viper.dev/retry" not in lab.get("ViperIteration", "it")["metadata"].get("annotations", {})


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
    assert lab.get("ViperIteration", "it")["spec"]["suspend"] is False


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
