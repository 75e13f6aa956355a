"""The control plane of the tests: what it keeps over a restart, and how its fake nodes run Jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from servers.kube import KubeApi, eventually


@pytest.fixture(scope="module")
def own_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """One that these tests may kill."""
    with KubeApi(tmp_path_factory.mktemp("own"), audit=True) as api:
        yield api


def job(name: str, annotations: dict[str, str], **spec: Any) -> dict[str, Any]:
    container = {"name": "it", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
            **spec,
        },
    }


@pytest.mark.kube
def test_objects_outlive_every_server(own_api: KubeApi) -> None:
    namespace = own_api.namespace()
    own_api.restart_api()
    own_api.kubectl("get", "namespace", namespace)
    own_api.stop()
    own_api.start()
    own_api.kubectl("get", "namespace", namespace)


@pytest.mark.kube
def test_requests_are_audited_with_their_sender(own_api: KubeApi) -> None:
    namespace = own_api.namespace()
    found = [e for e in own_api.requests() if e.get("objectRef", {}).get("name") == namespace and e["verb"] == "patch"]
    assert [(e["user"]["username"], e["responseStatus"]["code"]) for e in found] == [("admin", 201)]


@pytest.mark.kube
@pytest.mark.slow
def test_pods_of_jobs_end_as_their_annotations_say(own_api: KubeApi) -> None:
    own_api.fake_nodes(2, gpus=4)
    namespace = own_api.namespace(enforce="privileged")
    fails = {"fake.viper.dev/exit-code": "3", "fake.viper.dev/message": '{"reason": "InputError"}'}
    jobs = [job("good", {}), job("bad", fails), job("endless", {"fake.viper.dev/seconds": "forever"})]
    own_api.apply(*jobs, namespace=namespace)

    def pods() -> dict[str, Any]:
        listed = json.loads(own_api.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
        found = {one["metadata"]["labels"]["job-name"]: one["status"] for one in listed}
        phases = {name: status["phase"] for name, status in found.items()}
        return found if phases == {"good": "Succeeded", "bad": "Failed", "endless": "Running"} else {}

    ended = eventually(pods)["bad"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], json.loads(ended["message"])["reason"]) == (3, "InputError")
    own_api.kubectl("-n", namespace, "wait", "--for=condition=Complete", "job/good", "--timeout=60s")
    own_api.kubectl("-n", namespace, "wait", "--for=condition=Failed", "job/bad", "--timeout=60s")
    own_api.kubectl("delete", "namespace", namespace, "--timeout=60s")
