"""The benchmarks' data sets on this machine: a folder each, as the Hugging Face hub has it, pinned by content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from viper.errors import InputError
from viper.modelcache import fetch
from viper.modelcache.locate import hub_is_offline
from viper.spec.evaluation import HUB, Benchmarks
from viper.store import child_uri
from viper.store.places import cache_dir, expanded
from viper.store.transfer import DirectoryDigests, directory_digests

_WHERE = "spec.evaluation.benchmarks.datasets"


@dataclass(frozen=True)
class DataSet:
    """A data set's folder (read it, never write it) and what pins its content."""

    path: Path
    digest: str


def dataset_uri(benchmarks: Benchmarks, dataset: str) -> str:
    """The URI of `org/name` below the configured place; `hub` is none."""
    place = benchmarks.datasets
    if not urlsplit(place).scheme:
        place = expanded(place).absolute().as_uri()
    return child_uri(place, dataset)


def find(benchmarks: Benchmarks, dataset: str) -> DataSet:
    """The folder of `org/name`, fetched first where it lies in an object store or on the hub.

    Raises `InputError` when it is not there, `StoreError`.
    """
    if benchmarks.datasets == HUB:
        return _from_hub(dataset)
    uri = dataset_uri(benchmarks, dataset)
    try:
        entry = fetch(uri)
    except InputError as error:
        raise InputError(
            f"there is no data set {dataset}: {error.what}",
            where=f"{_WHERE} ({uri})",
            fix=f"put it there as the hub has it: `hf download --repo-type dataset {dataset} --local-dir …/{dataset}`"
            if uri.startswith("file:")
            else error.fix,
        ) from None
    if not any(entry.path.rglob("*.parquet")):
        raise InputError(f"the data set {dataset} has no parquet file", where=str(entry.path), fix="download it again")
    return DataSet(entry.path, _digest(entry.path))


def _digest(folder: Path) -> str:
    """Over what is read of it: `hf download` leaves a folder `.cache` that is another one each time."""
    files = directory_digests(folder, cache=cache_dir() / "digests.json").files
    seen = {path: digest for path, digest in files.items() if not any(p.startswith(".") for p in path.split("/"))}
    return DirectoryDigests(seen).digest


def _from_hub(dataset: str) -> DataSet:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(dataset, repo_type="dataset", local_files_only=hub_is_offline()))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"the data set {dataset} cannot be fetched from the hub: {str(error).splitlines()[0]}",
            where=_WHERE,
            fix="set a directory or s3:// prefix that has the data sets, where the hub cannot be reached",
        ) from None
    return DataSet(path, f"commit:{path.name}")
