"""Freezing: everything an iteration depends on is resolved once and written to `iteration.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from viper import __version__
from viper.engines.endpoints import is_endpoint
from viper.errors import (
    AlreadyExistsError,
    InputError,
    NotFoundError,
    RegistryError,
    SpecError,
    StoreError,
    UnfitRegistryError,
)
from viper.iteration.known import at, check_names, everywhere, same_pod
from viper.iteration.preflight import check_supplied
from viper.methods.stages import stage_graph
from viper.modelcache import Pinned, pin
from viper.modelcache.needs import benchmark_data, engine_models
from viper.modelcache.resolve import in_store, resolve_endpoint, resolve_model
from viper.modelcache.uris import is_remote
from viper.registry import LOCKS, MissingError, ModelVersion, Registry
from viper.registry.moves import set_alias
from viper.registry.names import check_alias, check_model_name
from viper.registry.tags import BASE_VERSION, PARENT_VERSION
from viper.spec import IterationSpec, ViperIteration
from viper.stage.frozen import FrozenIteration, PinnedWeights, ResolvedModel, Tracking, load_frozen, prefix_of
from viper.stage.manifest import has_data
from viper.store import ObjectStore, probe
from viper.stored import least_version

#: Distributions whose versions decide data and weights, besides viper itself.
LIBRARIES = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "accelerate",
    "trl",
    "open-clip-torch",
    "numpy",
    "pillow",
    "imagehash",
)


#: By whether it is run on this machine: what the spec was given as, and what to do with another one.
_ELSEWHERE = {
    True: ("the file", "restore these fields to go on with it, or choose another metadata.name or --dir"),
    False: ("the resource", "apply it under another metadata.name, or with these fields as they were"),
}


@dataclass(frozen=True)
class Frozen:
    """A frozen iteration; `resumed`: it was there already. `changed`: libraries whose version is another one now."""

    iteration: FrozenIteration
    resumed: bool
    changed: tuple[str, ...] = ()


def freeze(iteration: ViperIteration, store: ObjectStore, registry: Registry, *, files_here: bool = True) -> Frozen:
    """Opens the iteration in the store, or resolves and writes it.

    Args:
        files_here: whether what this process has (folders, modules) is what the stages will have; else only those
            whose pods are made as this one's (`viper.iteration.known.same_pod`).

    Until a stage is done, another spec corrects the one that is there: it gets a revision of its own, which counts from
    then on. Of several that do so at once one decides, and the others are told as below.

    Raises `SpecError` when an iteration of this name has made data with another spec, its profile is a reference, a
    name in it is not known or verl could not be given its settings, `InputError` when a model or a supplied file cannot
    be used, `UnfitStoreError` when the store does not do what stages rely on, `UnfitRegistryError` when MLflow refuses
    a name or has no such version, `NewerFormError` when a later release has to carry out the iteration that is there,
    `RegistryError`, `StoreError`.
    """
    if iteration.spec.profile_ref is not None:
        raise SpecError(
            f"profileRef {iteration.spec.profile_ref!r} is not resolved",
            where="spec.profileRef",
            fix="set spec.profile",
        )
    wanted = _comparable(iteration)
    there = load_frozen(store, wanted.metadata.name)
    if there is None or _may_be_corrected(there, wanted, store):
        here = everywhere if files_here else same_pod(wanted.spec.profile)
        check_names(wanted.spec, here)
        _check_registered(wanted.spec)
        probe(store)
        check_supplied(wanted.spec, here)
        revision = 0 if there is None else there.revision + 1
        key = f"{prefix_of(wanted.metadata.name, revision)}/iteration.json"
        with suppress(AlreadyExistsError):
            data = _resolve(wanted, store, registry, revision).to_store(store.uri).to_bytes()
            store.put(key, data, if_absent=True)
            return Frozen(FrozenIteration.read(data).at(store.uri), resumed=False)
        there = load_frozen(store, wanted.metadata.name)  # another process was first, and decides
        if there is None:
            raise StoreError("disappeared while it was read", where=f"{store.uri}/{key}")
    if different := list(differences(there.iteration.spec.dump(), wanted.spec.dump())):
        begun = "has made data" if has_data(store, there) else "was started"
        given, fix = _ELSEWHERE[files_here]
        raise SpecError(
            f"an iteration of this name {begun} with another spec:\n{_listed(different, given)}",
            where=wanted.metadata.name,
            fix=fix,
        )
    now = library_versions()
    return Frozen(there, True, tuple(sorted(k for k, v in there.versions.items() if now.get(k) != v)))


def _may_be_corrected(there: FrozenIteration, wanted: ViperIteration, store: ObjectStore) -> bool:
    """Whether the spec is another one and nothing was made of the one that is there.

    A stage may end just now: what it makes lies in the place of its own revision, where nobody looks for it any more.
    """
    changed = any(differences(there.iteration.spec.dump(), wanted.spec.dump()))
    return changed and not has_data(store, there)


def _comparable(iteration: ViperIteration) -> ViperIteration:
    """Whether it is suspended is no part of what an iteration is."""
    return iteration.model_copy(update={"spec": iteration.spec.model_copy(update={"suspend": False})})


@contextmanager
def _about(field: str) -> Iterator[None]:
    """What cannot be used is told with the field that names it."""
    try:
        yield
    except MissingError as error:  # another attempt would miss it as well
        raise at(field, UnfitRegistryError(error.what, where=error.where, fix=error.fix)) from error
    except (SpecError, InputError, UnfitRegistryError) as error:
        raise at(field, error) from error


def _check_registered(spec: IterationSpec) -> None:
    """Raises `UnfitRegistryError` for names that MLflow refuses: it would, when the work is done."""
    with _about("spec.model"):
        check_model_name(spec.model)
    for field, alias in (
        ("spec.promotion.alias", spec.promotion.alias),
        ("spec.generator.alias", spec.generator.alias),
    ):
        if alias is not None:
            with _about(field):
                check_alias(alias)


def _resolve(iteration: ViperIteration, store: ObjectStore, registry: Registry, revision: int) -> FrozenIteration:
    spec = iteration.spec
    if spec.engines.trainer == "verl":
        from viper.training.verl.planned import check

        check(spec)
    generator, base = _generator(spec, store, registry)
    roles = {"generator": generator, "base": base}

    def role(field: str) -> ResolvedModel:
        name: str = getattr(spec.recipe.models, field)
        with _about(f"spec.recipe.models.{field}"):
            return resolve_endpoint(name) if is_endpoint(name) else roles.get(name) or resolve_model(name, store)

    critic, judge = role("critic"), role("judge")
    _check_data(spec)
    # A corrected one gets a run of its own: MLflow lets no parameter change.
    known = f"{store.uri} {iteration.metadata.name}" + (f" {revision}" if revision else "")
    uid = hashlib.sha256(known.encode()).hexdigest()[:16]
    if store.stat(f"{prefix_of(iteration.metadata.name, revision)}/iteration.json") is not None:
        # Another process froze it while this one slept: its run may have ended by now, and is not begun again.
        raise AlreadyExistsError("another process froze it", where=f"{store.uri}, {iteration.metadata.name}")
    run = registry.iteration_run(spec.model, iteration.metadata.name, uid, {"viper.store": store.uri})
    return FrozenIteration(
        min_version=least_version(iteration),
        iteration=iteration,
        generator=generator,
        base=base,
        critic=critic,
        judge=judge,
        alias_version=registry.get_alias(spec.model, spec.promotion.alias),
        tracking=Tracking(uri=registry.uri, parent_run=run),
        weights=_weights(spec, registry),
        revision=revision,
        versions=library_versions(),
        graph=stage_graph(spec.recipe),
    )


def _weights(spec: IterationSpec, registry: Registry) -> dict[str, PinnedWeights]:
    """The same weights for all shards and attempts, whatever a branch or an alias means later."""
    found = {}
    for path, uri in engine_models(spec.engines).items():
        if not is_remote(uri):
            continue
        with _about(path):
            pinned = _pinned(uri, registry)
        found[uri] = PinnedWeights(uri=pinned.uri, digest=pinned.digest, model=pinned.model, version=pinned.version)
    return found


def _check_data(spec: IterationSpec) -> None:
    """Whether the benchmarks' data sets are in the object store that they are named in; others are known by then."""
    for path, uri in benchmark_data(spec.evaluation.benchmarks).items():
        if uri.startswith("s3://"):
            with _about(path):
                _pinned(uri, None)


