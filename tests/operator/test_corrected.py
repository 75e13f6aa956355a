"""A typo does not burn a name, on a real API server."""

from __future__ import annotations

import urllib.error

import pytest

from fakes import world
from fakes.cluster import Cluster, stages
from viper.stage import load_frozen

pytestmark = [pytest.mark.kube, pytest.mark.slow]


def test_a_mistake_is_said_within_a_minute_and_corrected_under_the_same_name(cluster: Cluster) -> None:
    cluster.start()
    engines = {**world.ENGINES, "editor": "photoshop"}
    cluster.iteration(engines=engines)
    status = cluster.until(lambda s: s.get("outcome") == "Failed", patience_s=60)
    said = status["conditions"][0]
    assert (said["status"], said["reason"]) == ("False", "SpecError")
    for words in ("spec.engines.editor", "no engine 'photoshop'", "qwen-image-edit"):
        assert words in said["message"]
    assert list(cluster.jobs()) == ["it-freeze"], "nothing else was begun"
    assert not list(cluster.store.list("iterations/it/"))

    # What only a stage can tell: it is frozen by now, and nothing is made of it.
    world.fault(cluster.store, "ingest-images", "input-error")
    cluster.iteration(images={"uri": "file:///typo"})
    status = cluster.until(lambda s: s.get("outcome") == "Failed" and s["conditions"][0]["reason"] == "InputError")
    assert stages(status)["ingest-images"]["state"] == "Failed"
    one = cluster.iteration(images={"uri": "file:///i"})
    status = cluster.until(lambda s: s.get("outcome") == "Promoted")
    assert stages(status)["ingest-images"]["job"] == "it-ingest-images-r2"
    frozen = load_frozen(cluster.store, "it")
    assert frozen is not None
    assert (frozen.iteration.spec.images.uri, frozen.revision) == ("file:///i", 1)
    assert all(world.manifests(cluster.store, frozen).values())
    one["spec"]["images"]["uri"] = "file:///other"
    with pytest.raises(urllib.error.HTTPError):
        cluster.apply(one)
