"""One device, engines in turn: what does not fit beside the next one is closed, what can never fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.synthesis import FakeEngines, context, frozen
from viper.errors import UnfitEngineError
from viper.ingest.stage import ingest
from viper.tasks.captions.synthesis import synthesize_captions

GIB = 2**30


class Closable:
    """A fake engine that notes when it is closed."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.closed = engine, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        self.closed += 1


class Planned(FakeEngines):
    """Fakes that take memory."""

    def __init__(self, ctx: Any, gib: dict[str, int]) -> None:
        super().__init__(ctx)
        self.gib, self.opened = gib, list[str]()
        self.closable: dict[str, Closable] = {}

    def _needed(self, role: str) -> int:
        self._needs[self._key(role)] = self.gib[role] * GIB
        return self.gib[role] * GIB

    def _load(self, role: str) -> Any:
        self.opened.append(role)
        return self.closable.setdefault(role, Closable(super()._load(role)))


def planned(root: Path, gib: dict[str, int]) -> Planned:
    it = frozen("smallworld:scenes?count=4&seed=3", profile={"defaults": {"gpuMemory": "80Gi"}})
    assert ingest(context(root, "ingest-images", it)) is not None
    return Planned(context(root, "synthesize-captions", it), gib)


def run(engines: Planned) -> None:
    assert synthesize_captions(engines._ctx, engines) is not None


def test_engines_that_do_not_fit_together_are_loaded_in_turn(tmp_path: Path) -> None:
    engines = planned(tmp_path, {"generator": 72, "reconstructor": 60, "critic": 72})
    run(engines)
    assert engines.opened == ["generator", "reconstructor", "critic"]
    assert (engines.closable["generator"].closed, engines.closable["reconstructor"].closed) == (1, 1)


def test_engines_that_fit_together_stay(tmp_path: Path) -> None:
    engines = planned(tmp_path, {"generator": 20, "reconstructor": 60, "critic": 20})
    run(engines)
    assert engines.opened == ["generator", "reconstructor"], "critic and generator are one checkpoint"
    assert not any(engine.closed for engine in engines.closable.values())


def test_what_can_never_fit_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    engines = planned(tmp_path, {"generator": 20, "reconstructor": 96, "critic": 20})
    with pytest.raises(UnfitEngineError, match=r"reconstruction.*needs 96.0 GiB.*80.0(.|\n)*offload"):
        run(engines)
    assert engines.opened == []
