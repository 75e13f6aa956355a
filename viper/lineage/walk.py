"""From a version back to the base: version → iteration → stages → the checkpoints that wrote the data → its parent.

Pure: what is read comes through an `Archive`. Nothing that is missing ends the walk; it becomes a problem of the
version where it was noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from viper.errors import ViperError
from viper.lineage.records import Checkpoint, IterationRecord, Origin, StageRecord, State, VersionRecord
from viper.methods.stages import THETA0, StageNode, making
from viper.registry import ModelVersion
from viper.registry.tags import BASE_VERSION, ITERATION_URI, MANIFEST, PARENT_VERSION
from viper.stage import FrozenIteration, Manifest, ResolvedModel

_SCORE = "viper.score."
_FACTS = ("steps", "best_step", "images", "final", "decision", "version")


class Archive(Protocol):
    """What a walk reads; every function raises `ViperError` when it cannot be had."""

    def version(self, model: str, number: int) -> ModelVersion: ...

    def aliases(self, model: str) -> Mapping[str, int]: ...

    def frozen(self, uri: str) -> FrozenIteration:
        """The frozen iteration at `<store URI>/iterations/<name>`."""
        ...

    def manifest(self, uri: str, stage: str) -> Manifest | None:
        """A stage's manifest; None when there is none."""
        ...


def walk(archive: Archive, found: ModelVersion) -> VersionRecord:
    """The lineage of a version, back to the base or to where the traces end."""
    return _version(archive, found, frozenset())


def _version(archive: Archive, found: ModelVersion, seen: frozenset[int]) -> VersionRecord:
    problems: list[str] = []
    iteration = _iteration(archive, found, problems)
    parent = _parent(archive, found, seen | {found.version}, problems)
    first = found.tags.get(BASE_VERSION) == str(found.version)
    if iteration is None and not first and ITERATION_URI not in found.tags:
        problems.append("no iteration of ViPER is recorded for this version: it was registered by something else")
    origin: Origin = "iteration" if iteration is not None else "base" if first else "foreign"
    return VersionRecord(
        model=found.model,
        version=found.version,
        digest=found.digest,
        uri=found.tags.get("viper.initial_uri", found.source_uri),
        origin=origin,
        aliases=tuple(sorted(a for a, number in archive.aliases(found.model).items() if number == found.version)),
        run=found.run,
        decision=found.tags.get("viper.decision", ""),
        reason=found.tags.get("viper.reason", ""),
        scores={k.removeprefix(_SCORE): v for k, v in sorted(found.tags.items()) if k.startswith(_SCORE)},
        iteration=iteration,
        parent=parent,
        problems=tuple(problems),
    )


def _parent(archive: Archive, found: ModelVersion, seen: frozenset[int], problems: list[str]) -> VersionRecord | None:
    number = found.tags.get(PARENT_VERSION)
    if number is None:
        if uri := found.tags.get("viper.parent_uri"):
            problems.append(f"its θ0 was no version of the registry: {uri}, {found.tags.get('viper.parent_digest')}")
        return None
    if not number.isdigit() or int(number) in seen:
        problems.append(f"its tag {PARENT_VERSION} says {number!r}, which cannot be its parent")
        return None
    try:
        before = archive.version(found.model, int(number))
    except ViperError as error:
        problems.append(f"its parent, version {number}, cannot be read: {error.what}")
        return None
    digest = found.tags.get("viper.parent_digest", before.digest)
    if digest != before.digest:
        problems.append(f"version {number} is another model now: it was {digest}, the registry says {before.digest}")
    return _version(archive, before, seen)


