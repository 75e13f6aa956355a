"""Freezing resolves everything once; afterwards nothing that an iteration depends on can change unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from fakes.registry import MemoryRegistry
from fakes.world import model
from viper.errors import InputError, SpecError
from viper.iteration.freeze import freeze
from viper.iteration.observe import StoreObserver
from viper.methods.stages import Stage, StageNode, declared
from viper.registry import LOCKS
from viper.registry.tags import BASE_VERSION, PARENT_VERSION
from viper.spec import ViperIteration
from viper.stage import FrozenIteration, StageContext, load_frozen
from viper.store import DirectoryStore, child_uri
from viper.store.transfer import directory_digest, upload_directory


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model(tmp_path / "model")


def initial(folder: Path, name: str = "it", **spec: Any) -> ViperIteration:
    return world.iteration(name, generator={"alias": "generator", "initialUri": folder.as_uri()}, **spec)


def test_the_initial_model_becomes_the_first_version_with_the_alias(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    frozen = freeze(initial(folder), store, registry).iteration
    assert registry.get_alias("m", "generator") == 1
    assert (frozen.generator.model, frozen.generator.version) == ("m", 1)
    assert frozen.generator.digest == directory_digest(folder)
    assert frozen.generator == frozen.base == frozen.critic == frozen.judge
    assert frozen.alias_version == 1
    assert registry.get("m", 1).tags[LOCKS] == store.uri
    assert [info.key for info in store.list("locks/")] == ["locks/m@generator/000000001.json"]
    assert frozen.versions["viper"]


def test_freezing_again_gives_the_same_iteration_and_touches_nothing(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    first = freeze(initial(folder), store, registry)
    calls = list(registry.calls)
    again = freeze(initial(folder), store, registry)
    assert (first.resumed, again.resumed) == (False, True)
    assert again.iteration == first.iteration == load_frozen(store, "it")
    assert registry.calls == calls


def test_a_frozen_iteration_keeps_its_generator_when_the_alias_moves(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, tmp_path: Path
) -> None:
    freeze(initial(folder), store, registry)
    other = model(tmp_path / "other", b"v")
    registry.register("m", other.as_uri(), directory_digest(other))
    registry.promote("m", "generator", 2, expected=1)
    assert freeze(initial(folder), store, registry).iteration.generator.version == 1
    assert freeze(initial(folder, "next"), store, registry).iteration.generator.version == 2


def done(store: DirectoryStore, frozen: FrozenIteration, stage: str = "ingest-images") -> None:
    """The first data, as far as freezing looks."""
    store.put(f"{frozen.prefix}/stages/{stage}/manifest.json", b"{}", if_absent=True)


def test_another_spec_under_the_same_name_is_refused_with_the_fields_that_differ(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    done(store, freeze(initial(folder), store, registry).iteration)
    with pytest.raises(SpecError) as error:
        freeze(initial(folder, recipe={"reward": {"tau": 0.5}, "seed": 3}), store, registry)
    assert "spec.recipe.reward.tau: it has 0.85, the file 0.5" in str(error.value)
    assert "spec.recipe.seed: it has 0, the file 3" in str(error.value)
    assert "has made data with another spec" in error.value.what
    assert "choose another metadata.name or --dir" in error.value.fix
    with pytest.raises(SpecError, match=r"it has 0, the resource 3") as error:
        freeze(initial(folder, recipe={"seed": 3}), store, registry, files_here=False)
    assert "--dir" not in error.value.fix
    assert "another metadata.name" in error.value.fix


def test_a_spec_is_corrected_until_there_is_data(store: DirectoryStore, registry: MemoryRegistry, folder: Path) -> None:
    first = freeze(initial(folder), store, registry)
    store.put(f"{first.iteration.prefix}/stages/ingest-images/parts/00000.json", b"made of the wrong images")
    fixed = initial(folder, recipe={"seed": 3})
    second = freeze(fixed, store, registry)
    assert (second.resumed, second.iteration.revision) == (False, 1)
    assert second.iteration.prefix == "iterations/it/r1"
    assert load_frozen(store, "it") == second.iteration
    assert list(store.list(f"{second.iteration.prefix}/stages/")) == [], (
        "parts of another spec are not taken for its own"
    )
    assert second.iteration.tracking.parent_run != first.iteration.tracking.parent_run
    assert freeze(fixed, store, registry).resumed
    third = freeze(initial(folder, recipe={"seed": 4}), store, registry).iteration
    assert (third.revision, third.prefix) == (2, "iterations/it/r2")
    done(store, third)
    with pytest.raises(SpecError, match="has made data with another spec"):
        freeze(fixed, store, registry)
    assert load_frozen(store, "it") == third


@pytest.mark.parametrize(
    "stage",
    [*map(declared, ("ingest-images", "ingest-samples", "cold-start")), Stage("of-another-method", "maps", "maps")],
)
def test_any_stage_of_its_graph_that_is_done_makes_a_spec_final(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, stage: Stage
) -> None:
    frozen = freeze(initial(folder), store, registry).iteration
    others = [node for node in frozen.graph if node.name != stage.name]
    changed = frozen.model_copy(update={"graph": (StageNode(stage), *others)}).to_store(store.uri)
    store.put(f"{frozen.prefix}/iteration.json", changed.to_bytes())
    first = load_frozen(store, "it")
    assert first is not None
    done(store, first, stage.name)
    with pytest.raises(SpecError, match="has made data"):
        freeze(initial(folder, recipe={"seed": 3}), store, registry)
    assert load_frozen(store, "it") == first


def test_a_correction_that_is_wrong_too_changes_nothing(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    first = freeze(initial(folder), store, registry).iteration
    with pytest.raises(SpecError, match="photoshop"):
        freeze(initial(folder, engines={**world.ENGINES, "editor": "photoshop"}), store, registry)
    assert load_frozen(store, "it") == first
    assert freeze(initial(folder), store, registry).resumed


def test_of_two_corrections_at_once_one_decides(store: DirectoryStore, registry: MemoryRegistry, folder: Path) -> None:
    """The other comes after it has looked and before it writes."""
    freeze(initial(folder), store, registry)
    other = initial(folder, recipe={"seed": 3})

    class Late(MemoryRegistry):
        def iteration_run(self, *args: Any, **kwargs: Any) -> str:
            freeze(other, store, registry)
            return super().iteration_run(*args, **kwargs)

    late = Late()
    late.__dict__ |= registry.__dict__
    with pytest.raises(SpecError, match="was started with another spec"):
        freeze(initial(folder, recipe={"seed": 4}), store, late)
    found = load_frozen(store, "it")
    assert found is not None
    assert (found.revision, found.iteration.spec.recipe.seed) == (1, 3)


def test_a_stage_that_ends_while_the_spec_is_corrected_is_in_nobodys_way(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, tmp_path: Path
) -> None:
    first = freeze(initial(folder), store, registry).iteration
    late = StageContext(first, store, "ingest-images", tmp_path / "late")

    class Slow(MemoryRegistry):
        def iteration_run(self, *args: Any, **kwargs: Any) -> str:
            assert late.finish(()) is not None
            return super().iteration_run(*args, **kwargs)

    slow = Slow()
    slow.__dict__ |= registry.__dict__
    second = freeze(initial(folder, recipe={"seed": 3}), store, slow).iteration
    observed = StoreObserver(store, second).observe().stages["ingest-images"]
    assert (observed.done, observed.problem) == (None, "")
    assert StageContext(second, store, "ingest-images", tmp_path / "now").finish(()) is not None
    assert StoreObserver(store, second).observe().stages["ingest-images"].done is not None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"engines": {"training": {"overrides": {"algorithm.adv_estimator": "gae"}}}}, "decided by the specification"),
        ({"profile": {"stages": {"train-operations": {"gpus": 7}}}}, "7 processes"),
    ],
)
def test_what_verl_would_refuse_after_the_data_is_made_is_refused_before(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, spec: dict[str, Any], said: str
) -> None:
    engines = {**world.ENGINES, **spec.pop("engines", {}), "trainer": "verl"}
    with pytest.raises(SpecError, match=said):
        freeze(initial(folder, engines=engines, **spec), store, registry)
    assert load_frozen(store, "it") is None


def test_a_profile_that_is_only_a_reference_is_refused(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    one = initial(folder)
    one = one.model_copy(update={"spec": one.spec.model_copy(update={"profile_ref": "a100"})})
    with pytest.raises(SpecError, match="profileRef 'a100' is not resolved"):
        freeze(one, store, registry)
    assert load_frozen(store, "it") is None


def test_suspending_is_no_change_of_the_spec(store: DirectoryStore, registry: MemoryRegistry, folder: Path) -> None:
    first = freeze(initial(folder), store, registry)
    assert freeze(initial(folder, suspend=True), store, registry).iteration == first.iteration


def test_the_base_is_the_first_version_of_the_lineage(
    store: DirectoryStore, registry: MemoryRegistry, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        one = model(tmp_path / f"model{number}", b"w" * number)
        registry.register("m", one.as_uri(), directory_digest(one))
    registry.set_tags("m", 3, {PARENT_VERSION: 2, BASE_VERSION: 1})
    registry.promote("m", "generator", 3, expected=None)
    frozen = freeze(world.iteration(), store, registry).iteration
    assert (frozen.generator.version, frozen.base.version, frozen.judge.version) == (3, 1, 1)
    assert frozen.critic.version == 3


def test_a_version_without_lineage_tags_is_its_own_base(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    registry.register("m", folder.as_uri(), directory_digest(folder))
    frozen = freeze(world.iteration(generator={"version": 1}), store, registry).iteration
    assert frozen.base.version == 1
    assert frozen.alias_version is None


def test_roles_can_be_models_of_their_own(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, tmp_path: Path
) -> None:
    judge = model(tmp_path / "judge", b"j")
    one = initial(folder, recipe={"models": {"judge": judge.as_uri(), "critic": "base"}})
    frozen = freeze(one, store, registry).iteration
    assert frozen.judge.digest == directory_digest(judge)
    assert frozen.critic == frozen.base


def test_a_model_outside_the_registry_is_its_own_lineage(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    frozen = freeze(world.iteration(generator={"uri": folder.as_uri()}), store, registry).iteration
    assert frozen.generator == frozen.base
    assert frozen.generator.version is None
    assert registry.calls == []


def test_a_model_in_a_store_is_known_by_its_recorded_digest(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    upload_directory(store, "models/a", folder)
    uri = child_uri(store.uri, "models/a")
    frozen = freeze(world.iteration(generator={"uri": uri}), store, registry).iteration
    assert frozen.generator.digest == directory_digest(folder)


def test_an_alias_that_does_not_exist_is_explained(store: DirectoryStore, registry: MemoryRegistry) -> None:
    with pytest.raises(InputError, match="has no alias generator") as error:
        freeze(world.iteration(), store, registry)
    assert "spec.generator.initialUri" in error.value.fix
    assert load_frozen(store, "it") is None


def test_files_that_changed_since_they_were_registered_are_refused(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    registry.register("m", folder.as_uri(), "sha256:0")
    with pytest.raises(InputError, match="have changed since version 1 of m was registered"):
        freeze(world.iteration(generator={"version": 1}), store, registry)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "config.json (configuration)"),
        ("model.safetensors", "model.safetensors or model.safetensors.index.json (weights)"),
        ("tokenizer.json", "tokenizer.json or vocab.json and merges.txt (tokenizer)"),
        ("processor_config.json", "processor_config.json or preprocessor_config.json (processor)"),
    ],
)
def test_a_model_directory_that_lacks_files_is_refused_before_anything_runs(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, missing: str, named: str
) -> None:
    (folder / missing).unlink()
    with pytest.raises(InputError) as error:
        freeze(initial(folder), store, registry)
    assert f"lacks {named}" in str(error.value)
    assert error.value.exit_code == 3
    assert load_frozen(store, "it") is None
    assert registry.calls == []


def test_weights_in_several_files_must_all_be_there(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path
) -> None:
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"lacks model-2-of-2\.safetensors"):
        freeze(initial(folder), store, registry)
    (folder / "model-2-of-2.safetensors").write_bytes(b"x")
    assert freeze(initial(folder), store, registry).iteration.generator.version == 1


def test_a_change_of_library_versions_is_reported(
    store: DirectoryStore, registry: MemoryRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(initial(folder), store, registry)
    monkeypatch.setattr("viper.iteration.freeze.library_versions", lambda: {"viper": "99"})
    assert "viper" in freeze(initial(folder), store, registry).changed
