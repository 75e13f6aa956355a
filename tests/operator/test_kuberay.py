"""Where KubeRay is installed, a stage on several nodes is a RayJob, which means what a Job means."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_objects import NOW, SETTINGS, START
from test_ray_specs import STAGE, iteration, made

from fakes import world
from fakes.cluster import Cluster
from fakes.kubelet import Connection
from servers.kube import KubeApi, eventually
from viper.methods.stages import declared
from viper.plan import Exit, Shard
from viper_operator.api import Api, connect
from viper_operator.job_specs import JobRequest, stage_job, stage_service
from viper_operator.observed import pod_report, shards_of
from viper_operator.ray_specs import RAY_VERSION
from viper_operator.views import JobView

KUBERAY = replace(SETTINGS, ray_jobs=True)
ROOT = Path(__file__).parents[2]
END = "2026-01-01T00:01:00Z"


def ray_job(**resources: Any) -> dict[str, Any]:
    return stage_job(JobRequest(iteration(**resources), "uid-it", declared(STAGE), attempt=2), KUBERAY)


def seen(deployment: str = "", job: str = "", **status: Any) -> JobView:
    """What the operator keeps of it, as a watch brings it: without its kind."""
    body = {k: v for k, v in ray_job().items() if k not in ("kind", "apiVersion")}
    body["metadata"] |= {"uid": "uid-ray", "resourceVersion": "7", "creationTimestamp": START}
    body["status"] = {"jobDeploymentStatus": deployment, "jobStatus": job, "startTime": START, **status}
    return JobView.of(body)


def test_the_program_and_the_pods_are_those_of_one_node() -> None:
    body = ray_job(deadlineSeconds=60)
    alone = stage_job(JobRequest(iteration(nodes=1, deadlineSeconds=60), "uid-it", declared(STAGE)), SETTINGS)
    container = alone["spec"]["template"]["spec"]["containers"][0]
    program = shlex.split(body["spec"]["entrypoint"])
    assert program[:2] == ["viper-job", STAGE]
    assert program[program.index("--shard") + 1] == "0/1"
    groups = body["spec"]["rayClusterSpec"]
    head, workers = groups["headGroupSpec"], groups["workerGroupSpecs"][0]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 1
    for group in (head, workers):
        assert group["rayStartParams"]["num-gpus"] == "8"
        pod = group["template"]["spec"]
        stage = pod["containers"][0]
        assert "command" not in stage, "KubeRay starts Ray"
        for same in ("image", "envFrom", "resources", "volumeMounts", "securityContext"):
            assert stage[same] == container[same]
        assert stage["env"] == [*container["env"], {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "60"}]
        assert pod["volumes"] == alone["spec"]["template"]["spec"]["volumes"]
        assert "activeDeadlineSeconds" not in pod
    assert body["spec"]["activeDeadlineSeconds"] == 60


def test_its_names_labels_owner_and_queue_are_those_of_the_job() -> None:
    job = made()
    ours, theirs = ray_job()["metadata"], job["metadata"]
    assert (ours["name"], theirs["name"]) == ("it-train-captions-a2", "it-train-captions")
    assert ours["labels"] == {**theirs["labels"], "viper.dev/attempt": "2"}
    assert (ours["annotations"], ours["ownerReferences"]) == (theirs["annotations"], theirs["ownerReferences"])
    assert stage_service(JobRequest(iteration(), "uid-it", declared(STAGE)), KUBERAY) is None


def test_stages_on_one_node_stay_jobs() -> None:
    one = iteration()
    assert stage_job(JobRequest(one, "uid-it", declared("evaluate")), KUBERAY) == stage_job(
        JobRequest(one, "uid-it", declared("evaluate")), SETTINGS
    )


def test_kuberay_is_told_the_ray_of_the_image() -> None:
    assert f"\nray=={RAY_VERSION} " in (ROOT / "images/training/requirements.lock").read_text()


@pytest.mark.parametrize(
    ("one", "shards"),
    [
        (seen(), {0: Shard(running_since=NOW, ended=1)}),
        (seen("Initializing", rayClusterName="c"), {0: Shard(running_since=NOW, ended=1)}),
        (seen("Running", "RUNNING", rayClusterName="c"), {0: Shard(running_since=NOW, ended=1)}),
        (seen("Complete", "SUCCEEDED", endTime=END), {0: Shard(ended=2, last=Exit(1767225660.0, 0))}),
        (
            seen(
                "Failed",
                "FAILED",
                endTime=END,
                reason="AppFailed",
                message="Job entrypoint command failed with exit code 7",
            ),
            {
                0: Shard(
                    ended=2, last=Exit(1767225660.0, 7, "AppFailed", "Job entrypoint command failed with exit code 7")
                )
            },
        ),
        (
            seen("Failed", "", endTime=END, reason="DeadlineExceeded", message="too long"),
            {0: Shard(ended=2, last=Exit(1767225660.0, 1, "DeadlineExceeded", "too long"))},
        ),
        (
            seen("Complete", "STOPPED", endTime=END),
            {0: Shard(ended=2, last=Exit(1767225660.0, 1, "STOPPED", ""))},
        ),
    ],
)
def test_what_it_means_for_the_stage(one: JobView, shards: dict[int, Shard]) -> None:
    assert shards_of(one, [], retries=5, now=NOW) == shards


def test_it_works_and_is_ready_when_its_program_runs() -> None:
    starting, running = seen("Initializing", rayClusterName="c"), seen("Running", "RUNNING", rayClusterName="c")
    assert [(j.working, j.active, j.ready, j.nodes) for j in (starting, running)] == [(True, 2, 0, 2), (True, 2, 2, 2)]
    assert (running.kind, running.gpus, running.stage, running.iteration) == ("RayJob", 16, STAGE, "it")


def test_a_pod_of_its_cluster_says_which_one_it_belongs_to() -> None:
    template = ray_job()["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    body = {"metadata": {"name": "head", **template["metadata"]}, "status": {"phase": "Pending"}}
    assert pod_report(body).job == "it-train-captions-a2"


def crd() -> dict[str, Any]:
    """KubeRay's definition of RayJob, from its Go module."""
    script = ROOT / "tests/cluster/build.sh"
    done = subprocess.run([script, "kuberay"], capture_output=True, text=True, check=True)
    found: dict[str, Any] = yaml.load(Path(done.stdout.strip(), "rayjobs.yaml").read_text(), Loader=yaml.CSafeLoader)
    return found