def _pinned(uri: str, registry: Registry | None) -> Pinned:
    """Raises `InputError` for a model that is not there."""
    try:
        return pin(uri, registry=registry)
    except NotFoundError as error:
        raise InputError(error.what, where=uri, fix=error.fix) from error


def _generator(spec: IterationSpec, store: ObjectStore, registry: Registry) -> tuple[ResolvedModel, ResolvedModel]:
    """θ0 and the first version of its lineage."""
    ref = spec.generator
    if ref.uri is not None:
        with _about("spec.generator.uri"):
            model = resolve_model(ref.uri, store)
        return model, model
    if ref.version is not None:
        with _about("spec.generator.version"):
            found = registry.resolve(spec.model, str(ref.version))
    else:
        assert ref.alias is not None  # noqa: S101 (GeneratorRef has exactly one of the three)
        if registry.get_alias(spec.model, ref.alias) is None:
            _register_first(spec, ref.alias, store, registry)
        with _about("spec.generator.alias"):
            found = registry.resolve(spec.model, ref.alias)
    return _of_version(found, store), _of_version(_root(found, registry), store)


def _register_first(spec: IterationSpec, alias: str, store: ObjectStore, registry: Registry) -> None:
    if spec.generator.initial_uri is None:
        raise InputError(
            f"the registered model {spec.model} has no alias {alias}",
            where="spec.generator.alias",
            fix="set spec.generator.initialUri to the model directory to begin with, or register a version and set "
            "the alias",
        )
    with _about("spec.generator.initialUri"):
        first = resolve_model(spec.generator.initial_uri, store)
    number = registry.register(spec.model, first.uri, first.digest, tags={LOCKS: store.uri})
    registry.set_tags(spec.model, number, {BASE_VERSION: number, "viper.initial_uri": spec.generator.initial_uri})
    set_alias(registry, (spec.model, alias), number, None, store=store, who="the first version is registered")


