"""Anybody's package: its engines, prompts, pools, questions and models come in as the small world's do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from viper.extensions import BUNDLED, Extension, extensions
from viper.prompts import PromptSet

DECLARATION = """
from pathlib import Path
from viper.extensions import Engine, Extension, Uris

EXTENSION = Extension(
    engines={"editor": Engine("acme.engines:Editor", "none"), "similarity": Engine("acme.engines:Similarity", "must")},
    prompts=Path(__file__).parent / "words",
    pools=Uris("acme:photos?count=N", "acme.supply:photos", r"acme:photos\\?count=[1-9]", limits="N below 10", side=64),
    questions=Uris("acme:riddles", "acme.supply:riddles", "acme:riddles"),
    models=Uris("acme:small", "acme.supply:small", "acme:small"),
)
"""
ENGINES = """
class Editor:
    engine_id = "acme-editor/1"
    def edit(self, requests): return []

class Similarity:
    def __init__(self, place): self.engine_id = f"acme-similarity {place}"
    def embed(self, sentences): return []
"""
SUPPLY = """
import hashlib
from pathlib import Path
from PIL import Image
from viper.evaluation.questions import Question
from viper.ingest.sources import PoolEntry, Listing

class Photos:
    enumerable = False
    def __init__(self, uri): self.uri = uri
    def listing(self): return Listing([PoolEntry(str(n)) for n in range(int(self.uri[-1]))])
    def read(self, name): return Image.new("RGB", (64, 64))

def photos(uri): return Photos(uri)
def riddles(uri, name): return [Question(f"{name}-1", "d", "k", "What?", "That.", "0" * 64, lambda: None)]
def small(uri): return Path(__file__).parent / "model"
"""
ASKED = """
import json, sys
from fakes import world
from viper.engines import factory
from viper.errors import ViperError
from viper.evaluation.questions import load_questions
from viper.ingest.sources import open_source
from viper.iteration.known import check_names, everywhere
from viper.modelcache.resolve import resolve_model
from viper.prompts import PromptSet
from viper.store import open_store

GOOD = {
    "generator": {"uri": "acme:small"},
    "images": {"uri": "acme:photos?count=3"},
    "evaluation": {"questions": "acme:riddles"},
    "engines": {**world.ENGINES, "editor": "acme", "similarity": "acme:/"},
    "recipe": {"prompts": "acme"},
}
one = world.iteration("it", **GOOD).spec
check_names(one, everywhere)

def refused(spec):
    try:
        check_names(world.iteration("it", **{**GOOD, **spec}).spec, everywhere)
    except ViperError as error:
        return str(error)

editor, similarity = factory.editor(one), factory.similarity(one)
print(json.dumps({
    "engines": [editor.engine_id, similarity.engine_id],
    "prompts": PromptSet.load("acme").templates["caption"],
    "pool": [e.name for e in open_source(one.images.uri).listing().entries],
    "most": one.images.most(),
    "questions": [q.question_id for q in load_questions(one.evaluation.questions, "selection")],
    "model": resolve_model(one.generator.uri, open_store(sys.argv[1])).digest,
    "refused": [refused(json.loads(spec)) for spec in sys.argv[2:]],
}))
"""
REFUSED = {
    "a pool that it has not": (
        {"images": {"uri": "acme:photos?count=10"}},
        "or acme:photos?count=N, N below 10 or smal",
    ),
    "a set that it has not": ({"evaluation": {"questions": "acme:jokes"}}, "or acme:riddles or smallworld:questions"),
    "a model that it has not": ({"generator": {"uri": "acme:large"}}, ", or acme:small or smallworld:starter"),
    "a place that is not wanted": ({"engines": {"editor": "acme:/m"}}, "the engine acme takes no model of its own"),
    "a place left out": ({"engines": {"similarity": "acme"}}, "'acme' does not say where its model is"),
    "an engine that it has not": ({"engines": {"reconstructor": "acme"}}, "there is no engine 'acme'"),
    "prompts that nobody has": ({"recipe": {"prompts": "acne"}}, "did you mean 'acme'? use one of acme, smallworld"),
}


def installed(folder: Path, declaration: str) -> Path:
    """A folder as a package's installation leaves it, with a package `acme`."""
    package = folder / "acme"
    shutil.copytree(Path(extensions()["smallworld"].prompts or ""), package / "words")
    (package / "words" / "caption.txt").write_text("Say what acme sees.\n")
    (package / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "processor_config.json", "model.safetensors"):
        (package / "model" / name).write_text("{}")
    for name, text in {"__init__": declaration, "engines": ENGINES, "supply": SUPPLY}.items():
        (package / f"{name}.py").write_text(text)
    about = folder / "acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[viper.extensions]\nacme = acme:EXTENSION\n")
    return folder


def python(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = installed(tmp_path_factory.mktemp("site"), DECLARATION)
    specs = [
        json.dumps(spec if "engines" not in spec else {"engines": _engines(**spec["engines"])})
        for spec, _ in REFUSED.values()
    ]
    done = python(folder, "-c", ASKED, str(tmp_path_factory.mktemp("store")), *specs)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _engines(**names: str) -> dict[str, str]:
    return dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld") | names


@pytest.mark.process
@pytest.mark.parametrize(
    ("what", "is_so"),
    {
        "engines": ["acme-editor/1", "acme-similarity /"],
        "prompts": "Say what acme sees.",
        "pool": ["0", "1", "2"],
        "most": 3,
        "questions": ["selection-1"],
    }.items(),
)
def test_what_a_package_adds_is_used_by_name(said: dict[str, Any], what: str, is_so: object) -> None:
    assert said[what] == is_so


@pytest.mark.process
def test_its_model_is_copied_into_the_store(said: dict[str, Any]) -> None:
    assert said["model"].startswith("sha256:")


@pytest.mark.process
@pytest.mark.parametrize("case", REFUSED)
def test_what_it_does_not_add_is_refused_with_its_words_beside_the_others(said: dict[str, Any], case: str) -> None:
    assert REFUSED[case][1] in said["refused"][list(REFUSED).index(case)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("declaration", "why"),
    [
        ("import no_such_module", "the extension acme (acme:EXTENSION) cannot be read: No module named"),
        ("EXTENSION = {'engines': {}}", "is no viper.extensions.Extension but of type dict"),
        ("", "has no attribute 'EXTENSION'"),
        ("raise SystemError('half made')", "cannot be read: half made"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_named(tmp_path: Path, declaration: str, why: str) -> None:
    done = python(installed(tmp_path, declaration), "-m", "viper", "explain", "ViperIteration.spec.images")
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", BUNDLED)
def test_what_comes_with_viper_needs_no_installation(name: str) -> None:
    assert isinstance(extensions()[name], Extension)
    assert PromptSet.load(name).name == name
