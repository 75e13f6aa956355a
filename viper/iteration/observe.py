"""What the object store says about an iteration: which stages have a manifest, and whether it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from viper.errors import NewerFormError, NotFoundError, StageError
from viper.methods.stages import StageNode
from viper.plan import Done, Observed, ObservedStage, Shard
from viper.stage.frozen import FrozenIteration
from viper.stage.manifest import Manifest, load_manifest
from viper.stage.outputs import manifest_shape
from viper.stage.progress import ProgressRecord, over_shards
from viper.store import ObjectStore
from viper.stored import KEEP

DECISIONS = ("promoted", "held", "registered")


class StoreObserver:
    """Reads the manifests of one iteration. Valid manifests are immutable, so that each is read once."""

    def __init__(self, store: ObjectStore, frozen: FrozenIteration) -> None:
        self.store, self.frozen = store, frozen
        self._done: dict[str, tuple[Done, str]] = {}

    def observe(self, shards: Mapping[str, Mapping[int, Shard]] | None = None, *, suspend: bool = False) -> Observed:
        """What is there now. `shards`: what the executor knows of processes. Raises `StoreError`."""
        running = shards or {}
        stages: dict[str, ObservedStage] = {}
        for node in self.frozen.nodes:
            problem = ""
            if node.name not in self._done and all(n in self._done for n in node.needs):
                problem = self._look(node)
            found = self._done.get(node.name)
            stages[node.name] = ObservedStage(running.get(node.name, {}), None if found is None else found[0], problem)
        return Observed(stages, suspend=suspend, nodes=self.frozen.nodes)

    def _look(self, node: StageNode) -> str:
        try:
            manifest = load_manifest(self.store, self.frozen.prefix, node.name)
        except StageError as e:
            return str(e)
        if manifest is None:
            return ""
        digests = {n: self._done[n][1] for n in node.needs}
        problem = manifest_problem(node, manifest, self.frozen, digests)
        if problem:
            key = f"{self.store.uri}/{self.frozen.prefix}/stages/{node.name}/manifest.json"
            return f"{problem} ({key}; {KEEP})"
        self._done[node.name] = (Done.of(manifest), manifest.content_digest)
        return ""

    def progress(self, stage: str, shards: int) -> ProgressRecord | None:
        """Progress over all shards of a stage."""
        return stage_progress(self.store, self.frozen.prefix, stage, shards)


def stage_progress(store: ObjectStore, prefix: str, stage: str, shards: int) -> ProgressRecord | None:
    """Progress over all shards of a stage (`over_shards`); None before any."""
    return read_progress(store, prefix, stage, shards)[0]


def read_progress(store: ObjectStore, prefix: str, stage: str, shards: int) -> tuple[ProgressRecord | None, str]:
    """`stage_progress`, and what is wrong with the first record that cannot be read, which counts as not there."""
    records, problem = [], ""
    for shard in range(shards):
        key = f"{prefix}/stages/{stage}/progress/{shard}-of-{shards}.json"
        try:
            record = ProgressRecord.read(store.get(key), where=f"{store.uri}/{key}", error=StageError)
        except NotFoundError:
            continue
        except (StageError, NewerFormError) as error:
            problem = problem or f"{key}: {error.what}"
        else:
            records.append(record)
    return over_shards(records), problem


def manifest_problem(node: StageNode, manifest: Manifest, frozen: FrozenIteration, needs: Mapping[str, str]) -> str:
    """Why a manifest does not prove that its stage is done; empty when it does.

    Args:
        needs: `content_digest` of the manifests of the stages before it.
    """
    if manifest.stage != node.name or manifest.iteration != frozen.name:
        return f"the manifest belongs to {manifest.stage} of {manifest.iteration}"
    if manifest.identity != frozen.identity:
        return "the manifest was made from another frozen iteration"
    stale = sorted(s for s, digest in manifest.inputs.items() if s in needs and needs[s] != digest)
    if stale:
        return f"the manifest was made from another version of {', '.join(stale)}"
    if [p.index for p in manifest.parts] != list(range(len(manifest.parts))):
        return "the manifest lacks parts"
    if manifest.accepted != sum(p.accepted for p in manifest.parts):
        return "the manifest's counts are not those of its parts"
    shape = manifest_shape(manifest)
    return f"the manifest cannot be understood: {shape}" if shape else _outputs_problem(node, manifest.outputs)


def _outputs_problem(node: StageNode, outputs: Mapping[str, Any]) -> str:
    makes = node.stage.makes
    if makes == "model":
        model = outputs.get("model")
        if not (isinstance(model, dict) and model.get("uri") and model.get("digest")):
            return "the manifest names no model (outputs.model.uri and .digest)"
        if not outputs.get("steps"):
            return "the manifest says that no step was trained (outputs.steps)"
    if makes == "scores" and not isinstance(outputs.get("scores"), dict):
        return "the manifest has no scores (outputs.scores)"
    if makes == "decision" and outputs.get("decision") not in DECISIONS:
        return f"the manifest has no decision (outputs.decision, one of {', '.join(DECISIONS)})"
    return ""
