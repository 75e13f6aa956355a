"""A frozen iteration of fake stages, and faults that its programs run into at a chosen store operation.

Everything travels through the object store, so that the same scenarios fit any executor. Faults are objects
`faults/<stage>/<n>.json`; a program takes the first one before it acts on it, so that each strikes once. Every part
that a program makes leaves a mark `made/<stage>/<part>/<uuid>`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from viper.errors import AlreadyExistsError
from viper.methods.stages import stage_graph
from viper.spec import ViperIteration, parse_resource
from viper.stage import FrozenIteration, ResolvedModel, load_manifest
from viper.stage.frozen import Tracking
from viper.store import ObjectInfo, ObjectStore

ENGINES = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")


def iteration(name: str = "it", **spec: Any) -> ViperIteration:
    """An iteration whose retries come at once; `spec` overrides fields of the spec."""
    profile = {"defaults": {"retries": 2, "backoffSeconds": 0}}
    fields: dict[str, Any] = {"model": "m", "images": {"uri": "file:///i"}, "engines": ENGINES, "profile": profile}
    fields["promotion"] = {"gate": {"unmeasured": "Promote"}}  # nothing is asked here
    resource = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": name},
            "spec": {**fields, **spec},
        }
    )
    assert isinstance(resource, ViperIteration)
    return resource


def frozen(name: str = "it", **spec: Any) -> FrozenIteration:
    """The same, frozen without a registry."""
    model = ResolvedModel(uri="file:///model", digest="sha256:0", model="m", version=1)
    return FrozenIteration(
        iteration=iteration(name, **spec),
        generator=model,
        base=model,
        critic=model,
        judge=model,
        alias_version=1,
        tracking=Tracking(uri="sqlite:////none", parent_run="r"),
    )


def model(folder: Path, weights: bytes = b"w") -> Path:
    """A model directory in Hugging Face layout, as far as names go."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "processor_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def write(store: ObjectStore, one: FrozenIteration) -> None:
    """Puts `iteration.json` into the store."""
    with suppress(AlreadyExistsError):
        store.put(f"{one.prefix}/iteration.json", one.model_dump_json(by_alias=True).encode(), if_absent=True)


def fault(store: ObjectStore, stage: str, act: str, at: int = 1, *, after: bool = False) -> None:
    """The next attempt of `stage` that gets to its operation number `at` does `act` before (or after) it."""
    number = sum(1 for _ in store.list(f"faults/{stage}/"))
    content = json.dumps({"act": act, "at": at, "after": after})
    store.put(f"faults/{stage}/{number:04d}.json", content.encode())


def pending_faults(store: ObjectStore) -> list[str]:
    """Faults that have not struck."""
    return [o.key for o in store.list("faults/")]


def made(store: ObjectStore) -> Counter[str]:
    """How often each part was made."""
    return Counter(o.key.rpartition("/")[0].removeprefix("made/") for o in store.list("made/"))


def manifests(store: ObjectStore, one: FrozenIteration) -> dict[str, str | None]:
    """Content digest of the manifest of every stage."""
    found = {}
    for node in stage_graph(one.iteration.spec.recipe):
        manifest = load_manifest(store, one.prefix, node.name)
        found[node.name] = None if manifest is None else manifest.content_digest
    return found


class MarkedStore:
    """Delegates to a store and calls `before` and `after` around every operation."""

    def __init__(self, store: ObjectStore, stage: str, act: Any) -> None:
        self._store, self._stage, self._act, self.operations = store, stage, act, 0

    @property
    def uri(self) -> str:
        return self._store.uri

    def mark(self, part: int) -> None:
        """Notes that a part was made."""
        self._store.put(f"made/{self._stage}/{part}/{uuid.uuid4().hex}", b"")

    def _around(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.operations += 1
        self._strike(after=False)
        try:
            return getattr(self._store, name)(*args, **kwargs)
        finally:
            self._strike(after=True)

    def _strike(self, *, after: bool) -> None:
        first = next(iter(self._store.list(f"faults/{self._stage}/")), None)
        if first is None:
            return
        planned = json.loads(self._store.get(first.key))
        if planned["at"] == self.operations and planned["after"] is after:
            self._store.delete(first.key)
            self._act(planned["act"])

    def get(self, key: str) -> bytes:
        return self._around("get", key)  # type: ignore[no-any-return]

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._around("put", key, data, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        self._around("put_file", key, path, if_absent=if_absent, sha256=sha256)

    def get_file(self, key: str, path: Path) -> None:
        self._around("get_file", key, path)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._around("stat", key)  # type: ignore[no-any-return]

    def sha256(self, key: str) -> str | None:
        return self._around("sha256", key)  # type: ignore[no-any-return]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._around("list", prefix)  # type: ignore[no-any-return]

    def delete(self, key: str) -> None:
        self._around("delete", key)
