"""URIs of model directories: what they name, and which forms they have. Nothing is contacted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from viper.errors import InputError, SpecError
from viper.extensions import reader, written
from viper.store import open_store

#: Schemes that name a model directory; everything else after an engine's name is a path or the engine's own affair.
SCHEMES = ("hf://", "s3://", "models:/", "file:///")
#: Schemes of what has to be fetched before it can be loaded.
REMOTE = ("hf://", "s3://", "models:/")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>.+))?")
_REGISTRY = re.compile(r"models:/(?P<model>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class HubUri:
    """`hf://org/name[@revision][/path]`, as huggingface_hub's file system writes it; `/` in a revision is `%2F`."""

    repo: str
    revision: str = "main"
    path: str = ""

    @property
    def is_commit(self) -> bool:
        """Whether the revision can never mean anything else."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubUri:
        """The same at a commit."""
        return HubUri(self.repo, commit, self.path)

    def __str__(self) -> str:
        return f"hf://{self.repo}@{quote(self.revision, safe='')}" + (f"/{self.path}" if self.path else "")


def is_uri(text: str) -> bool:
    """Whether `text` is the URI of a model directory, as opposed to a path."""
    return text.startswith(SCHEMES)


def is_remote(text: str) -> bool:
    """Whether it has to be fetched."""
    return text.startswith(REMOTE)


def is_pinned(uri: str) -> bool:
    """Whether the URI itself says which content is meant: a commit of the hub."""
    return uri.startswith("hf://") and hub_uri(uri).is_commit


def hub_uri(uri: str) -> HubUri:
    """Raises `SpecError` for what is not `hf://org/name[@revision][/path]`."""
    found = _HUB.fullmatch(uri)
    if found is None or any(part in ("", ".", "..") for part in (found["path"] or "x").rstrip("/").split("/")):
        raise SpecError(
            "is not the URI of a model on the Hugging Face hub", where=uri, fix="write hf://org/name@revision"
        )
    return HubUri(found["repo"], unquote(found["revision"] or "main"), (found["path"] or "").rstrip("/"))


def registered_model(uri: str) -> str:
    """The model's name in `models:/name@alias` or `models:/name/version`; raises `SpecError`."""
    found = _REGISTRY.fullmatch(uri)
    if found is None:
        raise SpecError(
            "is not the URI of a registered model", where=uri, fix="write models:/name@alias or models:/name/version"
        )
    return found["model"]


def engine_uri(name: str) -> str | None:
    """The URI behind an engine's name (`qwen-image:hf://Qwen/Qwen-Image`), None when there is none."""
    _, _, rest = name.partition(":")
    return rest if is_uri(rest) else None


def check_model_uri(uri: str) -> None:
    """Raises `InputError` for what is no URI of a model that iterations begin with, `SpecError` for a malformed one."""
    if (own := reader("models", uri)) is not None and own.fits(uri):
        return
    if urlsplit(uri).scheme == "file" or uri.startswith(("hf://", "models:/", "s3://")):
        model_form(uri)
        return
    raise InputError(
        "is not the URI of a model",
        where=uri,
        fix=f"use file:///directory, s3://bucket/prefix, hf://org/name@revision, models:/name@alias or "
        f"{written('models')}",
    )


def model_form(uri: str) -> None:
    """Raises `SpecError` for a malformed URI of a kind that names models."""
    if uri.startswith("hf://"):
        hub_uri(uri)
    elif uri.startswith("models:/"):
        registered_model(uri)
    else:
        open_store(uri)
