"""A registry in memory with the behaviour that freezing relies on."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

from viper.registry import MissingError, ModelVersion


class MemoryRegistry:
    """Versions and aliases of registered models; `calls` are the functions that changed something."""

    uri = "sqlite:////memory.db"

    def __init__(self) -> None:
        self.models: dict[str, list[ModelVersion]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.runs: dict[tuple[str, str, str], str] = {}
        self.calls: list[str] = []

    def register(
        self,
        model: str,
        source_uri: str,
        digest: str,
        *,
        run: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> int:
        self.calls.append("register")
        known = self.models.setdefault(model, [])
        for version in known:
            if version.digest == digest:
                return version.version
        values = {key: str(value) for key, value in (tags or {}).items()}
        known.append(ModelVersion(model, len(known) + 1, source_uri, digest, run or "", values))
        return len(known)

    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        known = self.models[model][version - 1]
        merged = {**known.tags, **{k: str(v) for k, v in tags.items()}}
        self.models[model][version - 1] = ModelVersion(
            model, version, known.source_uri, known.digest, known.run, merged
        )

    def get(self, model: str, version: int) -> ModelVersion:
        try:
            return self.models[model][version - 1]
        except (KeyError, IndexError):
            raise MissingError(f"no version {version}", where=model) from None

    def versions(self, model: str) -> list[ModelVersion]:
        return list(self.models.get(model, []))

    def get_alias(self, model: str, alias: str) -> int | None:
        return self.aliases.get((model, alias))

    def promote(
        self,
        model: str,
        alias: str,
        version: int,
        expected: int | None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        self.calls.append("promote")
        assert self.get_alias(model, alias) in (expected, version)
        still()
        self.aliases[model, alias] = version

    def resolve(self, model: str, reference: str) -> ModelVersion:
        number = int(reference) if reference.isdigit() else self.get_alias(model, reference)
        return self.get(model, number or 0)

    def iteration_run(self, model: str, iteration: str, uid: str, tags: object = None) -> str:
        return self.runs.setdefault((model, iteration, uid), f"run-{len(self.runs)}")

    def finish_run(self, run: str, status: str = "FINISHED") -> None:
        self.calls.append(f"{run} {status}")


class SavedRegistry(MemoryRegistry):
    """One whose versions and aliases outlive the process, in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            self.models, self.aliases = pickle.loads(path.read_bytes())  # noqa: S301 (its own)

    def register(
        self,
        model: str,
        source_uri: str,
        digest: str,
        *,
        run: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> int:
        found = super().register(model, source_uri, digest, run=run, tags=tags)
        self._save()
        return found

    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None:
        super().set_tags(model, version, tags)
        self._save()

    def promote(
        self,
        model: str,
        alias: str,
        version: int,
        expected: int | None,
        *,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        super().promote(model, alias, version, expected, still=still)
        self._save()

    def _save(self) -> None:
        self._path.write_bytes(pickle.dumps((self.models, self.aliases)))
