"""The resources that are created, and what plays the stage programs of those iterations that go all the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fakes import world
from fakes.kubelet import Connection
from viper.methods.stages import FREEZE, FREEZING, PROMOTE, StageNode, stage_graph
from viper.spec import ViperIteration, parse_resource
from viper.stage import FrozenIteration
from viper.stage.manifest import Manifest, PartRecord, manifest_key
from viper.store import ObjectStore
from viper_operator.job_specs import JobRequest, stage_job
from viper_operator.settings import Settings

ITERATIONS = "/apis/viper.dev/v1alpha1/namespaces/{}/viperiterations"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
#: Label of the pods of iterations that go all the way.
WALKS = "bench.viper.dev/walks"
#: Seconds that a pod of theirs is at work, after which its stage's manifest must be there.
STAGE_SECONDS = 5

#: What stages that make rows have made.
PART = PartRecord(index=0, key="parts/0", digest="0" * 64, rows=4, accepted=4, counters={"train": 4})


def iteration(name: str, seconds: str = "forever", **labels: str) -> dict[str, Any]:
    """A ViperIteration with a model of its own and one GPU per stage, whose pods run for so many seconds."""
    annotations = {"fake.viper.dev/seconds": seconds}
    profile = {"defaults": {"gpus": 1, "podTemplate": {"metadata": {"annotations": annotations, "labels": labels}}}}
    spec = {"model": name, "images": {"uri": "file:///i"}, "engines": world.ENGINES, "profile": profile}
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "metadata": meta, "spec": spec}


def job(namespace: str, name: str) -> dict[str, Any]:
    """A Job like the first of an iteration, by nobody."""
    one = parse_resource(iteration("any"))
    assert isinstance(one, ViperIteration)
    settings = Settings(namespace, "file:///store", "sqlite:////none", "viper/cpu:bench", "viper-store")
    body = stage_job(JobRequest(one, "uid", FREEZING.stage), settings)
    body["metadata"] = {"name": name, "namespace": namespace}
    return body


def jobset(namespace: str, name: str) -> dict[str, Any]:
    """A JobSet of that one Job, with all that JobSet's own webhook would fill in."""
    one = {"name": "work", "replicas": 1, "template": {"spec": job(namespace, name)["spec"]}}
    spec = {
        "successPolicy": {"operator": "All"},
        "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "replicatedJobs": [one],
    }
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": name}, "spec": spec}


class Stages:
    """Plays the programs of `iterations`: once a pod runs, what its stage makes is in the store."""

    def __init__(self, api: Connection, namespace: str, store: ObjectStore, names: list[str]) -> None:
        self._api, self._path, self._store = api, f"/api/v1/namespaces/{namespace}/pods", store
        self.bodies = {name: iteration(name, str(STAGE_SECONDS), **{WALKS: "true"}) for name in names}
        self._frozen = {name: self._freeze(body) for name, body in self.bodies.items()}
        self._digests: dict[str, dict[str, str]] = {name: {} for name in names}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Stages of all of them together."""
        return sum(1 + len(stage_graph(f.iteration.spec.recipe)) for f in self._frozen.values())

    def stop(self) -> None:
        """Plays no more."""
        self._over.set()

    def _freeze(self, body: dict[str, Any]) -> FrozenIteration:
        one = parse_resource(body)
        assert isinstance(one, ViperIteration)
        return world.frozen(one.metadata.name).model_copy(update={"iteration": one})

    def _run(self) -> None:
        query = f"?watch=1&labelSelector={WALKS}&timeoutSeconds=3000"
        while not self._over.is_set():
            with suppress(OSError), self._api.open("GET", f"{self._path}{query}") as watch:
                for pod in self._running(watch):
                    labels = pod["metadata"]["labels"]
                    self._play(labels["viper.dev/iteration"], labels["viper.dev/stage"])

    def _running(self, watch: Any) -> Iterator[dict[str, Any]]:
        for line in watch:
            pod = json.loads(line)["object"]
            if pod.get("status", {}).get("phase") == "Running":
                yield pod

    def _play(self, name: str, stage: str) -> None:
        frozen, digests = self._frozen[name], self._digests[name]
        if stage == FREEZE:
            world.write(self._store, frozen)
        elif stage not in digests:
            node = next(n for n in stage_graph(frozen.iteration.spec.recipe) if n.name == stage)
            stored = FrozenIteration.read(self._store.get(f"{frozen.prefix}/iteration.json"))
            manifest = Manifest.of_parts(
                stage=stage,
                iteration=name,
                identity=stored.identity,
                inputs={need: digests[need] for need in node.needs},
                parts=() if node.model and not node.name.startswith("synth") else (PART,),
                outputs=outputs(node),
            )
            self._store.put(manifest_key(frozen.prefix, stage), manifest.model_dump_json(by_alias=True).encode())
            digests[stage] = manifest.content_digest


def outputs(node: StageNode) -> dict[str, Any]:
    """What the manifest of a stage has to name."""
    if node.data:
        return {"model": {"uri": "file:///fake", "digest": "sha256:0"}, "steps": 3}
    if node.name == "evaluate":
        return {"scores": {"theta2": {"overall": {"n": 10, "correct": 6, "accuracy": 0.6, "low": 0.3, "high": 0.8}}}}
    if node.name == PROMOTE:
        return {"decision": "promoted", "reason": "because", "version": 2, "alias": "generator"}
    return {}
