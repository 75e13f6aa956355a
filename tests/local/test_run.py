"""A whole run: freezing, iterations one after another, and what a second run of the same file does."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fakes import world
from fakes.local import PRELOAD
from fakes.registry import MemoryRegistry
from viper.errors import InputError
from viper.local import LocalRun, RunDirectory
from viper.plan import Plan
from viper.spec import ViperIteration, ViperLoop, parse_resource
from viper.stage import FrozenIteration, ProgressRecord, load_frozen


class Told:
    """A listener that keeps what it is told."""

    interval = 3600.0

    def __init__(self) -> None:
        self.iterations: list[tuple[str, bool]] = []
        self.notices: list[str] = []

    def iteration(self, frozen: FrozenIteration, *, resumed: bool) -> None:
        self.iterations.append((frozen.name, resumed))

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def update(self, frozen: FrozenIteration, made: Plan, progress: Mapping[str, ProgressRecord]) -> None:
        pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    memory = MemoryRegistry()
    monkeypatch.setattr("viper.local.run.Registry", lambda _uri: memory)
    return memory


def spec(path: Path, **fields: Any) -> dict[str, Any]:
    folder = path / "model"
    uri = folder.as_uri() if folder.exists() else world.model(folder).as_uri()
    images = {"uri": "file:///i", "limit": 10}
    one = world.iteration(generator={"alias": "generator", "initialUri": uri}, images=images, **fields)
    return dict(one.dump()["spec"])


def loop(path: Path, iterations: int = 2) -> ViperLoop:
    resource = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperLoop",
            "metadata": {"name": "l"},
            "spec": {"iterations": iterations, "template": spec(path)},
        }
    )
    assert isinstance(resource, ViperLoop)
    return resource


def local(path: Path, resource: ViperIteration | ViperLoop, told: Told) -> LocalRun:
    directory = RunDirectory(path / "run")
    directory.path.mkdir(exist_ok=True)
    return LocalRun(directory, directory.open(resource, None, None), told, entry="fakes.program:main", preload=PRELOAD)


def test_the_iterations_of_a_loop_run_one_after_another(tmp_path: Path, registry: MemoryRegistry) -> None:
    told = Told()
    one = local(tmp_path, loop(tmp_path), told)
    result = one.run()
    assert result.condition.reason == "AllIterationsDone"
    assert result.names == ["l-1", "l-2"]
    assert told.iterations == [("l-1", False), ("l-2", False)]
    assert [c for c in registry.calls if "FINISHED" in c] == ["run-0 FINISHED", "run-1 FINISHED"]
    second = load_frozen(one.store, "l-2")
    assert second is not None
    assert second.iteration.spec.images.offset == 10


def test_a_loop_that_is_done_is_left_alone(tmp_path: Path, registry: MemoryRegistry) -> None:
    local(tmp_path, loop(tmp_path), Told()).run()
    calls, told = list(registry.calls), Told()
    one = local(tmp_path, loop(tmp_path), told)
    before = [(o.key, o.size) for o in one.store.list()]
    assert one.run().condition.reason == "AllIterationsDone"
    assert told.iterations == [("l-1", True), ("l-2", True)]
    assert told.notices == []
    assert registry.calls == calls
    assert [(o.key, o.size) for o in one.store.list()] == before


def test_a_longer_loop_goes_on(tmp_path: Path, registry: MemoryRegistry) -> None:
    local(tmp_path, loop(tmp_path, 1), Told()).run()
    told = Told()
    assert local(tmp_path, loop(tmp_path, 2), told).run().names == ["l-1", "l-2"]
    assert told.iterations == [("l-1", True), ("l-2", False)]


def test_a_hold_stops_the_loop(tmp_path: Path, registry: MemoryRegistry) -> None:
    one = local(tmp_path, loop(tmp_path), Told())
    one.store.put("settings/reject-synthesize-captions", b"")
    result = one.run()
    assert result.names == ["l-1"]
    assert result.condition.reason == "IterationHeld"
    assert "synthesize-captions 0 of 12 (odd 12)" in result.condition.message


def test_a_failed_iteration_is_tried_again_by_the_next_run(tmp_path: Path, registry: MemoryRegistry) -> None:
    one = local(tmp_path, loop(tmp_path, 1), Told())
    world.fault(one.store, "evaluate", "input-error")
    result = one.run()
    assert (result.last.outcome, result.condition.reason) == ("failed", "IterationFailed")
    assert "run-0 FAILED" in registry.calls
    assert local(tmp_path, loop(tmp_path, 1), Told()).run().last.outcome == "promoted"


def test_a_suspended_iteration_starts_nothing(tmp_path: Path, registry: MemoryRegistry) -> None:
    resource = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": spec(tmp_path, suspend=True),
        }
    )
    one = local(tmp_path, resource, Told())
    assert one.run().last.outcome == "suspended"
    assert not list(one.store.list("made/"))


def test_nothing_is_trained_when_a_supplied_file_cannot_be_used(tmp_path: Path, registry: MemoryRegistry) -> None:
    """A photograph that broke off in a question file was found by the evaluation, after all training."""
    photo = io.BytesIO()
    Image.effect_noise((200, 150), 80).convert("RGB").save(photo, "JPEG")
    (tmp_path / "torn.jpg").write_bytes(photo.getvalue()[:4000])
    row = {"question_id": "a", "domain": "d", "image": "torn.jpg", "question": "What?", "answer": "A ring."}
    (tmp_path / "q.jsonl").write_text(f"\n{json.dumps(row)}\n")
    resource = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": spec(tmp_path, evaluation={"questions": str(tmp_path / "q.jsonl")}),
        }
    )
    assert isinstance(resource, ViperIteration)
    told = Told()
    one = local(tmp_path, resource, told)
    with pytest.raises(InputError, match=r"(?s)spec\.evaluation\.questions.*q\.jsonl.*line 2.*JPEG"):
        one.run()
    assert (told.iterations, registry.calls) == ([], [])
    assert [o.key for o in one.store.list() if o.key.startswith(("iterations/", "made/"))] == []
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "torn.jpg")
    assert local(tmp_path, resource, Told()).run().last.outcome == "promoted"
