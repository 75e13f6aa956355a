"""The operator dies, the API server fails, watches break: the iteration ends as if nothing had happened."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Answer, FaultProxy, Request

from fakes import world
from fakes.cluster import Cluster, stages
from servers.kube import eventually

pytestmark = [pytest.mark.kube, pytest.mark.slow]

#: The stages of an iteration, freezing included.
STAGES = 10


@pytest.fixture
def proxy(cluster: Cluster, tmp_path: Path) -> Iterator[FaultProxy]:
    """Between the operator and the API server."""
    with FaultProxy(cluster.kubeconfig, tmp_path) as made:
        cluster.kubeconfig = made.kubeconfig
        yield made


def lasting(status: dict[str, Any]) -> Any:
    """What of a status does not depend on when things happened."""
    conditions = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in status["conditions"]]
    kept = [{k: s.get(k) for k in ("name", "state", "reason", "message", "job", "headline")} for s in status["stages"]]
    whole = {k: status.get(k) for k in ("outcome", "stage", "progress", "version", "score", "generator", "retries")}
    return {**whole, "conditions": conditions, "stages": kept}


def nothing_twice(cluster: Cluster, name: str = "it") -> None:
    """Every stage had one Job and one pod, every part was made once."""
    jobs = cluster.jobs().values()
    by_stage = Counter(j["metadata"]["labels"]["viper.dev/stage"] for j in jobs)
    assert len(by_stage) == STAGES
    assert set(by_stage.values()) == {1}
    pods = Counter(p.rsplit("-", 2)[0] for p in cluster.kubelet.started)
    assert set(pods.values()) == {1}
    assert set(world.made(cluster.store).values()) == {1}
    told = Counter(cluster.events(name))
    assert set(told.values()) == {1}, told


@pytest.fixture(scope="module")
def undisturbed(kube_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """How an iteration without faults ends."""
    from fakes.cluster import install_definitions

    install_definitions(kube_api)
    with Cluster(kube_api, tmp_path_factory.mktemp("undisturbed")) as cluster:
        cluster.start()
        cluster.iteration()
        return lasting(cluster.finished())


def without_places(status: Any) -> Any:
    """Digests and folders of models differ from test to test."""
    return {
        **status,
        "generator": None,
        "stages": [{**s, "headline": None} for s in status["stages"][:1]] + status["stages"][1:],
    }


def test_an_operator_that_dies_after_every_single_write_does_nothing_twice(
    cluster: Cluster, proxy: FaultProxy, undisturbed: Any
) -> None:
    """The server has carried the write out, the operator never hears of it; its successor dies after the next one.

    Pods start only once the status knows of their Job, so that none of the writes of a transition is skipped.
    """

    def untold(pod: dict[str, Any]) -> bool:
        stage = stages(cluster.status()).get(pod["metadata"]["labels"]["viper.dev/stage"], {})
        return stage.get("job") is None

    def told_or_over() -> bool:
        cluster.kubelet.look_again()
        return died.is_set() or _ended(cluster)

    cluster.kubelet.hold = untold
    died = threading.Event()
    current: list[int] = []

    def kill(request: Request) -> None:
        if current:
            os.kill(current.pop(), signal.SIGKILL)
            died.set()

    proxy.after = kill
    cluster.iteration()
    deaths = 0
    for _ in range(200):
        died.clear()
        operator = cluster.start()
        current[:] = [operator.pid]
        eventually(told_or_over, 120)
        if not died.is_set():
            break
        operator.wait(30)
        deaths += 1
    current.clear()
    # A Job, an Event and the status for each stage; at the end an Event and the status. The status once more where a
    # pod was seen at work before it had ended.
    assert deaths == len(proxy.writes)
    assert 3 * STAGES + 2 <= deaths <= 4 * STAGES + 2
    assert without_places(lasting(cluster.status())) == without_places(undisturbed)
    nothing_twice(cluster)


def _ended(cluster: Cluster) -> bool:
    return cluster.status().get("outcome") == "Promoted"


def test_what_has_ended_is_observed_again_without_a_single_write(cluster: Cluster, proxy: FaultProxy) -> None:
    world.fault(cluster.store, "train-captions", "hang")
    cluster.start()
    cluster.iteration("first")
    cluster.until(lambda s: stages(s)["train-captions"]["state"] == "Running", "first")
    cluster.iteration("second")
    waits = lambda s: stages(s).get("train-captions", {}).get("reason") == "WaitsForModel"  # noqa: E731
    cluster.until(waits, "second")
    cluster.iteration("third", model="n", generator={"uri": (cluster.folder / "model").as_uri()})
    cluster.finished("third")
    cluster.kill()
    # Jobs end a moment after the manifests that end their stages: what the first operator had no time to write.
    operator = cluster.start()
    eventually(lambda: _metric(operator, "viper_reconciles_total") >= 3, 60)
    cluster.kill()
    before = len(proxy.writes)
    versions = [cluster.get(n)["metadata"]["resourceVersion"] for n in ("first", "second", "third")]
    operator = cluster.start()
    eventually(lambda: _metric(operator, "viper_reconciles_total") >= 3, 60)
    proxy.cut_watches()
    seen = _metric(operator, "viper_watch_events_total")
    eventually(lambda: _metric(operator, "viper_reconciles_total") >= 3 and seen >= 0, 60)
    assert proxy.writes[before:] == []
    assert [cluster.get(n)["metadata"]["resourceVersion"] for n in ("first", "second", "third")] == versions
    marks = ("kopf", "zalando")
    for name in ("first", "second", "third"):
        meta = cluster.get(name)["metadata"]
        assert "finalizers" not in meta
        assert not any(m in key for key in meta.get("annotations", {}) for m in marks)


def _metric(operator: Any, name: str) -> float:
    try:
        return operator.metric(name)  # type: ignore[no-any-return]
    except OSError:
        return -1.0


def every_third(answer: Answer) -> Callable[[Request], Answer | None]:
    """Every third write is answered like this, whether or not the server has heard of it."""
    turns = itertools.count()

    def fault(request: Request) -> Answer | None:
        return answer if request.write and next(turns) % 3 == 0 else None

    return fault


@pytest.mark.parametrize(
    "answer",
    [
        Answer(409),
        Answer(429, {"Retry-After": "1"}),
        Answer(500),
        Answer(500, after=True),
        Answer(503, {"Retry-After": "1"}, after=True),
    ],
    ids=["409", "429", "500", "500-after", "503-after"],
)
def test_writes_that_fail_or_seem_to_change_nothing_in_the_end(
    cluster: Cluster, proxy: FaultProxy, undisturbed: Any, answer: Answer
) -> None:
    proxy.before = every_third(answer)
    cluster.start()
    cluster.iteration()
    status = cluster.finished(patience_s=300)
    assert without_places(lasting(status)) == without_places(undisturbed)
    nothing_twice(cluster)


def test_watches_that_are_cut_or_too_old_are_begun_anew(cluster: Cluster, proxy: FaultProxy) -> None:
    """A watch of Jobs is cut at every stage; every second attempt to go on is answered with 410 Gone."""
    turns = itertools.count()

    def gone(request: Request) -> Answer | None:
        watch = "watch=true" in request.path and "resourceVersion=" in request.path
        return Answer(410) if watch and next(turns) % 2 else None

    proxy.before = gone
    cluster.start()
    cluster.iteration()
    for stage in ("ingest-images", "validate-captions", "train-captions", "evaluate"):
        cluster.until(lambda s, stage=stage: stages(s).get(stage, {}).get("state") in ("Running", "Succeeded"))
        proxy.cut_watches()
    assert cluster.finished()["outcome"] == "Promoted"
    nothing_twice(cluster)


def test_a_job_that_vanishes_while_its_watch_is_cut_is_missed(cluster: Cluster, proxy: FaultProxy) -> None:
    world.fault(cluster.store, "validate-captions", "hang")
    cluster.start(VIPER_SWEEP_SECONDS="2")
    cluster.iteration()
    eventually(lambda: len(cluster.kubelet.started) > 3 and not world.pending_faults(cluster.store), 120)
    proxy.before = lambda request: Answer(503) if "watch=true" in request.path else None
    proxy.cut_watches()
    path = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs/it-validate-captions"
    cluster.api.call("DELETE", f"{path}?propagationPolicy=Background")
    eventually(lambda: "it-validate-captions" not in cluster.jobs() or _again(cluster), 60)
    proxy.before = lambda request: None
    assert cluster.finished()["outcome"] == "Promoted"


def _again(cluster: Cluster) -> bool:
    return sum(p.startswith("it-validate-captions-") for p in cluster.kubelet.started) > 1


def test_a_store_that_is_down_is_said_and_waited_for(cluster: Cluster) -> None:
    world.fault(cluster.store, "validate-captions", "hang")
    cluster.start()
    cluster.iteration()
    eventually(lambda: not world.pending_faults(cluster.store), 120)
    folder = cluster.folder / "store" / "iterations"
    away = cluster.folder / "away"
    folder.rename(away)
    folder.symlink_to(folder)  # every access fails, with something else than "not found"
    for pod in cluster.kubelet.running:
        cluster.kubelet.kill(pod)
    status = cluster.until(lambda s: s["conditions"][0]["reason"] == "StoreUnavailable")
    assert (status["conditions"][0]["status"], status["outcome"]) == ("Unknown", "Running")
    folder.unlink()
    away.rename(folder)
    status = cluster.finished()
    assert status["outcome"] == "Promoted"
    assert set(world.made(cluster.store).values()) <= {1, 2}
