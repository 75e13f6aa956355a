"""Every mistake in the table is refused, by the API server and by both command lines, with the field and the remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from crd_api import RefusedError, Resources, installed
from invalid_manifests import CASES
from manifest_cases import Case

from servers.kube import KubeApi
from support.refusals import refused
from viper.cli import main as viper
from viper_operator.plugin.main import main as plugin

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


@pytest.fixture(scope="module")
def resources(kube_api: KubeApi) -> Resources:
    return installed(kube_api)


def lacks(message: str, field: str, words: tuple[str, ...]) -> list[str]:
    """What the message does not say. A path may be split: `spec.images: minSide (9) is more than …`."""
    text, path = (re.sub(r"\[(\d+)\]", r".\1", x) for x in (message, field))
    parts = path.split(".")
    splits = [(".".join(parts[:i]), ".".join(parts[i:])) for i in range(1, len(parts) + 1)]
    named = any(head in text and re.search(rf"\b{re.escape(tail)}\b", text) for head, tail in splits)
    return [w for w in words if w not in message] + ([] if named else [field])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its path says nothing of the case."""
    return tmp_path_factory.mktemp("manifests") / "it.yaml"


@pytest.mark.kube
def test_the_api_server_refuses_it_and_says_why(case: Case, resources: Resources) -> None:
    with pytest.raises(RefusedError) as answer:
        resources.create(case.manifest)
    said = str(answer.value)
    assert lacks(said, case.field, case.says + case.server) == [], said
    assert not case.hidden or case.hidden not in said


def test_the_command_line_refuses_it_and_says_why(case: Case, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(json.dumps(case.manifest), "utf-8")
    said = refused(viper, ["render", str(file)], "", capsys)
    assert lacks(said, case.field, case.says + case.here) == [], said
    assert not case.hidden or case.hidden not in said


def test_the_plugin_refuses_it_and_says_why(case: Case, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(json.dumps(case.manifest), "utf-8")
    said = refused(plugin, ["render", str(file)], "", capsys)
    assert lacks(said, case.field, case.says + case.here) == [], said
    assert not case.hidden or case.hidden not in said
