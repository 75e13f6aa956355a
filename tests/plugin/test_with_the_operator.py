"""`kubectl viper` and the operator understand each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from fakes import world
from fakes.cluster import Cluster, install_definitions
from servers.kube import KubeApi
from viper_operator.plugin.main import main
from viper_operator.settings import Settings

pytestmark = pytest.mark.kube

Viper = Callable[..., str]


@pytest.fixture
def cluster(kube_api: KubeApi, tmp_path: Path) -> Iterator[Cluster]:
    """A namespace with a real operator and fake stages."""
    install_definitions(kube_api)
    with Cluster(kube_api, tmp_path / "cluster") as made:
        made.start()
        yield made


@pytest.fixture
def viper(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Viper:
    """`kubectl viper` with these arguments; its output."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main(["--kubeconfig", str(cluster.kubeconfig), "-n", cluster.namespace, *arguments])
        found = capsys.readouterr()
        assert code == 0, found.err
        return found.out

    return run


def test_a_failed_iteration_is_shown_retried_and_ends_promoted(cluster: Cluster, viper: Viper) -> None:
    world.fault(cluster.store, "validate-captions", "input-error")
    cluster.iteration()
    assert cluster.finished()["outcome"] == "Failed"
    shown = viper("status", "it")
    assert shown.startswith("it  Failed")
    assert "✘ validate-captions" in shown
    assert "✔ synthesize-captions" in shown
    assert "retry 1 asked for" in viper("retry", "it")
    viper("status", "it", "--watch")
    status = cluster.status()
    assert (status["outcome"], status["retries"]) == ("Promoted", 1)


def test_a_suspended_iteration_stops_and_goes_on(cluster: Cluster, viper: Viper) -> None:
    world.fault(cluster.store, "synthesize-captions", "hang")
    cluster.iteration()
    cluster.until(lambda s: s.get("stage") == "synthesize-captions" and not world.pending_faults(cluster.store))
    viper("suspend", "it")
    cluster.until(lambda s: s.get("outcome") == "Suspended")
    assert "‖ synthesize-captions" in viper("status", "it")
    viper("resume", "it")
    assert cluster.finished()["outcome"] == "Promoted"


def test_the_rendered_jobs_are_those_that_the_operator_made(
    cluster: Cluster, viper: Viper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump(cluster.iteration()))
    assert cluster.finished()["outcome"] == "Promoted"
    settings = Settings(cluster.namespace, cluster.store.uri, "sqlite:////none", "viper/cpu:test", "viper-store")
    monkeypatch.setattr("viper_operator.plugin.render.assumed", lambda _namespace: settings)
    rendered = {d["metadata"]["name"]: d for d in yaml.safe_load_all(viper("render", str(file)))}
    made = {name: {"apiVersion": "batch/v1", "kind": "Job", **job} for name, job in cluster.jobs().items()}
    assert sorted(made) == sorted(rendered)
    assert [d for name, job in rendered.items() for d in differences(job, made[name], name)] == []


def differences(wanted: object, found: object, path: str = "") -> list[str]:
    """Where `found` lacks what `wanted` has; the API server adds defaults of its own."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [d for k, v in wanted.items() for d in differences(v, found.get(k), f"{path}.{k}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [d for i, v in enumerate(wanted) for d in differences(v, found[i], f"{path}[{i}]")]
    return [] if wanted == found else [f"{path}: {wanted!r} is {found!r}"]
