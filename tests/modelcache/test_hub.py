"""Models of the Hugging Face hub (a fake of its API) in the cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from modelcache_files import names

from fakes.hub import FakeHub
from viper.errors import InputError, SpecError
from viper.modelcache import ModelCache, fetch, locate, pin

URI = "hf://org/name@main"


def test_a_model_of_the_hub_becomes_a_directory_without_pickles_and_code(hub: FakeHub, cache: ModelCache) -> None:
    place = locate("hf://org/name", cache)
    files = hub.commits["org/name"][hub.branches["org/name", "main"]]
    assert names(place) == sorted(n for n in files if n.endswith((".json", ".txt", ".jinja", ".safetensors")))
    assert all((place / n).read_bytes() == files[n] for n in names(place))


def test_a_branch_is_resolved_once_and_means_the_same_until_it_is_updated(hub: FakeHub, cache: ModelCache) -> None:
    first = fetch(URI, cache)
    old = hub.branches["org/name", "main"]
    new = hub.commit("org/name", {"config.json": b"new"})
    assert first.pinned == f"hf://org/name@{old}"
    assert fetch(URI, cache) == first
    assert pin(URI, cache).uri == first.pinned
    updated = fetch(URI, cache, update=True)
    assert updated.pinned == f"hf://org/name@{new}"
    assert (updated.path / "config.json").read_bytes() == b"new"
    assert fetch(first.pinned, cache).path == first.path


def test_what_is_in_the_cache_is_used_without_the_hub(hub: FakeHub, cache: ModelCache) -> None:
    place = locate(URI, cache)
    asked = list(hub.requests)
    assert locate(URI, cache) == locate(URI, cache, offline=True) == place
    assert hub.requests == asked


def test_offline_what_is_missing_is_an_error_with_the_command_that_fills_the_cache(
    hub: FakeHub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="viper models pull 'hf://org/name@main'"):
        locate(URI, cache)
    with pytest.raises(InputError, match="write a commit instead of 'main'"):
        pin(URI, cache)
    commit = "hf://org/name@" + "0" * 40
    assert pin(commit, cache).uri == commit
    assert not hub.requests


def test_a_cache_that_is_read_only_is_not_filled(
    hub: FakeHub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = locate(URI, cache)
    monkeypatch.setattr(ModelCache, "writable", False)
    assert locate(URI, cache) == filled
    with pytest.raises(InputError, match="read-only"):
        locate("hf://org/other@main", cache)


def test_a_truncated_file_is_fetched_again_and_nothing_else(hub: FakeHub, cache: ModelCache) -> None:
    place = locate(URI, cache)
    weights = place / "transformer/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    hub.requests.clear()
    assert locate(URI, cache) == place
    assert weights.read_bytes() == whole
    assert hub.downloads == ["transformer/diffusion_pytorch_model.safetensors"]


def test_a_file_with_other_content_of_the_same_size_is_noticed_and_repaired(hub: FakeHub, cache: ModelCache) -> None:
    place = locate(URI, cache)
    weights = place / "transformer/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(bytes(len(whole)))
    locate(URI, cache)
    assert weights.read_bytes() == whole


def test_damage_that_cannot_be_repaired_offline_is_named(hub: FakeHub, cache: ModelCache) -> None:
    place = locate(URI, cache)
    (place / "model_index.json").unlink()
    with pytest.raises(InputError, match=r"damaged \(model_index.json\)"):
        locate(URI, cache, offline=True)


def test_a_lost_record_of_the_directory_means_that_it_is_fetched_again(hub: FakeHub, cache: ModelCache) -> None:
    place = locate(URI, cache)
    (place / "digests.json").write_text("{")
    assert locate(URI, cache) == place
    assert cache.damaged(fetch(URI, cache), thorough=True) == []


def test_a_copied_cache_is_used_where_there_is_no_network(hub: FakeHub, cache: ModelCache, tmp_path: Path) -> None:
    locate(URI, cache)
    shutil.copytree(cache.root, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    moved = ModelCache(tmp_path / "copy")
    place = locate(URI, moved, offline=True)
    assert place.is_relative_to(moved.root)
    (place / ".viper-stamps.json").write_text("{}")  # as if it could not be written
    (place / "tokenizer/merges.txt").write_bytes(b"b a")
    with pytest.raises(InputError, match=r"tokenizer/merges.txt"):
        locate(URI, moved, offline=True)


def test_files_that_were_read_once_are_known_by_size_and_time_again(
    hub: FakeHub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = fetch(URI, cache)
    os.utime(entry.path / "model_index.json", (5, 5))
    assert cache.damaged(entry) == []

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is read again")

    monkeypatch.setattr("viper.modelcache.cache.directory_digests", refuse)
    assert cache.damaged(entry) == []


def test_a_download_that_broke_off_goes_on_with_the_files_that_are_complete(hub: FakeHub, cache: ModelCache) -> None:
    weights = "transformer/diffusion_pytorch_model.safetensors"
    hub.forged[weights] = bytes(200_000)
    with pytest.raises(InputError, match="does not have the size and digest"):
        locate(URI, cache)
    assert cache.entries() == []
    hub.forged.clear()
    hub.requests.clear()
    locate(URI, cache)
    assert weights in hub.downloads
    assert len(hub.downloads) < len(hub.commits["org/name"][hub.branches["org/name", "main"]])
    assert list((cache.root / "partial").iterdir()) == []


def test_what_another_host_left_long_ago_is_taken_over(hub: FakeHub, cache: ModelCache) -> None:
    entry = fetch(URI, cache)
    key = next((cache.root / "locks").iterdir()).name
    left = cache.root / "partial" / f"{key}@other"
    entry.path.rename(left)
    for path in [left, *left.rglob("*")]:
        os.utime(path, (1, 1))
    hub.requests.clear()
    assert fetch(URI, cache).digest == entry.digest
    assert hub.downloads == []


def test_a_path_below_the_model_is_that_folder_or_that_file(hub: FakeHub, cache: ModelCache) -> None:
    folder = locate("hf://org/name@main/tokenizer", cache)
    assert names(folder) == ["chat_template.jinja", "merges.txt"]
    assert names(locate("hf://org/name@main/transformer/config.json", cache)) == ["config.json"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://org/nothing@main", "no such model"),
        ("hf://org/name@v9", "no revision 'v9'"),
        ("hf://org/name@main/no/such/folder", "no file that may be loaded"),
    ],
)
def test_what_the_hub_does_not_have_is_said_plainly(hub: FakeHub, cache: ModelCache, uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        locate(uri, cache)


def test_weights_that_are_pickles_only_are_refused_with_a_way_out(hub: FakeHub, cache: ModelCache) -> None:
    hub.commit("org/old", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    hub.commit("org/old", {"config.json": b"{}", "model.safetensors": b"weights"}, branch="refs/pr/7")
    with pytest.raises(InputError, match=r"pickles \(pytorch_model.bin\)"):
        locate("hf://org/old", cache)
    assert names(locate("hf://org/old@refs%2Fpr%2F7", cache)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("uri", ["hf://name", "hf://a/b@", "hf://a/b@main/../c", "models:/a", "models:/a@b@c"])
def test_a_uri_that_cannot_be_read_is_refused(cache: ModelCache, uri: str) -> None:
    with pytest.raises(SpecError, match="is not the URI"):
        locate(uri, cache)


def test_a_file_name_that_leaves_the_directory_is_refused(hub: FakeHub, cache: ModelCache) -> None:
    hub.commit("org/evil", {"../../evil.json": b"{}"})
    with pytest.raises(Exception, match="path segment"):
        locate("hf://org/evil", cache)


def test_a_volume_that_is_too_small_is_noticed_before_the_download(
    hub: FakeHub, cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(Exception, match="are free"):
        locate(URI, cache)
    assert hub.downloads == []
