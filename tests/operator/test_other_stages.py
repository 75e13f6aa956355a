"""The operator carries out stages that it never heard of: the stage image knows them, and freezes their graph."""

from __future__ import annotations

import pytest

from fakes import toys
from fakes.cluster import Cluster, stages

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.usefixtures("watched")]


def test_iterations_of_another_method_are_held_and_promoted_by_what_its_stages_make(cluster: Cluster) -> None:
    cluster.store.put(toys.TOYS, b"")
    cluster.start()
    names = ["freeze", *(node.name for node in toys.GRAPH)]

    cluster.store.put(f"settings/reject-{toys.SIFT}", b"")
    cluster.iteration("poor")
    status = cluster.finished("poor")
    assert (status["outcome"], status["progress"]) == ("Held", "sift-questions: TooFewSamples")
    assert status["conditions"][0]["message"] == (
        "sift-questions: 0 accepted training samples, recipe.validation.minimumSamples is 1. Acceptance: "
        "gather-pictures 12 of 12; ask-questions 9 of 12 (odd 3); sift-questions 0 of 12 (odd 12)."
    )
    assert [s["state"] for s in status["stages"]] == [*["Succeeded"] * 3, "Held", *["Waiting"] * 3]
    cluster.store.delete(f"settings/reject-{toys.SIFT}")

    cluster.iteration("it")
    status = cluster.finished()
    assert (status["outcome"], status["version"]) == ("Promoted", 2)
    assert status["conditions"][0]["message"] == "version 2, because"
    assert [(s["name"], s["state"]) for s in status["stages"]] == [(name, "Succeeded") for name in names]
    assert stages(status)["teach"]["headline"] == "3 steps"
    jobs = cluster.jobs()
    made = sorted((j["metadata"]["creationTimestamp"], n) for n, j in jobs.items() if n.startswith("it-"))
    assert {n for _, n in made} == {f"it-{name}" for name in names}
    started = [pod.rpartition("-")[0].rpartition("-")[0] for pod in cluster.kubelet.started if pod.startswith("it-")]
    assert list(dict.fromkeys(started)) == [f"it-{name}" for name in names]
    assert jobs["it-ask-questions"]["spec"]["completions"] == toys.SHARDS == started.count("it-ask-questions")
    trains = [n for n, j in jobs.items() if "viper.dev/trains" in j["metadata"]["annotations"]]
    assert trains == ["it-teach"]
    told = " ".join(message for _, message in cluster.events())
    assert all(f"{name} done" in told for name in names)
