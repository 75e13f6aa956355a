"""Where model directories come from: the Hugging Face hub, an object store, the MLflow registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from viper.errors import InputError, NotFoundError, StoreError
from viper.modelcache.uris import HubUri, hub_uri
from viper.store import DirectoryStore, check_key, open_store, stored_digests
from viper.store.transfer import FileDigest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

#: Kinds of files that are taken from the hub. Weights are safetensors; pickles (.bin, .pt, .pkl) and code never are.
SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})


@dataclass(frozen=True)
class RemoteFile:
    """One file. Its size in bytes, and what it must hash to: `sha256`, or `blob`, git's SHA-1 of small files."""

    size: int
    sha256: str | None = None
    blob: str | None = None

    def accepts(self, found: FileDigest, path: Path) -> bool:
        """Whether the file at `path`, of which `found` was computed, is this one."""
        if found.size != self.size:
            return False
        if self.sha256 is not None:
            return found.sha256 == self.sha256
        return self.blob is None or git_blob(path) == self.blob


@dataclass(frozen=True)
class Remote:
    """A model directory somewhere else: its URI with everything movable resolved, its files, and how to get one.

    `fetch(path, directory)` puts the file into `directory` under its path; it raises `InputError` or `StoreError`.
    """

    uri: str
    files: dict[str, RemoteFile]
    fetch: Callable[[str, Path], None]
    digest: str | None = None


def stored(uri: str) -> Remote:
    """A directory that `upload_directory` stored; raises `StoreError` when it is not complete."""
    store = open_store(uri)
    if isinstance(store, DirectoryStore):
        raise InputError("is not remote", where=uri)
    digests = stored_digests(store, "")

    def fetch(path: str, directory: Path) -> None:
        try:
            store.get_file(path, directory / path)
        except NotFoundError as error:
            raise StoreError(
                f"the file {path} is missing",
                where=uri,
                fix="upload the directory again: what is complete there stays, what is missing is sent",
            ) from error

    files = {path: RemoteFile(d.size, sha256=d.sha256) for path, d in digests.files.items()}
    return Remote(uri, files, fetch, digests.digest)


def hub_commit(uri: HubUri) -> HubUri:
    """The URI at the commit that its revision means now; raises `InputError` when the hub cannot tell."""
    from huggingface_hub import HfApi

    with _explained(uri):
        return uri.at(str(HfApi().model_info(uri.repo, revision=uri.revision).sha))


def hub(uri: str) -> Remote:
    """A model on the hub, at the commit that its revision means now. Raises `InputError` when the hub cannot serve it.

    The hub's address is `HF_ENDPOINT`, its token `HF_TOKEN`, as in huggingface_hub.
    """
    from huggingface_hub import HfApi, hf_hub_download

    wanted = hub_uri(uri)
    with _explained(wanted):
        info = HfApi().model_info(wanted.repo, revision=wanted.revision, files_metadata=True)
    pinned = wanted.at(str(info.sha))
    siblings = list(info.siblings or ())
    chosen = dict(_chosen(wanted, siblings, SUFFIXES))
    pickled = dict(_chosen(wanted, siblings, PICKLES))
    if pickled and not any(name.endswith(".safetensors") for name in chosen):
        raise InputError(
            f"its weights are pickles ({', '.join(sorted(pickled)[:3])}), which are never loaded",
            where=str(pinned),
            fix="name a revision with safetensors (often refs%2Fpr%2F<number>), or convert them with "
            "`viper models convert` and upload the directory to the store (docs/model-cache.md)",
        )
    if not chosen:
        raise InputError(
            "has no file that may be loaded", where=str(pinned), fix="choose a model whose weights are safetensors"
        )

    def fetch(path: str, directory: Path) -> None:
        name = chosen[path].rfilename
        with _explained(pinned):
            got = Path(hf_hub_download(pinned.repo, name, revision=pinned.revision, local_dir=directory))
        if got != directory / path:  # below the URI's path
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            got.replace(directory / path)

    return Remote(str(pinned), {path: _hub_file(s) for path, s in chosen.items()}, fetch)


def _chosen(uri: HubUri, siblings: list[RepoSibling], suffixes: frozenset[str]) -> Iterator[tuple[str, RepoSibling]]:
    """Path in the local directory → file, for what lies at or below the URI's path and has one of these suffixes."""
    for sibling in siblings:
        name = check_key(sibling.rfilename)
        if PurePosixPath(name).suffix not in suffixes:
            continue
        if not uri.path:
            yield name, sibling
        elif name == uri.path:
            yield PurePosixPath(name).name, sibling
        elif name.startswith(f"{uri.path}/"):
            yield name.removeprefix(f"{uri.path}/"), sibling


def _hub_file(sibling: RepoSibling) -> RemoteFile:
    if sibling.lfs is not None:
        return RemoteFile(sibling.lfs.size, sha256=sibling.lfs.sha256)
    if sibling.size is None:
        raise InputError("the hub does not tell its size", where=sibling.rfilename)
    return RemoteFile(sibling.size, blob=sibling.blob_id)


def git_blob(path: Path) -> str:
    """Git's object id of a file: SHA-1 over `blob <size>\\0` and the content. An address, not a safeguard."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _explained(uri: HubUri) -> Iterator[None]:
    """Turns the hub's errors into ones that say what to do."""
    from huggingface_hub import constants, errors

    # Its HTTP client's, whichever that is in this version: all that goes wrong on the way.
    network: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            "its owner has to grant access first", where=str(uri), fix="ask for it on the hub and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"there is no revision {uri.revision!r}", where=str(uri), fix="correct it") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            "there is no such model, or it is private",
            where=str(uri),
            fix="correct its name, or set HF_TOKEN to a token that may read it",
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, network) as e:
        raise InputError(
            f"{constants.ENDPOINT} does not serve it: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}",
            where=str(uri),
            fix="run the same command again, what is complete is kept; HF_ENDPOINT names a mirror of the hub",
        ) from e
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror or error}", where=str(error.filename or uri)) from error