@pytest.fixture(scope="module")
def with_kuberay(kube_api: KubeApi) -> Any:
    """The API server while it knows RayJobs."""
    api, definition = Connection(kube_api.kubeconfig), crd()
    place = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = definition["metadata"]["name"]
    api.call("PATCH", f"{place}/{name}?fieldManager=test&force=true", definition, "application/apply-patch+yaml")

    def established() -> bool:
        conditions = api.call("GET", f"{place}/{name}").get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    eventually(established)
    yield kube_api
    api.call("DELETE", f"{place}/{name}")
    kube_api.kubectl("wait", "--for=delete", f"crd/{name}", "--timeout=60s")


async def knows(api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
    client = await connect()
    try:
        return await Api(client, "default").knows_ray_jobs()
    finally:
        await client.close()


@pytest.mark.kube
def test_a_cluster_without_kuberay_is_seen_as_such(kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(knows(kube_api, monkeypatch)) is False


@pytest.mark.kube
def test_kuberays_definition_is_found_and_takes_what_the_operator_makes(
    with_kuberay: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(knows(with_kuberay, monkeypatch)) is True
    body = ray_job(deadlineSeconds=60)
    body["metadata"]["namespace"] = "default"
    api = Connection(with_kuberay.kubeconfig)
    path = f"/apis/ray.io/v1/namespaces/default/rayjobs/{body['metadata']['name']}"
    query = "fieldManager=viper-operator&dryRun=All&fieldValidation=Strict"
    assert api.call("PATCH", f"{path}?{query}", body, "application/apply-patch+yaml")["spec"]["backoffLimit"] == 0


@pytest.mark.kube
@pytest.mark.slow
def test_an_operator_makes_rayjobs_and_goes_on_when_they_end(with_kuberay: KubeApi, cluster: Cluster) -> None:
    """KubeRay itself is not here: the test says in its place how RayJobs end."""
    profile = {"defaults": {"retries": 2}, "stages": {STAGE: {"nodes": 2, "workClaim": "w"}}}
    recipe = {"stages": "captions"}
    engines = {**world.ENGINES, "trainer": "verl"}
    cluster.start()
    cluster.iteration(profile=profile, engines=engines, recipe=recipe)
    place = f"/apis/ray.io/v1/namespaces/{cluster.namespace}/rayjobs"

    def ray_jobs() -> list[str]:
        return sorted(j["metadata"]["name"] for j in cluster.api.call("GET", place)["items"])

    def says(name: str, **status: Any) -> None:
        cluster.api.call("PATCH", f"{place}/{name}/status", {"status": status}, "application/merge-patch+json")

    eventually(lambda: ray_jobs() == ["it-train-captions"], 120)
    says("it-train-captions", jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c", startTime=START)
    cluster.until(lambda s: any(x["name"] == STAGE and x["state"] == "Running" for x in s["stages"]))
    failed = {"reason": "AppFailed", "message": "Job entrypoint command failed with exit code 1", "endTime": END}
    says("it-train-captions", jobDeploymentStatus="Failed", jobStatus="FAILED", **failed)
    eventually(lambda: ray_jobs() == ["it-train-captions", "it-train-captions-a2"], 60)
    again = {**failed, "message": "Job entrypoint command failed with exit code 3"}
    says("it-train-captions-a2", jobDeploymentStatus="Failed", jobStatus="FAILED", **again)
    status = cluster.finished()
    assert status["outcome"] == "Failed", "another attempt would meet the same input"
    stage = next(s for s in status["stages"] if s["name"] == STAGE)
    assert "exit code 3" in stage["message"]
    assert ray_jobs() == ["it-train-captions", "it-train-captions-a2"]
    cluster.api.call("DELETE", f"/apis/viper.dev/v1alpha1/namespaces/{cluster.namespace}/viperiterations/it")
    eventually(lambda: ray_jobs() == [], 60)
