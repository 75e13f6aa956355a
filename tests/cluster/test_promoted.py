"""The product as a person meets it: chart in a restricted namespace, a loop applied, versions promoted, a browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from end_to_end.test_small_world import iteration
from fakes import world
from servers.kube import binaries
from servers.node import OneNode
from viper.lineage import PARENT_VERSION
from viper.registry import Registry
from viper.registry.moves import ALIAS_MOVE
from viper.stage import load_frozen
from viper.store import open_store
from viper_operator.plugin.main import main as kubectl_viper

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
#: What a browser showed is kept here.
SCREENSHOTS = Path(os.environ.get("VIPER_SCREENSHOTS", ROOT / "runs" / "screenshots"))
MODEL = "smallworld"


def loop() -> dict[str, Any]:
    """Two small iterations of the small world."""
    template = iteration()["spec"]
    template["profile"] = {"defaults": {"retries": 2, "backoffSeconds": 1, "threads": 1}}
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {"name": "evolve"},
        "spec": {"iterations": 2, "template": template},
    }


def helm_values(images: dict[str, str]) -> list[str]:
    """Arguments that name our images and ask for little of the machine."""
    values = []
    for name, image in images.items():
        repository, tag = image.rsplit(":", 1)
        values += ["--set-string", f"images.{name}.repository={repository}", "--set-string", f"images.{name}.tag={tag}"]
    for server in ("minio", "mlflow"):
        values += ["--set", f"{server}.persistence.size=1Gi", "--set", f"{server}.persistence.retain=false"]
    return values


@pytest.fixture(scope="module")
def released(one_node: OneNode) -> Iterator[str]:
    """A namespace that enforces `restricted`, with the chart in it."""
    images = one_node.images("operator", "cpu", "minio")
    namespace = one_node.namespace()
    helm = [str(binaries("helm") / "helm"), "--kubeconfig", str(one_node.kubeconfig), "--namespace", namespace]
    # Another release (make cluster-demo's) may own the CustomResourceDefinitions and user roles.
    options = ["--take-ownership", "--wait", "--timeout", "10m", *helm_values(images)]
    subprocess.run([*helm, "install", "viper", str(ROOT / "charts" / "viper"), *options], check=True)
    yield namespace
    subprocess.run([*helm, "uninstall", "viper", "--wait", "--timeout", "3m"], check=True)
    one_node.kubectl("delete", "namespace", namespace, "--timeout=180s")


@contextmanager
def forwarded(cluster: OneNode, namespace: str, service: str, port: int) -> Iterator[int]:
    """A local port that leads to a service."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        local = free.getsockname()[1]
    command = [str(binaries("kubectl") / "kubectl"), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace]
    command += ["port-forward", f"service/{service}", f"{local}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "Forwarding" in process.stdout.readline()
        yield local
    finally:
        process.terminate()
        process.wait()


def seen(cluster: OneNode, namespace: str, resource: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("-n", namespace, "get", resource, "-o", "json"))
    return found


@pytest.fixture(scope="module")
def promoted(one_node: OneNode, released: str) -> str:
    """The namespace after the loop has ended well."""
    file = yaml.safe_dump(loop())
    one_node.kubectl("-n", released, "apply", "-f", "-", stdin=file)
    try:
        one_node.kubectl("-n", released, "wait", "viperloop/evolve", "--for=condition=Succeeded", "--timeout=40m")
    except subprocess.CalledProcessError as error:
        error.add_note(one_node.kubectl("-n", released, "get", "viperloops,viperiterations,jobs,pods", "-o", "wide"))
        raise
    return released


@pytest.mark.timeout(4800)
def test_the_next_iteration_of_a_loop_is_written_by_the_version_promoted_before(
    one_node: OneNode, promoted: str
) -> None:
    first, second = (seen(one_node, promoted, f"viperiteration/evolve-{n}")["status"] for n in (1, 2))
    assert [first["outcome"], second["outcome"]] == ["Promoted", "Promoted"]
    assert (first["generator"]["version"], first["version"]) == (1, 2)
    assert (second["generator"]["version"], second["version"]) == (2, 3)
    assert all(stage["state"] == "Succeeded" for stage in first["stages"] + second["stages"])
    status = seen(one_node, promoted, "viperloop/evolve")["status"]
    assert (status["iteration"], status["version"]) == (2, 3)
    assert not [pod for pod in seen(one_node, promoted, "pods")["items"] if pod["status"]["phase"] == "Failed"]


@pytest.mark.timeout(600)
def test_the_data_are_in_minio_and_the_version_with_its_lineage_in_mlflow(
    one_node: OneNode, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = seen(one_node, promoted, "secret/viper-store")["data"]
    for name, value in secret.items():
        monkeypatch.setenv(name, base64.b64decode(value).decode())
    with forwarded(one_node, promoted, "viper-minio", 9000) as port:
        store = open_store(f"s3://viper?endpoint=http://127.0.0.1:{port}")
        for name in ("evolve-1", "evolve-2"):
            frozen = load_frozen(store, name)
            assert frozen is not None
            assert all(world.manifests(store, frozen).values())
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        registry = Registry(f"http://127.0.0.1:{port}")
        assert registry.get_alias(MODEL, "generator") == 3
        version = registry.get(MODEL, 3)
        assert version.tags[PARENT_VERSION] == "2"
        assert version.source_uri.startswith("s3://viper")


@pytest.mark.timeout(600)
def test_a_browser_finds_the_version_its_alias_its_lineage_and_its_scores(one_node: OneNode, promoted: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no chromium: apt-get install chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    browser += ["--window-size=1400,1600", "--virtual-time-budget=60000"]
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        pages = {
            "model": (f"http://127.0.0.1:{port}/#/models/{MODEL}", ["Version 3", "generator", "viper.scores"]),
            "version": (
                f"http://127.0.0.1:{port}/#/models/{MODEL}/versions/3",
                ["Version 3", "generator", "viper.base_version", "evolve-2"],
            ),
        }
        for name, (address, words) in pages.items():
            picture = SCREENSHOTS / f"{name}.png"
            subprocess.run([*browser, f"--screenshot={picture}", address], check=True, capture_output=True, timeout=200)
            page = subprocess.run(
                [*browser, "--dump-dom", address], check=True, capture_output=True, text=True, timeout=200
            ).stdout
            assert picture.stat().st_size > 10_000
            assert all(word in page for word in words), page[-5000:]


@pytest.mark.timeout(600)
def test_a_person_moves_the_alias_back_and_forth_and_both_moves_are_recorded(
    one_node: OneNode, promoted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-n", promoted, "--kubeconfig", str(one_node.kubeconfig)]
    assert kubectl_viper(["rollback", MODEL, *where, "--reason", "reads worse"]) == 0
    assert f"{MODEL}@generator: version 3 → version 2" in capsys.readouterr().out
    assert kubectl_viper(["promote", "evolve-2", *where]) == 0
    assert f"{MODEL}@generator: version 2 → version 3" in capsys.readouterr().out
    with forwarded(one_node, promoted, "viper-mlflow", 5000) as port:
        registry = Registry(f"http://127.0.0.1:{port}")
        assert registry.get_alias(MODEL, "generator") == 3
        moves = {
            v.version: [n for t, n in v.tags.items() if t.startswith(ALIAS_MOVE)] for v in registry.versions(MODEL)
        }
    assert [len(moves[number]) for number in (1, 2, 3)] == [0, 1, 1]
    assert "rolled back" in moves[2][0]
    assert "reads worse" in moves[2][0]
    assert "promoted by" in moves[3][0]