def _iteration(archive: Archive, found: ModelVersion, problems: list[str]) -> IterationRecord | None:
    uri = found.tags.get(ITERATION_URI)
    if uri is None:
        return None
    try:
        frozen = archive.frozen(uri)
    except ViperError as error:
        problems.append(f"its iteration cannot be read: {error}")
        return None
    if frozen.identity != found.tags.get("viper.identity", frozen.identity):
        problems.append(f"the iteration at {uri} is another one than the one that made this version")
        return None
    nodes = frozen.nodes
    manifests: dict[str, Manifest] = {}
    for node in nodes:
        try:
            manifest = archive.manifest(uri, node.name)
        except ViperError as error:
            problems.append(f"{node.name}: {error}")
            continue
        if manifest is not None:
            manifests[node.name] = manifest
    made = {node.name: _made(node, manifests[node.name]) for node in nodes if node.name in manifests}
    for last in (node.model for node in making(nodes, "decision")):
        if last in made and (model := made[last]) is not None and model.digest != found.digest:
            problems.append(f"{last} made {model.digest}, which is not the model of this version")
    record = IterationRecord(
        name=frozen.name,
        uri=uri,
        identity=frozen.identity,
        run=frozen.tracking.parent_run,
        images=frozen.iteration.spec.images.uri,
        generator=_role("θ0", frozen.generator),
        base=_role("base", frozen.base),
        critic=_role(_called(frozen, frozen.critic, "critic"), frozen.critic),
        judge=_role(_called(frozen, frozen.judge, "judge"), frozen.judge),
        stages=(),
    )
    stages = []
    for node in nodes:
        recorded = found.tags.get(f"{MANIFEST}{node.name}")
        stage = _stage(node, manifests.get(node.name), recorded, record, made)
        stages.append(stage)
        problems += _doubts(node, stage, manifests)
    return IterationRecord(**{**vars(record), "stages": tuple(stages)})


def _stage(
    node: StageNode,
    manifest: Manifest | None,
    recorded: str | None,
    iteration: IterationRecord,
    made: Mapping[str, Checkpoint | None],
) -> StageRecord:
    author = iteration.generator if node.model == THETA0 else made.get(node.model or "")
    second = node.stage.second
    critic = {"critic": iteration.critic, "judge": iteration.judge}.get(second)
    if manifest is None:
        return StageRecord(node.name, "missing", recorded or "", author=author, critic=critic, second=second)
    digest = manifest.content_digest
    state: State = "as recorded" if recorded == digest else "differs"
    return StageRecord(
        name=node.name,
        state="not recorded" if recorded is None else state,
        manifest=digest,
        inputs=dict(manifest.inputs),
        parts=len(manifest.parts),
        accepted=manifest.accepted,
        rejected=dict(manifest.rejected),
        samples=_samples(manifest),
        author=author,
        critic=critic,
        second=second,
        made=made.get(node.name),
        facts={n: v for n in _FACTS if isinstance(v := manifest.outputs.get(n), int | str)},
    )


def _samples(manifest: Manifest) -> dict[str, int]:
    """Samples by split: what a validation accepted, what a training was given."""
    given: Any = manifest.outputs.get("samples")
    if isinstance(given, Mapping):
        return {str(k): int(v) for k, v in given.items()}
    return {k: manifest.counters[k] for k in ("train", "held_out") if k in manifest.counters}


def _doubts(node: StageNode, stage: StageRecord, manifests: Mapping[str, Manifest]) -> list[str]:
    """What does not fit between a stage, the registry, and the stages that it was made from."""
    found = []
    if stage.state == "missing" and node.stage.makes != "decision":
        found.append(f"{stage.name}: there is no manifest in the store")
    if stage.state == "differs":
        found.append(f"{stage.name}: the manifest is another one than the one this version was registered with")
    for name, digest in stage.inputs.items():
        if name in manifests and manifests[name].content_digest != digest:
            found.append(f"{stage.name}: was made from another {name} than the one that is there ({digest})")
    return found


def _made(node: StageNode, manifest: Manifest) -> Checkpoint | None:
    model = manifest.outputs.get("model")
    if not isinstance(model, Mapping) or "digest" not in model:
        return None
    return Checkpoint(node.label, str(model["digest"]), str(model.get("uri", "")), stage=node.name)


def _role(name: str, model: ResolvedModel) -> Checkpoint:
    return Checkpoint(name, model.digest, model.uri, model.model, model.version)


def _called(frozen: FrozenIteration, model: ResolvedModel, role: str) -> str:
    """θ0 or the base where the role is one of them."""
    known = {frozen.base.digest: "base", frozen.generator.digest: "θ0"}
    return known.get(model.digest, role)
