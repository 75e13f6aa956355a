"""Registered models: versions by reference, lineage in tags, promotion by moving an alias."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from viper.errors import RegistryError, UnfitRegistryError
from viper.registry.connection import Connection, MissingError

DIGEST = "viper.digest"
SOURCE = "viper.source"
#: Tag of a version, set when it is made and never again: URI of the store in which movers of the model's aliases lock.
#: The oldest version that has it decides, so that all of them agree.
LOCKS = "viper.locks"
_DIGITS = 18  # of a version's number
_STORE_URI = re.compile(r"^(s3|file)://|^/")


class AliasMovedError(RegistryError):
    """The alias is not where the caller expects it: another promotion came first."""


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry: where its files are and what they are."""

    model: str
    version: int
    source_uri: str
    digest: str
    run: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Versions:
    """The model registry. All functions raise RegistryError when MLflow cannot be used."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def register(
        self,
        model: str,
        source_uri: str,
        digest: str,
        *,
        run: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> int:
        """Register the files at `source_uri` (a store's URI; nothing is copied) and return the version.

        Idempotent: a `digest` (`sha256:…`, of the directory) that is registered keeps its version, with `tags` updated
        (but for `LOCKS`).
        """
        values = {key: str(value) for key, value in (tags or {}).items()}
        known = self._by_digest(model, digest)
        if known:
            for key, value in values.items():
                if key != LOCKS and known[0].tags.get(key) != value:
                    self._connection.call("set_model_version_tag", model, str(known[0].version), key, value)
            return known[0].version
        try:
            self._connection.call("create_registered_model", model)
        except RegistryError as error:  # exists, or another process makes it just now
            try:
                self._connection.call("get_registered_model", model)
            except MissingError:
                raise error from None  # it may not be made
        source = source_uri
        if self._connection.database is None and source.startswith("file:"):
            # A server refuses file:// outside its own artifacts, lest it serve its disk to others. Nothing is served
            # here: another scheme says so, and the tag keeps the URI.
            source = "viper-" + Path(unquote(urlsplit(source).path)).resolve().as_uri()
        values |= {DIGEST: digest, SOURCE: source_uri}
        self._connection.call("create_model_version", model, source, run, tags=values)
        # MLflow has no conditional create: two processes, or a request repeated after its answer got lost, make several
        # equal versions. Versions are numbered by the server, so that all agree on the first one, and the others go.
        first, *others = self._by_digest(model, digest)
        for extra in others:
            with suppress(MissingError):  # the other process removed it
                self._connection.call("delete_model_version", model, str(extra.version))
        return first.version

    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        """Set tags of a version (lineage, scores)."""
        for key, value in tags.items():
            self._connection.call("set_model_version_tag", model, str(version), key, str(value))

    def get(self, model: str, version: int) -> ModelVersion:
        """One version. Raises MissingError when there is none."""
        return _model_version(self._connection.call("get_model_version", model, str(version)))

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions, oldest first; empty when the model is not registered."""
        return self._search(f"name = '{_quotable(model)}'")

    def get_alias(self, model: str, alias: str) -> int | None:
        """The version behind `alias`; None when the model or the alias does not exist."""
        try:
            return _number(self._connection.call("get_model_version_by_alias", model, alias).version)
        except MissingError:
            return None
        except RegistryError as error:  # MLflow reports a missing alias of an existing model as a bad parameter
            if "alias" in error.what.lower() and "not found" in error.what.lower():
                return None
            raise

    def promote(
        self,
        model: str,
        alias: str,
        version: int,
        expected: int | None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        """Move `alias` to `version` if it is still at `expected` (None: it does not exist yet).

        Done already is success. Raises AliasMovedError when it points elsewhere. With SQLite comparison and move are
        one step for all processes of this machine; a server offers no such operation: there the alias is read
        immediately before and after. What lies between is closed by the lock of `viper.registry.moves.set_alias`,
        through which aliases are moved; `still` is called before the move, and raises where it must not be made.
        """
        self.get(model, version)
        with self._connection.exclusive():
            current = self.get_alias(model, alias)
            if current == version:
                return
            if current != expected:
                raise _moved(model, alias, version, expected, current)
            still()
            self._connection.call("set_registered_model_alias", model, alias, str(version))
            current = self.get_alias(model, alias)
        if current != version:
            raise _moved(model, alias, version, version, current)

    def resolve(self, model: str, reference: str) -> ModelVersion:
        """Find a version of `model`.

        `reference` is an alias (`generator`), a number (`3`), `models:/name@alias`, `models:/name/3`, or the URI it was
        registered with. Raises MissingError with the known versions and aliases.
        """
        match = re.fullmatch(r"models:/([^@/]+)(?:@(.+)|/([0-9]+))", reference)
        if match:
            model, alias, number = match.groups()
        elif _STORE_URI.match(reference):
            for known in self.versions(model):
                if known.source_uri == reference:
                    return known
            raise self._unknown(model, reference)
        else:
            alias, number = (None, reference) if re.fullmatch(r"[0-9]+", reference) else (reference, None)
        if number is not None and len(number) > _DIGITS:
            raise self._unknown(model, reference)
        version = int(number) if number else self.get_alias(model, alias or "")
        if version is None:
            raise self._unknown(model, reference)
        try:
            return self.get(model, version)
        except MissingError as error:
            raise self._unknown(model, reference) from error

    def aliases(self, model: str) -> dict[str, int]:
        """All aliases of a model with their versions; empty when the model is not registered."""
        try:
            found = self._connection.call("get_registered_model", model).aliases
        except MissingError:
            return {}
        return {str(alias): int(version) for alias, version in dict(found).items()}

    def _unknown(self, model: str, reference: str) -> MissingError:
        numbers = [v.version for v in self.versions(model)]
        known = ", ".join([f"@{alias} → {v}" for alias, v in sorted(self.aliases(model).items())])
        return MissingError(
            f"{reference} names no version of {model} (versions: {numbers or 'none'}; aliases: {known or 'none'})",
            where=self._connection.uri,
            fix="register a model first, or give the URI of a model directory",
        )

    def _by_digest(self, model: str, digest: str) -> list[ModelVersion]:
        found = self._search(f"name = '{_quotable(model)}' and tags.`{DIGEST}` = '{_quotable(digest)}'")
        return [v for v in found if v.digest == digest]

    def _search(self, condition: str) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._connection.call("search_model_versions", condition, max_results=1000, page_token=token)
            found += [_model_version(item) for item in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda v: v.version)


def _moved(model: str, alias: str, version: int, expected: int | None, current: int | None) -> AliasMovedError:
    return AliasMovedError(
        f"the alias {alias} is at version {current}, not at {expected}: another promotion came first; "
        f"version {version} is registered but not promoted",
        where=f"models:/{model}@{alias}",
        fix="compare the two versions, then promote by hand or run an iteration from the new generator",
    )


def _number(version: Any) -> int:
    text = str(version)
    if not re.fullmatch(rf"[0-9]{{1,{_DIGITS}}}", text):
        raise RegistryError(f"MLflow answers with the version {text[:40]!r}", fix="check that the server is MLflow's")
    return int(text)


def _model_version(entity: Any) -> ModelVersion:
    tags = dict(entity.tags)
    return ModelVersion(
        model=str(entity.name),
        version=_number(entity.version),
        source_uri=tags.get(SOURCE, str(entity.source)),
        digest=tags.get(DIGEST, ""),
        run=str(entity.run_id or ""),
        tags=tags,
    )


def _quotable(value: str) -> str:
    if "'" in value or "\\" in value:
        raise UnfitRegistryError(
            "a name must not have quotes or backslashes", where=repr(value), fix="choose another name"
        )
    return value
