"""The words of a training stage's reasoning: counted once when it is recorded, kept beside its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from viper.analysis.reasoning import Reasoning, reasoning_of
from viper.errors import AlreadyExistsError, NotFoundError
from viper.jsonl import stored_lines
from viper.stage import Manifest
from viper.store import ObjectStore
from viper.stored import enveloped

KEY = "reasoning.json"
#: Rollouts above this are counted by the stage alone, not by whoever looks at its report.
MAX_BYTES = 64 * 2**20


def keep_reasoning(store: ObjectStore, prefix: str, manifest: Manifest) -> Reasoning | None:
    """Counts the words of a training stage's rollouts and stores them; None when there is nothing to count.

    Args:
        prefix: of the stage.
    """
    found = reasoning_of(_rollouts(store, prefix, manifest))
    if found is not None:
        text = json.dumps(enveloped(found.dump()), sort_keys=True, ensure_ascii=False).encode()
        with suppress(AlreadyExistsError):
            store.put(f"{prefix}/{_key(manifest)}", text, if_absent=True)
    return found


def load_reasoning(store: ObjectStore, prefix: str, manifest: Manifest) -> Reasoning | None:
    """The words of a training stage, counted now where nobody has and its rollouts are small."""
    try:
        return Reasoning.load(store.get(f"{prefix}/{_key(manifest)}"))
    except (NotFoundError, ValueError):
        pass
    folder = manifest.outputs.get("rollouts")
    if not isinstance(folder, str) or sum(f.size for f in store.list(f"{prefix}/{folder}")) > MAX_BYTES:
        return None
    return reasoning_of(_rollouts(store, prefix, manifest))


def _key(manifest: Manifest) -> str:
    """Beside the rollouts whose words are counted: another attempt's have another name."""
    rollouts = manifest.outputs.get("rollouts")
    return KEY if not isinstance(rollouts, str) or rollouts.endswith("/") else f"{rollouts.rpartition('.')[0]}.{KEY}"


def _rollouts(store: ObjectStore, prefix: str, manifest: Manifest) -> Iterator[bytes]:
    folder = manifest.outputs.get("rollouts")
    if isinstance(folder, str):
        yield from stored_lines(store, f"{prefix}/{folder}")
