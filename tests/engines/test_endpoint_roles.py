"""A critic or judge behind an endpoint: frozen by address, asked whatever engine the other models have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.chat_server import MODEL, ChatServer, answers, serving
from engines.test_openai_endpoint import Echo
from fakes import world
from fakes.registry import MemoryRegistry
from support.synthesis import context, frozen
from viper.engines import factory
from viper.engines.base import Sampling, VlmRequest
from viper.engines.weights import weights_id
from viper.errors import EngineError, SpecError
from viper.iteration.freeze import freeze
from viper.modelcache.engines import StageEngines
from viper.modelcache.resolve import resolve_endpoint
from viper.store import DirectoryStore

NAMES = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(Echo()) as running:
        yield running


def freeze_with(root: Path, uri: str, **spec: Any) -> Any:
    directory = world.model(root / "model")
    generator = {"alias": "generator", "initialUri": directory.as_uri()}
    iteration = world.iteration("it", generator=generator, recipe={"models": {"judge": uri}}, **spec)
    return freeze(iteration, DirectoryStore(root / "store"), MemoryRegistry()).iteration


def test_a_judge_behind_an_endpoint_is_frozen_by_address(tmp_path: Path) -> None:
    made = freeze_with(tmp_path, "openai:https://host/v1/#judge-72b")
    assert made.judge == resolve_endpoint("openai:https://host/v1#judge-72b")
    assert made.judge.uri == "openai:https://host/v1#judge-72b"
    assert made.critic == made.generator


@pytest.mark.parametrize("field", ["spec.engines.vlm", "spec.recipe.models.judge"])
@pytest.mark.parametrize("address", ["https://me:secret@host/v1#judge", "https://host/v1?key=secret#judge"])
def test_an_address_with_a_secret_is_refused_when_it_is_read_and_not_repeated(field: str, address: str) -> None:
    uri = f"openai:{address}"
    judge = {"recipe": {"models": {"judge": uri}}}
    changed = {"engines": {**world.ENGINES, "vlm": uri}} if field == "spec.engines.vlm" else judge
    with pytest.raises(SpecError) as caught:
        world.iteration("it", **changed)
    assert f"{field}: must be openai:https://host/v1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_trained_cannot_be_behind_an_endpoint() -> None:
    with pytest.raises(SpecError, match=r"spec\.generator\.uri: must be file:///directory"):
        world.iteration("it", generator={"uri": "openai:https://host/v1#judge"})


def test_the_judge_is_asked_over_http_whatever_the_other_models_engine_is(tmp_path: Path, server: ChatServer) -> None:
    spec = frozen("smallworld:scenes?count=1", engines=NAMES)
    remote = spec.model_copy(update={"judge": resolve_endpoint(f"openai:{server.place}")})
    engines = StageEngines(context(tmp_path, "validate-operations", remote))
    engines.check("judge")
    server.faults += [answers("It was done.")]
    (output,) = engines.judge.generate([VlmRequest((), "Was it done?")], Sampling())
    assert output.text == "It was done."
    assert engines.judge.engine_id == f"openai/{server.url}#{MODEL}"


def test_an_endpoint_for_all_models_must_serve_the_very_checkpoint(tmp_path: Path, server: ChatServer) -> None:
    directory = world.model(tmp_path / "model")
    spec = frozen("smallworld:scenes?count=1", engines=NAMES | {"vlm": f"openai:{server.url}"}).iteration.spec
    with pytest.raises(EngineError, match=f"does not offer the model 'viper-{weights_id(directory)}'"):
        factory.vision_language_model(spec, directory)
    named = frozen("smallworld:scenes?count=1", engines=NAMES | {"vlm": f"openai:{server.place}"}).iteration.spec
    assert factory.vision_language_model(named, directory).engine_id.endswith(f"#{MODEL}")
