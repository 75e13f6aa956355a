"""`kubectl viper render` and whatever is given to it: a clear refusal or the right result, as `viper render` has it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.bad_resources import BAD, GOOD, MINIMAL, TEXT
from support.refusals import refused
from viper_operator.plugin.main import main

PROFILE = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperProfile",
    "metadata": {"name": "eight"},
    "spec": {"stages": {"synthesize-captions": {"shards": 8}}},
}
#: Words of `viper render` where this command takes several documents.
OTHER = {"is empty": "holds no ViperIteration and no ViperLoop"}


@pytest.mark.parametrize("case", list(BAD)[::2])
def test_what_is_no_resource_is_refused_with_its_place(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD[case]
    file = tmp_path / "it.yaml"
    file.write_bytes(content)
    assert str(file) in refused(main, ["render", str(file)], OTHER.get(words, words), capsys)


@pytest.mark.parametrize("case", GOOD)
def test_what_looks_odd_and_is_right_is_rendered(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "it.yaml").write_bytes(GOOD[case][0])
    assert main(["render", str(tmp_path / "it.yaml")]) == 0
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) > 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{TEXT}---\nkind: [x]\n", "it.yaml document 2: kind is a list"),
        (f"{TEXT}---\nhello\n", "it.yaml document 2: expected one resource"),
        (f"{TEXT}---\na: 1\na: 2\n", "the key 'a' is there twice"),
        (f"{TEXT}---\n{{\n", "not valid YAML"),
        (yaml.safe_dump(PROFILE), "holds no ViperIteration and no ViperLoop"),
        (TEXT + "  profileRef: elsewhere\n", "the profile elsewhere is neither in the given files nor in the cluster"),
        (TEXT + "  profileRef: ''\n", "spec.profileRef: must be"),
        (TEXT + "  profileRef: [eight]\n", "spec.profileRef: "),
        (TEXT + "  profileRef: eight\n  profile: {}\n", "set either profile or profileRef"),
    ],
)
def test_a_file_of_several_is_refused_for_one_that_is_bad(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none.conf"))
    (tmp_path / "it.yaml").write_text(content)
    refused(main, ["render", str(tmp_path / "it.yaml")], words, capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.yaml"], "none.yaml: there is no such file"),
        (["."], ".: is a folder"),
        ([], "required: FILE"),
        (["it.yaml", "more.yaml"], "unrecognized arguments"),
        (["it.yaml", "--stage", "train"], "first has no stage train"),
        (["it.yaml", "--stage", ""], "first has no stage"),
        (["it.yaml", "--stage", "cold-start"], "first has no stage cold-start"),
        (["it.yaml", "--iteration", "two"], "is no iteration"),
        (["it.yaml", "--iteration", "0"], "is no iteration"),
        (["it.yaml", "--iteration", "-1"], "is no iteration"),
        (["it.yaml", "--iteration", "1.5"], "is no iteration"),
        (["it.yaml", "--iteration", "9" * 30], "is no iteration"),
        (["it.yaml", "--iteration", "1"], "--iteration: "),
        (["loop.yaml", "--iteration", "4"], "l has 3 iterations"),
        (["it.yaml", "--profile", "none.yaml"], "none.yaml: there is no such file"),
        (["it.yaml", "--profile", "it.yaml"], "it.yaml: holds no ViperProfile"),
        (["it.yaml", "--profile", "."], ".: is a folder"),
        (["it.yaml", "--live", "--kubeconfig", "none.conf"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "it.yaml"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "list.yaml"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "empty.yaml"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "broken.yaml"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "picture"], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "."], "no cluster to talk to"),
        (["it.yaml", "--live", "--kubeconfig", "kube.conf", "--context", "none"], "no cluster to talk to"),
        (["it.yaml", "-n", "Not A Namespace"], "is no namespace"),
        (["it.yaml", "-n", ""], "is no namespace"),
        (["it.yaml", "-n", "../kube-system"], "is no namespace"),
        (["it.yaml", "-n", "n" * 64], "is no namespace"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop: dict[str, Any] = {**MINIMAL, "kind": "ViperLoop", "metadata": {"name": "l"}}
    loop["spec"] = {"iterations": 3, "template": MINIMAL["spec"]}
    (tmp_path / "it.yaml").write_text(TEXT)
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "broken.yaml").write_text("{a: [1")
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [context],
        "current-context": "c",
    }
    (tmp_path / "kube.conf").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.chdir(tmp_path)
    refused(main, ["render", *argv], words, capsys)


class Input(io.BytesIO):
    """Standard input as a process has it."""

    @property
    def buffer(self) -> io.BytesIO:
        return self


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "standard input: holds no ViperIteration"),
        (b"\xff\xfe", "standard input: is UTF-16"),
        (b"kind: [x]", "standard input: kind is a list"),
        (b"# " + b"x" * 2**21, "standard input: is larger than 2 MiB"),
        (None, "standard input: is closed"),
    ],
)
def test_what_comes_by_a_pipe_is_refused_as_a_file_is(
    content: bytes | None, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None if content is None else Input(content))
    refused(main, ["render", "-"], words, capsys)


def test_a_pod_without_a_home_has_a_cluster_to_look_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", "KUBECONFIG", "LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    refused(main, ["status"], "no cluster to talk to", capsys)
