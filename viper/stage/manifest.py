"""Part records and manifests: what a stage made, from what, and how many rows it rejected for which reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from viper.digests import digest_of
from viper.errors import NotFoundError, StageError
from viper.spec.base import SpecModel, setting
from viper.store import ObjectStore

#: What a stage made, and what the first attempt to finish it decided that this is.
MANIFEST, OUTCOME = "manifest.json", "outcome.json"


class PartRecord(SpecModel):
    """One immutable part. Everything but `seconds` is a function of the stage's input."""

    index: int = setting(ge=0, description="Position of the part in the stage.")
    key: str = setting(description="Key of its rows below the stage prefix.")
    digest: str = setting(description="sha256 of its rows' file, hexadecimal.")
    rows: int = setting(ge=0, description="Rows, accepted and rejected.")
    accepted: int = setting(ge=0, description="Accepted rows.")
    rejected: dict[str, int] = setting(dict, description="Rejected rows by reason.")
    counters: dict[str, int] = setting(dict, description="Further counts, added up over parts (retries, categories…).")
    seconds: float = setting(0.0, unit="s", ge=0, description="Wall-clock time spent; not part of any digest.")


class Manifest(SpecModel):
    """`manifest.json`. Two runs of the same frozen iteration have manifests with the same `content_digest`."""

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
        """sha256 over everything but timings."""
        dump = self.dump()
        dump.pop("seconds")
        for part in dump["parts"]:
            part.pop("seconds")
        return digest_of(dump)

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


def load_manifest(store: ObjectStore, prefix: str, stage: str) -> Manifest | None:
    """The manifest of a stage, or None when the stage is not done; raises `StageError` when it cannot be read."""
    key = manifest_key(prefix, stage)
    try:
        data = store.get(key)
    except NotFoundError:
        return None
    return read_manifest(data, f"{store.uri}/{key}")


def read_manifest(data: bytes, where: str) -> Manifest:
    """A manifest as it is stored at `where`; raises `StageError` when it cannot be read."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as e:
        raise StageError(f"is not a manifest: {e.errors()[0]['msg']}", where=where) from None