def _of_version(found: ModelVersion, store: ObjectStore) -> ResolvedModel:
    try:
        resolved = resolve_model(found.source_uri, store)
    except (InputError, StoreError):  # the registry has its place in full: has the store moved since?
        moved = in_store(store, ResolvedModel(uri=found.source_uri, digest=found.digest))
        if moved is None:
            raise
        resolved = moved
    if found.digest and found.digest != resolved.digest:
        raise InputError(
            f"its files have changed since version {found.version} of {found.model} was registered: their digest is "
            f"{resolved.digest}, the registry says {found.digest}",
            where=found.source_uri,
            fix="restore the files, or register them as a new version",
        )
    return resolved.model_copy(update={"model": found.model, "version": found.version})


def _root(found: ModelVersion, registry: Registry) -> ModelVersion:
    """The first version of a lineage; a version without lineage tags is its own."""
    seen = {found.version}
    while (number := found.tags.get(BASE_VERSION) or found.tags.get(PARENT_VERSION)) and int(number) not in seen:
        seen.add(int(number))
        try:
            found = registry.get(found.model, int(number))
        except MissingError:
            raise RegistryError(
                f"version {found.version} says that it descends from version {number}, which does not exist",
                where=f"models:/{found.model}/{found.version}",
                fix=f"correct its tags {BASE_VERSION} and {PARENT_VERSION}",
            ) from None
    return found


def library_versions() -> dict[str, str]:
    """Installed versions, without importing anything."""
    found = {"viper": __version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def differences(old: Any, new: Any, path: str = "spec") -> Iterator[tuple[str, Any, Any]]:
    """Field paths with both values, for every leaf that differs between two dumps."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield path, old, new


def _listed(different: list[tuple[str, Any, Any]], given: str) -> str:
    shown = [f"  {path}: it has {old!r}, {given} {new!r}" for path, old, new in different[:20]]
    more = len(different) - len(shown)
    return "\n".join(shown + ([f"  and {more} more"] if more else []))
