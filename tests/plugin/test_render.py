"""`kubectl viper render`: what the operator would create, without a cluster."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import world
from viper.methods.stages import declared
from viper_operator.job_specs import JobRequest, stage_job
from viper_operator.plugin.main import main
from viper_operator.plugin.render import UID, assumed

PROFILE = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperProfile",
    "metadata": {"name": "eight"},
    "spec": {"stages": {"synthesize-captions": {"shards": 8, "gpus": 1}}},
}


def referring(name: str = "it", profile: str = "eight", **spec: Any) -> dict[str, Any]:
    body = world.iteration(name, **spec).dump()
    del body["spec"]["profile"]
    body["spec"]["profileRef"] = profile
    return body


def write(path: Path, *documents: Any) -> str:
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def jobs(text: str) -> dict[str, Any]:
    return {d["metadata"]["labels"]["viper.dev/stage"]: d for d in yaml.safe_load_all(text)}


def test_the_jobs_are_those_that_the_operators_builders_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = world.iteration()
    assert main(["render", write(tmp_path / "f.yaml", one.dump()), "-n", "lab"]) == 0
    found = jobs(capsys.readouterr().out)
    assert list(found)[:2] == ["freeze", "ingest-images"]
    assert list(found)[-1] == "promote"
    for stage, job in found.items():
        expected = stage_job(JobRequest(one, UID, declared(stage)), assumed("lab"))
        assert "uid" not in job["metadata"]["ownerReferences"][0]
        job["metadata"]["ownerReferences"][0]["uid"] = UID
        assert job == expected


def test_every_job_says_what_it_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", write(tmp_path / "f.yaml", world.iteration().dump())]) == 0
    comments = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert comments[:3] == [
        "# it freeze: at once",
        "# it ingest-images: after freeze; no policy",
        "# it synthesize-captions: after ingest-images; policy: θ0",
    ]
    assert "# it train-operations: after validate-operations, train-captions; policy: from train-captions" in comments


@pytest.mark.parametrize("where", ["same file", "--profile"])
def test_a_profile_comes_from_the_file_or_from_another(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [referring()]
    arguments = ["--stage", "synthesize-captions"]
    if where == "same file":
        documents.append(PROFILE)
    else:
        arguments += ["--profile", write(tmp_path / "p.yaml", PROFILE)]
    assert main(["render", write(tmp_path / "f.yaml", *documents), *arguments]) == 0
    found = jobs(capsys.readouterr().out)
    assert list(found) == ["synthesize-captions"]
    assert found["synthesize-captions"]["spec"]["completions"] == 8


def test_a_profile_that_is_nowhere_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "f.yaml", referring(profile="nine"), PROFILE)
    assert main(["render", file, "--kubeconfig", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "spec.profileRef: the profile nine is neither in the given files nor in the cluster" in error
    assert "--profile" in error


def test_one_iteration_of_a_loop_is_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {"name": "l"},
        "spec": {"iterations": 2, "template": world.iteration().dump()["spec"]},
    }
    file = write(tmp_path / "l.yaml", loop)
    assert main(["render", file, "--iteration", "2", "--stage", "freeze"]) == 0
    assert jobs(capsys.readouterr().out)["freeze"]["metadata"]["name"] == "l-2-freeze"
    assert main(["render", file, "--iteration", "3"]) == 2
    assert "l has 2 iterations" in capsys.readouterr().err


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(world.iteration().dump())))
    assert main(["render", "-", "--stage", "promote"]) == 0
    assert list(jobs(capsys.readouterr().out)) == ["promote"]


@pytest.mark.parametrize(
    ("documents", "arguments", "expected"),
    [
        ([PROFILE], [], "holds no ViperIteration and no ViperLoop"),
        ([world.iteration().dump()], ["--stage", "trian"], "it has no stage trian"),
        ([PROFILE, {"kind": "ViperItration"}], [], "f.yaml document 2: kind is 'ViperItration'"),
    ],
    ids=["nothing-to-render", "unknown-stage", "unknown-kind"],
)
def test_what_cannot_be_rendered_says_why(
    tmp_path: Path, documents: list[Any], arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", write(tmp_path / "f.yaml", *documents), *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(tmp_path / "none.yaml")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def templated(tmp_path: Path, template: dict[str, Any]) -> list[str]:
    """Arguments that render an iteration with this pod template."""
    file = tmp_path / "it.yaml"
    one = world.iteration().dump()
    one["spec"]["profile"] = {"defaults": {"podTemplate": template}}
    file.write_text(yaml.safe_dump(one))
    return ["render", str(file), "--stage", "evaluate"]


def test_a_pod_template_that_needs_unrestricted_is_rendered_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(templated(tmp_path, {"spec": {"hostNetwork": True}})) == 0
    text = capsys.readouterr().out
    assert (
        "# Refused unless the operator's podTemplates are unrestricted: evaluate: podTemplate: spec.hostNetwork" in text
    )
    (job,) = yaml.safe_load_all(text)
    assert job["spec"]["template"]["spec"]["hostNetwork"] is True


@pytest.mark.parametrize(
    "template",
    [{"spec": {"containers": "x"}}, {"spec": {"serviceAccountName": "viper-operator"}}, {"spec": {"containers": None}}],
    ids=["no list", "the operator's account", "without the stage"],
)
def test_one_that_no_operator_takes_is_an_error(
    template: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(templated(tmp_path, template)) == 2
    assert "podTemplate" in capsys.readouterr().err
