"""Where the benchmarks' data sets come from: a folder, an object store; never the network where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_fakes import iteration

from viper.errors import InputError
from viper.evaluation.datasets import find
from viper.methods.stages import EVALUATE, TRAIN_CAPTIONS, declared
from viper.modelcache.needs import all_models, benchmark_data, stage_models
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.evaluation import Benchmark, Benchmarks
from viper.store import ObjectStore
from viper.store.transfer import directory_digest, upload_directory

MMSTAR = "Lin-Chen/MMStar"


def benchmarks(place: str) -> Benchmarks:
    return Benchmarks(tasks={"mmstar": Benchmark()}, datasets=place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as the hub has it."""
    place = tmp_path / "data" / MMSTAR
    (place / "data").mkdir(parents=True)
    (place / "README.md").write_text("---\n---\n", "utf-8")
    (place / "data" / "val-0.parquet").write_bytes(b"PAR1")
    return place


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["path", "uri"])
def test_a_folder_is_used_in_place_and_pinned_by_content(tmp_path: Path, folder: Path, form: str) -> None:
    place = tmp_path / "data"
    found = find(benchmarks(str(place) if form == "path" else place.as_uri()), MMSTAR)
    assert (found.path, found.digest) == (folder, directory_digest(folder))


def test_other_content_is_another_digest(tmp_path: Path, folder: Path) -> None:
    before = find(benchmarks(str(tmp_path / "data")), MMSTAR).digest
    (folder / "data" / "val-0.parquet").write_bytes(b"PAR1PAR1")
    assert find(benchmarks(str(tmp_path / "data")), MMSTAR).digest != before


def test_what_a_download_leaves_behind_is_not_content(tmp_path: Path, folder: Path) -> None:
    before = find(benchmarks(str(tmp_path / "data")), MMSTAR).digest
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "val-0.parquet.metadata").write_text("today", "utf-8")
    assert find(benchmarks(str(tmp_path / "data")), MMSTAR).digest == before


@pytest.mark.server
def test_a_data_set_in_an_object_store_is_fetched_once_and_needs_no_hub(
    folder: Path, minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    upload_directory(minio_store, MMSTAR, folder)
    found = find(benchmarks(minio_store.uri), MMSTAR)
    assert found.digest == directory_digest(folder)
    assert (found.path / "data" / "val-0.parquet").read_bytes() == b"PAR1"
    assert find(benchmarks(minio_store.uri), MMSTAR) == found


def test_a_data_set_that_is_not_there_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set Lin-Chen/MMStar(?s:.)*hf download --repo-type dataset"):
        find(benchmarks(str(tmp_path)), MMSTAR)


def test_a_folder_without_rows_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / MMSTAR).mkdir(parents=True)
    (tmp_path / MMSTAR / "README.md").write_text("---\n---\n", "utf-8")
    with pytest.raises(InputError, match="has no parquet file"):
        find(benchmarks(str(tmp_path)), MMSTAR)


def test_the_hub_is_not_asked_where_it_must_not_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be fetched from the hub(?s:.)*set a directory or s3://"):
        find(benchmarks("hub"), MMSTAR)


def test_data_sets_in_an_object_store_are_fetched_as_models_are() -> None:
    tasks = {name: {} for name in BENCHMARKS}
    spec = iteration(evaluation={"benchmarks": {"tasks": tasks, "datasets": "s3://viper/benchmarks"}}).spec
    wanted = benchmark_data(spec.evaluation.benchmarks)
    assert wanted["spec.evaluation.benchmarks.datasets (blink)"] == "s3://viper/benchmarks/BLINK-Benchmark/BLINK"
    assert len(wanted) == 7
    assert wanted.items() <= stage_models(spec, declared(EVALUATE)).items()
    assert wanted.items() <= all_models(spec).items()
    assert not wanted.keys() & stage_models(spec, declared(TRAIN_CAPTIONS)).keys()


@pytest.mark.parametrize("place", ["hub", "/data/benchmarks"])
def test_what_lies_elsewhere_is_not_fetched_into_the_cache(place: str) -> None:
    assert benchmark_data(benchmarks(place)) == {}
