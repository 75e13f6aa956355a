"""Part records and manifests: what a stage made, from what, and how many rows it rejected for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from viper.digests import digest_of
from viper.errors import NotFoundError, StageError, StoreError
from viper.spec.base import setting
from viper.store import ObjectStore, relative_uri, resolve_uri
from viper.stored import ENVELOPE, StoredForm

if TYPE_CHECKING:
    from viper.stage.frozen import FrozenIteration

#: What of a manifest says nothing of its content: how long it took, and how it is to be read.
_ASIDE = ENVELOPE | {"seconds"}

#: What a stage made, and what the first attempt to finish it decided that this is.
MANIFEST, OUTCOME = "manifest.json", "outcome.json"


class PartRecord(StoredForm):
    """One immutable part. Everything but `seconds` is a function of the stage's input."""

    WHAT: ClassVar[str] = "the record of a part"

    index: int = setting(ge=0, description="Position of the part in the stage.")
    key: str = setting(description="Key of its rows below the stage prefix.")
    digest: str = setting(description="sha256 of its rows' file, hexadecimal.")
    rows: int = setting(ge=0, description="Rows, accepted and rejected.")
    accepted: int = setting(ge=0, description="Accepted rows.")
    rejected: dict[str, int] = setting(dict, description="Rejected rows by reason.")
    counters: dict[str, int] = setting(dict, description="Further counts, added up over parts (retries, categories…).")
    seconds: float = setting(0.0, unit="s", ge=0, description="Wall-clock time spent; not part of any digest.")


class Manifest(StoredForm):
    """`manifest.json`. Two runs of the same frozen iteration have manifests with the same `content_digest`."""

    WHAT: ClassVar[str] = "a manifest"

    stage: str = setting(description="Stage.")
    iteration: str = setting(description="Iteration name.")
    identity: str = setting(description="`FrozenIteration.identity`.")
    inputs: dict[str, str] = setting(dict, description="`content_digest` of each manifest it was made from, by stage.")
    parts: tuple[PartRecord, ...] = setting(tuple, description="Every part, in order.")
    accepted: int = setting(0, ge=0, description="Accepted rows over all parts.")
    rejected: dict[str, int] = setting(dict, description="Rejected rows by reason over all parts.")
    counters: dict[str, int] = setting(dict, description="Further counts over all parts.")
    outputs: dict[str, Any] = setting(
        dict, description="What else it made, e.g. {model: {uri, digest}}, {scores: …}, {version: …}."
    )
    seconds: float = setting(0.0, unit="s", ge=0, description="Wall-clock time over all parts and attempts.")

    @property
    def content_digest(self) -> str:
        """sha256 over everything that was stored but timings: the same for every release that reads it."""
        content = _content(self.content)
        parts = content.get("parts")
        if isinstance(parts, list | tuple):
            content["parts"] = [_content(p) if isinstance(p, Mapping) else p for p in parts]
        return digest_of(content)

    def at(self, store_uri: str) -> Self:
        """The same as a reader of the store at `store_uri` sees it: the URI of its model in full."""
        model = self.outputs.get("model")
        if not isinstance(model, dict) or not isinstance(uri := model.get("uri"), str):
            return self
        return self.read_as(outputs={**self.outputs, "model": {**model, "uri": resolve_uri(store_uri, uri)}})

    @classmethod
    def of_parts(
        cls,
        *,
        stage: str,
        iteration: str,
        identity: str,
        inputs: dict[str, str],
        parts: Iterable[PartRecord],
        outputs: dict[str, Any],
        seconds: float = 0.0,
    ) -> Manifest:
        """Adds up the parts. `seconds` is time spent outside parts."""
        ordered = tuple(sorted(parts, key=lambda p: p.index))
        rejected: Counter[str] = Counter()
        counters: Counter[str] = Counter()
        for part in ordered:
            rejected.update(part.rejected)
            counters.update(part.counters)
        return cls(
            stage=stage,
            iteration=iteration,
            identity=identity,
            inputs=inputs,
            parts=ordered,
            accepted=sum(p.accepted for p in ordered),
            rejected=dict(sorted(rejected.items())),
            counters=dict(sorted(counters.items())),
            outputs=outputs,
            seconds=seconds + sum(p.seconds for p in ordered),
        )


def manifest_key(prefix: str, stage: str) -> str:
    """Key of a stage's manifest."""
    return f"{prefix}/stages/{stage}/{MANIFEST}"


def has_data(store: ObjectStore, frozen: FrozenIteration) -> bool:
    """Whether a stage of an iteration is done: from then on its spec is what made it."""
    return any(store.stat(manifest_key(frozen.prefix, node.name)) is not None for node in frozen.nodes)


def stored_outputs(outputs: Mapping[str, Any], store_uri: str) -> dict[str, Any]:
    """Outputs as they are stored: a model that lies in the same store by its key there, so that both can move."""
    model = outputs.get("model")
    if not isinstance(model, Mapping) or not isinstance(uri := model.get("uri"), str):
        return dict(outputs)
    return {**outputs, "model": {**model, "uri": relative_uri(store_uri, uri)}}


def load_manifest(store: ObjectStore, prefix: str, stage: str) -> Manifest | None:
    """The manifest of a stage, or None when the stage is not done.

    Raises `StageError` when it cannot be read, `NewerFormError` when a later release wrote it for itself.
    """
    key = manifest_key(prefix, stage)
    try:
        data = store.get(key)
    except NotFoundError:
        return None
    return read_manifest(data, store, key)


def read_manifest(data: bytes, store: ObjectStore, key: str) -> Manifest:
    """A manifest as it is stored under `key`; raises as `load_manifest`."""
    where = f"{store.uri}/{key}"
    found = Manifest.read(data, where=where, error=StageError)
    try:
        return found.at(store.uri)
    except StoreError as error:  # not the store's fault: what stands there is no place
        raise StageError(f"outputs.model.uri is {error.what}", where=where) from None


def _content(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stored.items() if key not in _ASIDE}
