"""What the API server takes: valid manifests that look odd, and mistakes that its rules cannot see, which the command
lines and the freeze Job refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crd_api import Resources, installed
from manifest_cases import patched, valid
from test_invalid_manifests import lacks

from servers.kube import KubeApi
from support.refusals import refused
from viper.cli import main as viper
from viper_operator.plugin.main import main as plugin

_DEFAULTS = "spec profile defaults"
_SELECTOR = f"{_DEFAULTS} nodeSelector"
_LIMITS = f"{_DEFAULTS} resources limits"

#: Valid, each by its path and value.
VALID: list[tuple[str, Any]] = [
    ("spec promotion alias", "v2beta"),
    ("spec promotion alias", "latest-good"),
    ("spec model", "Qwen2.5 VL – süß (b) + c, d=e"),
    ("spec images uri", "s3://my.photos.2024/x y/größe"),
    ("spec images uri", "s3://my-photos"),
    ("spec images uri", "s3://photos/a@b"),
    ("spec images uri", "s3://photos/x?endpoint=http://[::1]:65535"),
    ("spec images uri", "s3://photos/x?endpoint=http://minio.storage.svc:9000"),
    ("spec images uri", "file:///data/100%25/a%3Fb"),
    ("spec images uri", "/data/team@home/x"),
    ("spec images uri", "photos/~old/token"),
    ("spec generator", {"uri": "hf://Qwen/Qwen2.5-VL-7B-Instruct@refs/pr/1"}),
    ("spec generator", {"uri": "models:/other model/12"}),
    ("spec engines vlm", "openai:https://h/v1#org/name:tag@1"),
    ("spec engines vlm", "openai:http://vllm_0.team:8000"),
    ("spec engines vlm", "openai:http://[fd00::1]:8000/v1"),
    ("spec engines vlm", "openai:https://bücher.example/v1"),
    ("spec evaluation benchmarks judge", "openai:http://10.0.0.1:65535/v1#org/name"),
    ("spec evaluation benchmarks instruction", 'Answer:\n\t"x" ünd 中'),
    (_LIMITS, {"cpu": 4, "memory": "1e9"}),
    (_LIMITS, {"memory": "1.5Gi", "hugepages-2Mi": "4Mi", "hugepages-64Ki": "1Mi", "hugepages-1Gi": "2Gi"}),
    (_LIMITS, {"rdma.io/hca": "1k", "amd.com/gpu": 2}),
    (f"{_DEFAULTS} gpuResourceName", "nvidia.com/mig-1g.5gb"),
    (_SELECTOR, {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "node-role.kubernetes.io/gpu": ""}),
    (_SELECTOR, {f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}/{'e' * 63}": "x"}),
    (f"{_DEFAULTS} tolerations", [{"operator": "Exists"}]),
    (f"{_DEFAULTS} image", f"registry.local:5000/a/b__c/d:v1.2_3@sha256:{'a' * 64}"),
    (f"{_DEFAULTS} env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k.x"}}}]),
    (f"{_DEFAULTS} modelCache", {"claimName": "weights.v1", "mountPath": "/mnt/..models/v1.5"}),
]

#: Mistakes that only the models see: the API server takes keys and quantities for long, and what rules may cost is
#: bounded. By path and value; the field that is named, and the remedy.
LEFT: list[tuple[str, Any, str, str]] = [
    (_SELECTOR, {"Example.com/pool": "a"}, "nodeSelector", "must be letters, digits"),
    (_SELECTOR, {"a" * 64: "a"}, "nodeSelector", "at most 63"),
    (_SELECTOR, {"a/b/c": "a"}, "nodeSelector", "must be letters, digits"),
    (_LIMITS, {"amd.com/gpu": "1.5"}, "resources", "must be a whole number"),
    (_LIMITS, {"hugepages-bigGi": "1Gi"}, "resources", "is no resource of a container"),
    (_LIMITS, {"AMD.com/gpu": 1}, "resources", "is no resource of a container"),
    ("spec engines editor", "photoshop", "spec.engines.editor", "there is no engine"),
    ("spec engines vlm", "OpenAI:https://h/v1#m", "spec.engines.vlm", "did you mean 'openai'?"),
    ("spec engines trainer", "trlx", "spec.engines.trainer", "trl"),
    ("spec recipe prompts", "nope", "spec.recipe.prompts", "nope"),
]


@pytest.fixture(scope="module")
def resources(kube_api: KubeApi) -> Resources:
    return installed(kube_api)


def _manifest(path: str, value: Any) -> dict[str, Any]:
    return patched(valid("ViperIteration"), {path: value})


@pytest.mark.kube
@pytest.mark.parametrize(("path", "value"), [*VALID, *(case[:2] for case in LEFT)], ids=str)
def test_the_api_server_takes_it(path: str, value: Any, resources: Resources) -> None:
    assert resources.create(_manifest(path, value))["kind"] == "ViperIteration"


@pytest.mark.parametrize("command", [viper, plugin])
@pytest.mark.parametrize(("path", "value"), VALID, ids=str)
def test_the_command_lines_take_it(path: str, value: Any, command: Any, tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(json.dumps(_manifest(path, value)), "utf-8")
    assert command(["render", str(file)]) == 0


@pytest.mark.parametrize("command", [viper, plugin])
@pytest.mark.parametrize("case", LEFT, ids=str)
def test_the_command_lines_refuse_what_the_api_server_cannot_see(
    case: tuple[str, Any, str, str], command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, value, field, says = case
    file = tmp_path / "it.yaml"
    file.write_text(json.dumps(_manifest(path, value)), "utf-8")
    said = refused(command, ["render", str(file)], "", capsys)
    assert lacks(said, field, (says,)) == [], said
