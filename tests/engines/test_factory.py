"""Engines by name: known ones, one's own, and mistakes that say what to write instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from support.synthesis import frozen
from viper.engines import factory
from viper.engines.base import Editor, EditResult, Reconstruction, Reconstructor, VlmOutput
from viper.engines.names import ENGINES, engines
from viper.errors import SpecError
from viper.spec import IterationSpec


def spec(**engines: str) -> IterationSpec:
    names = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld") | engines
    return frozen("smallworld:scenes?count=1", engines=names).iteration.spec


class OwnEngine:
    """Stands for an engine that a user wrote; where it runs is what the profile says."""

    engine_id = "own/1"

    def __init__(self, model: Path | None = None, device: str = "nowhere") -> None:
        self.model, self.device = model, device

    def edit(self, *_: object) -> list[object]:
        return []

    def embed_images(self, *_: object) -> list[object]:
        return []


def test_the_engines_of_the_small_world_have_their_interfaces() -> None:
    assert isinstance(factory.reconstructor(spec()), Reconstructor)
    assert isinstance(factory.editor(spec()), Editor)


def test_an_engine_of_ones_own_is_named_by_module_and_class() -> None:
    made = factory.editor(spec(editor=f"{__name__}:OwnEngine"))
    assert isinstance(made, OwnEngine)
    assert made.device == "cpu"


def test_a_directory_behind_the_name_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES["imageSimilarity"], "own", f"{__name__}:OwnEngine")
    made = factory.image_similarity(spec(imageSimilarity="own:/models/clip"))
    assert isinstance(made, OwnEngine)
    assert made.model == Path("/models/clip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smalworld", "did you mean 'smallworld'"),
        ("qwen", "use one of"),
        ("no.such.module:Editor", "cannot be imported"),
        ("argparse:Namespace", "it cannot edit"),
        ("math:pi", "has no constructor"),
        (":", "the name of an engine"),
        (".relative:Editor", "the name of an engine"),
        ("viper.engines.base:Nothing", "cannot be imported"),
    ],
)
def test_a_wrong_name_is_a_mistake_in_the_specification(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        factory.editor(spec(editor=name))


def test_a_model_directory_that_is_left_out_is_asked_for() -> None:
    with pytest.raises(SpecError, match=r"spec\.engines\.imageSimilarity.*directory") as caught:
        factory.image_similarity(spec(imageSimilarity="open-clip"))
    assert "open-clip:/directory" in caught.value.fix


@pytest.mark.process
def test_the_factory_itself_imports_no_deep_learning_library() -> None:
    code = (
        "import sys, viper.engines.factory; sys.exit(bool({'torch', 'transformers', 'open_clip'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


#: What an interface's method that says something returns: types that make their words clean.
SAYING = {
    "vlm": ("generate", VlmOutput),
    "reconstructor": ("reconstruct", Reconstruction),
    "editor": ("edit", EditResult),
}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("interface", "name"), [(interface, name) for interface in SAYING for name in engines(interface)]
)
def test_every_engines_words_come_in_by_the_door_that_cleans_them(interface: str, name: str) -> None:
    cls, _ = factory.engine_class(interface, name)
    method, result = SAYING[interface]
    assert get_type_hints(getattr(cls, method))["return"] == list[result]  # type: ignore[valid-type]
