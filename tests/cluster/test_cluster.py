"""The one-node cluster: names, Services and volumes work for pods; the same scripts leave another cluster alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from servers.kube import KubeApi
from servers.node import OneNode

SCRIPTS = Path(__file__).parent
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, image: str, code: str, **spec: Any) -> dict[str, Any]:
    """A pod under the restricted Pod Security level that runs Python code once."""
    mounts = spec.pop("volumeMounts", [])
    container = {"name": "it", "image": image, "command": ["python3", "-c", code], "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"fsGroup": 65532},
            "containers": [{**container, "volumeMounts": mounts}],
            **spec,
        },
    }


def finished(cluster: OneNode, namespace: str, name: str) -> str:
    """The log of a pod that succeeded."""
    for phase in ("Succeeded", "Failed"):
        patience = "120s" if phase == "Succeeded" else "0s"
        try:
            cluster.kubectl(
                "-n",
                namespace,
                "wait",
                f"pod/{name}",
                f"--for=jsonpath={{.status.phase}}={phase}",
                f"--timeout={patience}",
            )
        except subprocess.CalledProcessError:
            continue
        log = cluster.kubectl("-n", namespace, "logs", name)
        assert phase == "Succeeded", log
        return log
    raise AssertionError(cluster.kubectl("-n", namespace, "describe", "pod", name))


@pytest.mark.cluster
@pytest.mark.slow
def test_a_pod_reaches_a_service_by_its_name(one_node: OneNode) -> None:
    image = one_node.images("operator")["operator"]
    namespace = one_node.namespace()
    server = pod("server", image, "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    # A Service works some time after it was made: kube-proxy writes its rules when it comes to it.
    asks = f"""if True:
        import time, urllib.request
        until = time.monotonic() + 60
        while True:
            try:
                print(urllib.request.urlopen("http://server.{namespace}.svc.cluster.local", timeout=5).status)
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
        """
    one_node.apply(server, service, namespace=namespace)
    one_node.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/server", "--timeout=120s")
    one_node.apply(pod("asks", image, asks), namespace=namespace)
    assert finished(one_node, namespace, "asks") == "200\n"
    one_node.kubectl("delete", "namespace", namespace)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_claim_gets_a_volume_that_outlives_its_pod(one_node: OneNode) -> None:
    image = one_node.images("operator")["operator"]
    namespace = one_node.namespace()
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volume = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    one_node.apply(claim, pod("writes", image, "open('/data/a', 'w').write('kept')", **volume), namespace=namespace)
    finished(one_node, namespace, "writes")
    one_node.kubectl("-n", namespace, "delete", "pod", "writes")
    one_node.apply(pod("reads", image, "print(open('/data/a').read())", **volume), namespace=namespace)
    assert finished(one_node, namespace, "reads") == "kept\n"
    one_node.kubectl("delete", "namespace", namespace)


@pytest.mark.cluster
@pytest.mark.slow
def test_starting_it_again_restarts_nothing(one_node: OneNode) -> None:
    if "KUBECONFIG" in os.environ:
        pytest.skip("the cluster of KUBECONFIG is not ours to start")
    folder = one_node.kubeconfig.parent / "run"
    before = {path.name: path.read_text() for path in folder.glob("*.pid")}
    one_node.up()
    assert {path.name: path.read_text() for path in folder.glob("*.pid")} == before
    assert before.keys() >= {"etcd.pid", "kubelet.pid", "coredns.pid"}


@pytest.mark.kube
def test_a_cluster_that_is_given_is_used_and_never_removed(kube_api: KubeApi, tmp_path: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(kube_api.kubeconfig), "VIPER_CLUSTER": str(tmp_path / "cluster")}
    for script, printed in (("up.sh", f"{kube_api.kubeconfig}\n"), ("down.sh", "")):
        done = subprocess.run([SCRIPTS / script], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == printed
    assert kube_api.kubectl("get", "--raw", "/readyz") == "ok"
    assert not (tmp_path / "cluster").exists()
