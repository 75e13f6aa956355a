"""Every mistake in the table is refused, by the API server and by the command line, with the field and the remedy."""

from __future__ import annotations

import re

import pytest
from crd_api import RefusedError, Resources, installed
from invalid_manifests import CASES
from manifest_cases import Case

from servers.kube import KubeApi
from viper.errors import SpecError
from viper.spec import parse_resource

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


@pytest.mark.kube
def test_the_api_server_refuses_it_and_says_why(case: Case, resources: Resources) -> None:
    with pytest.raises(RefusedError) as refused:
        resources.create(case.manifest)
    assert lacks(str(refused.value), case.field, case.says + case.server) == [], str(refused.value)


def test_the_command_line_refuses_it_and_says_why(case: Case) -> None:
    with pytest.raises(SpecError) as refused:
        parse_resource(case.manifest)
    assert lacks(str(refused.value), case.field, case.says + case.here) == [], str(refused.value)
