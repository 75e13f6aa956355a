"""Models of an object store and of the MLflow registry in the cache, with real servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelcache_files import names

from fakes import world
from servers.running import MlflowServer
from viper.errors import InputError, StoreError
from viper.modelcache import ModelCache, fetch, locate, pin
from viper.modelcache.resolve import model_dir
from viper.registry import Registry
from viper.stage import ResolvedModel, StageContext
from viper.store import DirectoryStore, ObjectStore, child_uri, directory_digest, upload_directory

pytestmark = pytest.mark.server


@pytest.fixture
def uploaded(minio_store: ObjectStore, tmp_path: Path) -> tuple[str, str]:
    """URI and digest of a model in the store."""
    digests = upload_directory(minio_store, "models/m", world.model(tmp_path / "model", b"w" * 3000))
    return child_uri(minio_store.uri, "models/m"), digests.digest


def test_a_stored_directory_is_fetched_once_and_verified(uploaded: tuple[str, str], cache: ModelCache) -> None:
    uri, digest = uploaded
    entry = fetch(uri, cache)
    assert (entry.digest, entry.pinned) == (digest, uri)
    assert names(entry.path) == ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json"]
    (entry.path / "model.safetensors").write_bytes(b"")
    assert locate(uri, cache) == entry.path
    assert (entry.path / "model.safetensors").read_bytes() == b"w" * 3000


def test_the_same_content_under_another_prefix_is_not_fetched_again(
    uploaded: tuple[str, str], minio_store: ObjectStore, cache: ModelCache, tmp_path: Path
) -> None:
    upload_directory(minio_store, "models/copy", tmp_path / "model")
    first = fetch(uploaded[0], cache)
    assert fetch(child_uri(minio_store.uri, "models/copy"), cache).path == first.path


def test_an_origin_that_is_not_complete_or_damaged_is_an_error(
    uploaded: tuple[str, str], minio_store: ObjectStore, cache: ModelCache
) -> None:
    minio_store.put("models/m/model.safetensors", b"x" * 3000)
    with pytest.raises(InputError, match="does not have the size and digest"):
        locate(uploaded[0], cache)
    minio_store.delete("models/m/digests.json")
    with pytest.raises(StoreError, match="not a complete directory"):
        locate(uploaded[0], cache)


def test_a_checkpoint_goes_through_the_shared_cache_and_beside_one_that_is_read_only(
    uploaded: tuple[str, str], cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, digest = uploaded
    ctx = StageContext(world.frozen(), DirectoryStore(tmp_path), "evaluate", tmp_path)
    model = ResolvedModel(uri=uri, digest=digest)
    with monkeypatch.context() as patch:
        patch.setattr(ModelCache, "writable", property(lambda self: self.root != cache.root))
        assert model_dir(ctx, model).is_relative_to(tmp_path / "own")
    shared = model_dir(ctx, model)
    assert shared.is_relative_to(cache.root)
    inode = (shared / "config.json").stat().st_ino
    assert (model_dir(ctx, model) / "config.json").stat().st_ino == inode, "it is copied once"
    monkeypatch.setattr(ModelCache, "writable", property(lambda self: self.root != cache.root))
    assert model_dir(ctx, model) == shared


def test_a_registered_model_is_what_its_alias_means_now(
    uploaded: tuple[str, str], mlflow_server: MlflowServer, cache: ModelCache
) -> None:
    uri, digest = uploaded
    registry = Registry(mlflow_server.url)
    version = registry.register("cached", uri, digest)
    registry.promote("cached", "live", version, expected=None)
    found = pin("models:/cached@live", cache, registry=registry)
    assert (found.uri, found.digest, found.model, found.version) == (uri, digest, "cached", version)
    place = locate(f"models:/cached/{version}", cache, registry=registry)
    assert place == locate(uri, cache)
    other = registry.register("cached", uri, "sha256:" + "1" * 64)
    with pytest.raises(InputError, match="changed since it was registered"):
        locate(f"models:/cached/{other}", cache, registry=registry)


def test_a_registered_model_of_this_machine_is_used_in_place(
    mlflow_server: MlflowServer, cache: ModelCache, tmp_path: Path
) -> None:
    folder = world.model(tmp_path / "here")
    registry = Registry(mlflow_server.url)
    number = registry.register("local", folder.as_uri(), directory_digest(folder))
    entry = fetch(f"models:/local/{number}", cache, registry=registry)
    assert (entry.path, entry.digest) == (folder, directory_digest(folder))
    assert not cache.root.exists()


def test_a_directory_of_this_machine_is_used_in_place(tmp_path: Path) -> None:
    folder = world.model(tmp_path / "model")
    assert locate(folder.as_uri()) == locate(str(folder)) == folder
    upload_directory(DirectoryStore(tmp_path), "stored", folder)
    assert locate(str(tmp_path / "stored")) == tmp_path / "stored"
    (tmp_path / "stored/model.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="missing or has another size"):
        locate(str(tmp_path / "stored"))
    for wrong in (str(tmp_path / "none"), "ftp://x"):
        with pytest.raises(InputError):
            locate(wrong)
