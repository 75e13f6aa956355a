"""A training stage on several nodes: its Job, the Service by which its pods find each other, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_objects import NOW, SETTINGS, job, job_body, pod_body, terminated

from fakes import world
from fakes.cluster import Cluster
from fakes.kubelet import Connection
from servers.kube import KubeApi, eventually
from viper.methods.stages import declared
from viper.plan import Exit, Shard
from viper.spec import ViperIteration
from viper_operator.job_specs import JobRequest, stage_job, stage_service
from viper_operator.names import NODES, RAY
from viper_operator.observed import pod_report, shards_of
from viper_operator.plugin.main import main
from viper_operator.views import JobView

STAGE = "train-captions"
TWO: dict[str, Any] = {
    "queueName": "research",
    "defaults": {"retries": 2},
    "stages": {STAGE: {"nodes": 2, "gpus": 8, "shmSize": "8Gi", "workClaim": "training", "retries": 2}},
}
EXAMPLES = Path(__file__).parents[2] / "examples"


def iteration(**resources: Any) -> ViperIteration:
    profile = {**TWO, "stages": {STAGE: {**TWO["stages"][STAGE], **resources}}}
    return world.iteration("it", profile=profile, engines={**world.ENGINES, "trainer": "verl"})


def made(stage: str = STAGE, **resources: Any) -> dict[str, Any]:
    return stage_job(JobRequest(iteration(**resources), "uid-it", declared(stage)), SETTINGS)


def service(stage: str = STAGE, **resources: Any) -> dict[str, Any] | None:
    return stage_service(JobRequest(iteration(**resources), "uid-it", declared(stage)), SETTINGS)


def test_a_job_has_a_pod_for_each_node_and_is_complete_when_the_first_one_is() -> None:
    spec = made()["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert spec["backoffLimit"] == 2, "an attempt of the stage, whichever node failed"
    rules = spec["podFailurePolicy"]["rules"]
    assert [r["action"] for r in rules] == ["Ignore", "Ignore", "FailJob"]
    assert rules[1]["onExitCodes"] == {"containerName": "stage", "operator": "In", "values": [75]}


def test_all_nodes_run_the_same_program_and_the_first_one_the_stage() -> None:
    template = made()["spec"]["template"]
    container = template["spec"]["containers"][0]
    assert container["command"] == ["python3", "-m", "viper_jobs.ray_node"]
    ours, stage = container["args"][:12], container["args"][13:]
    assert ours[:4] == ["--nodes", "2", "--node", "$(JOB_COMPLETION_INDEX)"]
    assert ours[4:10] == ["--head", "it-train-captions-0.nodes-it", "--gpus", "8", "--grace", "60"]
    assert container["env"][-1]["name"] == "VIPER_JOB_UID"
    assert template["spec"]["terminationGracePeriodSeconds"] == 60
    assert stage[:2] == ["viper-job", STAGE]
    assert stage[stage.index("--shard") + 1] == "0/1"
    assert stage[stage.index("--work-dir") + 1] == "/work/it/train-captions"
    assert template["spec"]["subdomain"] == "nodes-it"
    assert template["metadata"]["labels"][RAY] == "true"


def test_nodes_share_a_volume_and_each_has_its_gpus_and_shared_memory() -> None:
    job = made()
    pod = job["spec"]["template"]["spec"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["work"] == {"name": "work", "persistentVolumeClaim": {"claimName": "training"}}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert job["metadata"]["annotations"]["viper.dev/gpus"] == "16"


def test_the_queue_admits_all_nodes_or_none() -> None:
    assert made()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"


def test_a_node_without_gpus_still_counts_as_one_trainer() -> None:
    arguments = made(gpus=0)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--gpus") + 1] == "1"


def test_the_service_selects_the_pods_and_goes_with_the_iteration() -> None:
    found = service()
    assert found is not None
    labels = made()["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"].items() <= labels.items()
    assert found["spec"]["clusterIP"] == "None"
    assert found["spec"]["publishNotReadyAddresses"] is True, "they look for each other before they are ready"
    assert found["metadata"]["name"] == made()["spec"]["template"]["spec"]["subdomain"]
    assert [o["uid"] for o in found["metadata"]["ownerReferences"]] == ["uid-it"]


def test_a_stage_on_one_node_needs_no_service_and_forms_no_cluster() -> None:
    assert service("evaluate") is None
    assert service(nodes=1) is None
    job = made(nodes=1)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["viper-job"]
    assert "successPolicy" not in job["spec"]
    assert RAY not in job["spec"]["template"]["metadata"]["labels"]


def two(**fields: Any) -> JobView:
    body = job_body(STAGE, shards=2, **fields)
    body["metadata"]["labels"][NODES] = "2"
    return JobView.of(body)


def pod(index: int, code: int, at: str = "2026-01-01T00:00:50Z") -> Any:
    body = pod_body(f"it-{STAGE}", index=index, containerStatuses=terminated(code, message="why", at=at))
    body["metadata"]["labels"][RAY] = "true"
    return pod_report(body)


def test_all_its_pods_are_one_shard() -> None:
    assert shards_of(two(active=2), [], retries=2, now=NOW) == {0: Shard(running_since=NOW)}
    assert list(shards_of(two(condition="Complete"), [], retries=2, now=NOW)) == [0]


def test_failures_of_all_its_nodes_count_together() -> None:
    three = [pod(0, 1), pod(1, 137), pod(1, 1)]
    assert shards_of(two(active=2), three[:2], retries=2, now=NOW) == {0: Shard(running_since=NOW)}
    ended = shards_of(two(active=2), three, retries=2, now=NOW)[0]
    assert (ended.ended, ended.running_since) == (3, None)


def test_a_node_that_left_because_another_had_is_no_failure_and_no_reason() -> None:
    reports = [pod(0, 1, "2026-01-01T00:00:40Z"), pod(1, 75)]
    last = shards_of(two(condition="Failed"), reports, retries=2, now=NOW)[0].last
    assert last is not None
    assert isinstance(last, Exit)
    assert last.code == 1


def test_seventy_five_means_nothing_special_of_a_pod_that_is_alone() -> None:
    alone = pod_report(pod_body(containerStatuses=terminated(75)))
    assert alone.exit is not None
    assert shards_of(job(condition="Failed"), [alone], retries=2, now=NOW)[0].last == alone.exit


def test_rendered_jobs_of_the_example_span_two_nodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest = yaml.safe_load((EXAMPLES / "qwen-viper-7b.yaml").read_text())
    del manifest["spec"]["profile"]
    manifest["spec"]["profileRef"] = "a100-2x8"
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump(manifest))
    assert main(["render", str(file), "--profile", str(EXAMPLES / "two-nodes.yaml"), "--stage", STAGE]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [d["kind"] for d in documents] == ["Service", "Job"]
    pods = documents[1]["spec"]
    assert pods["parallelism"] == 2
    container = pods["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["args"][:2] == ["--nodes", "2"]
    assert pods["template"]["spec"]["subdomain"] == documents[0]["metadata"]["name"] == "nodes-qwen-viper-7b"


@pytest.mark.kube
def test_an_api_server_takes_both_where_pod_security_is_restricted(kube_api: KubeApi) -> None:
    api = Connection(kube_api.kubeconfig)
    query = "fieldManager=viper-operator&dryRun=All&fieldValidation=Strict"
    for body, path in (
        (made(), "/apis/batch/v1/namespaces/default/jobs"),
        (service(), "/api/v1/namespaces/default/services"),
    ):
        assert body is not None
        body["metadata"]["namespace"] = "default"
        answer = api.call("PATCH", f"{path}/{body['metadata']['name']}?{query}", body, "application/apply-patch+yaml")
        assert answer["metadata"]["name"] == body["metadata"]["name"]
        assert "warnings" not in answer


@pytest.mark.kube
@pytest.mark.slow
def test_an_operator_makes_the_service_and_a_job_of_two_pods_and_both_go_with_the_iteration(cluster: Cluster) -> None:
    cluster.kubelet.hold = lambda pod: pod["metadata"]["labels"]["viper.dev/stage"] == STAGE
    cluster.start()
    profile = {"defaults": {"retries": 2}, "stages": {STAGE: {"nodes": 2, "workClaim": "w"}}}
    engines = {**world.ENGINES, "trainer": "verl"}
    cluster.iteration(profile=profile, engines=engines, recipe={"stages": "captions"})
    space = f"/api/v1/namespaces/{cluster.namespace}"

    def pods() -> list[str]:
        found = cluster.api.call("GET", f"{space}/pods?labelSelector=viper.dev/stage={STAGE}")["items"]
        return sorted(f"{p['spec']['hostname']}.{p['spec']['subdomain']}" for p in found)

    def services() -> list[str]:
        return [s["metadata"]["name"] for s in cluster.api.call("GET", f"{space}/services")["items"]]

    eventually(lambda: pods() == ["it-train-captions-0.nodes-it", "it-train-captions-1.nodes-it"], 120)
    assert services() == ["nodes-it"]
    cluster.api.call("DELETE", f"/apis/viper.dev/v1alpha1/namespaces/{cluster.namespace}/viperiterations/it")
    eventually(lambda: (services(), cluster.jobs()) == ([], {}), 60)
