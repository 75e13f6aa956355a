"""`viper-freeze` of the fakes: the real command with a registry in memory that has version 1 of the model `m`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fakes.registry import MemoryRegistry
from viper.store import DirectoryStore, open_store
from viper_jobs.freeze import main as freeze


def main(argv: Sequence[str]) -> int:
    """`argv[0]`: a JSON file with the environment; the others are those of the command. `fakes.toys` freezes what is of
    its method."""
    environment = json.loads(Path(argv[0]).read_text())
    store = open_store(argv[argv.index("--store") + 1])
    if store.stat("settings/toys") is not None:
        from fakes.toys import freeze as toys

        return toys(store, environment)
    assert isinstance(store, DirectoryStore)
    model = store.root.parent / "model"

    def registry(_: str) -> Any:
        found = MemoryRegistry()
        found.register("m", model.as_uri(), "")
        found.promote("m", "generator", 1, None)
        return found

    return freeze(argv[1:], environment=environment, registry=cast(Any, registry))
