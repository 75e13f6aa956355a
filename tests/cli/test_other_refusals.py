"""`viper models`, `explain`, `doctor`, `smallworld` and the command line itself: refused, or the right result."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.bad_resources import BAD, TEXT
from support.refusals import refused
from viper.cli import VIPER, main
from viper_operator.plugin.main import KUBECTL_VIPER
from viper_operator.plugin.main import main as kubectl_viper


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a resource and other things; no hub, no servers, an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIPER_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("VIPER_MODEL_CACHE", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("MLFLOW_TRACKING_URI", "VIPER_STORE", "VIPER_TRACKING", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "it.yaml").write_text(TEXT)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: ACTION"),
        (["push"], "invalid choice"),
        (["pull"], "name files or URIs"),
        (["pull", ""], "is neither the URI of a model nor a file"),
        (["pull", "none.yaml"], "is neither the URI of a model nor a file"),
        (["pull", "folder"], "is neither the URI of a model nor a file"),
        (["pull", "nul\0"], "is neither the URI of a model nor a file"),
        (["pull", "n" * 300], "is neither the URI of a model nor a file"),
        (["pull", "http://host/model"], "is neither the URI of a model nor a file"),
        (["pull", "smallworld:starter"], "is neither the URI of a model nor a file"),
        (["pull", "file"], "expected one resource"),
        (["pull", "hf://"], "hf://"),
        (["pull", "hf://org"], "hf://"),
        (["pull", "hf://org/name@"], "hf://"),
        (["pull", "hf://org/name/../x"], "hf://"),
        (["pull", "hf://org/na me"], "hf://"),
        (["pull", "hf://org/name@main\0"], "hf://"),
        (["pull", "models:/"], "models:/"),
        (["pull", "models:/m"], "models:/"),
        (["pull", "models:/m@"], "models:/"),
        (["pull", "models:/m/abc"], "models:/"),
        (["pull", "models:/m/-1"], "models:/"),
        (["pull", "models:/m/1"], "which MLflow has the model is not said"),
        (["pull", "models:/m/1", "--tracking-uri", "sqlite:///none.db"], "there is no such database"),
        (["pull", "models:/m/1", "--tracking-uri", "nonsense"], "not a tracking URI"),
        (["pull", "models:/m/1", "--tracking-uri", ""], "not a tracking URI"),
        (["pull", "s3://"], "s3://"),
        (["pull", "s3://[x"], "s3://[x"),
        (["pull", "s3://Bucket_/x"], "not a bucket name"),
        (["pull", "file:///none/at/all"], "there is no such directory"),
        (["pull", "it.yaml", "--cache", "file"], "is a file"),
        (["pull", "--iteration", "file:///none/iterations/x"], "a frozen iteration and a stage"),
        (["pull", "--stage", "evaluate"], "a frozen iteration and a stage"),
        (["pull", "--iteration", "nonsense", "--stage", "evaluate"], "is not the URI of an iteration"),
        (["pull", "--iteration", "http://[x/iterations/a", "--stage", "evaluate"], "is not the URI of an iteration"),
        (
            ["pull", "--iteration", "file:///none/iterations/x", "--stage", "evaluate"],
            "the store is gone, or never was there",
        ),
        (["list", "--cache", "none"], "there is no such folder"),
        (["list", "--cache", "file"], "is a file"),
        (["list", "-o", "yaml"], "invalid choice"),
        (["convert", "none", "target"], "there is no pytorch_model.bin"),
        (["convert", "folder", "target"], "there is no pytorch_model.bin"),
        (["convert", "file", "target"], "there is no pytorch_model.bin"),
        (["convert", "folder"], "required: TARGET"),
    ],
)
def test_models_that_are_none(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, ["models", *argv], words, capsys)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"uri": 3}', b'{"uri": "x", "digest": []}'], ids=str
)
def test_an_entry_of_the_cache_that_is_none_is_no_entry(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refs = folder / "models" / "refs"
    refs.mkdir(parents=True)
    (refs / "0.json").write_bytes(content)
    assert main(["models", "list"]) in (0, 1)
    assert "nothing in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nope"], "ViperIteration has no such field"),
        (["spec.recipe.reward.tua"], "did you mean spec.recipe.reward.tau?"),
        (["spec..recipe"], "has no such field"),
        (["a\0b"], "has no such field"),
        (["π"], "has no such field"),
        (["\udc80"], "has no such field"),
        (["x" * 100_000], "has no such field"),
        (["spec.recipe.reward.tau", "more"], "unrecognized arguments"),
        (["--kind", "Pod"], "invalid choice"),
    ],
)
def test_fields_that_are_none(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, ["explain", *argv], words, capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.yaml"], "there is no such file"),
        (["folder"], "is a folder"),
        (["file"], "expected one resource"),
        (["it.yaml", "--profile", "none"], "is neither a profile"),
        (["it.yaml", "--profile", "it.yaml"], "not a ViperProfile"),
        (["--stage", "train"], "there is no stage 'train'"),
        (["--stage", ""], "there is no stage ''"),
        (["--lock", "none.txt"], "none.txt"),
        (["--lock", "folder"], "folder"),
        (["--work-dir", "file"], "is a file"),
        (["-o", "yaml"], "invalid choice"),
    ],
)
def test_what_a_doctor_cannot_examine(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, ["doctor", *argv], words, capsys)


@pytest.mark.parametrize(
    ("argv", "check"),
    [
        (["--store", "none"], None),
        (["--store", ""], "store"),
        (["--store", "file"], "store"),
        (["--store", "http://x"], "store"),
        (["--store", "s3://[x"], "store"),
        (["--tracking-uri", "nonsense"], "MLflow"),
        (["--tracking-uri", ""], "MLflow"),
        (["--tracking-uri", "http://[x"], "MLflow"),
        (["--tracking-uri", "sqlite:///file"], "MLflow"),
        (["--tracking-uri", "sqlite:///folder"], "MLflow"),
        (["--tracking-uri", "http://127.0.0.1:1"], "MLflow"),
    ],
)
def test_a_server_that_is_none_is_a_finding_of_the_doctor(
    argv: list[str], check: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["doctor", "-o", "json", *argv])
    said = capsys.readouterr()
    assert said.err == ""
    failed = {f["check"] for f in json.loads(said.out) if f["level"] == "fail"}
    assert status == int(bool(failed))
    assert check is None or check in failed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: ACTION"),
        (["draw"], "required: --out"),
        (["draw", "--out", "pictures", "--count", "0"], "is no number of scenes"),
        (["draw", "--out", "pictures", "--count", "-1"], "is no number of scenes"),
        (["draw", "--out", "pictures", "--count", "many"], "is no number of scenes"),
        (["draw", "--out", "pictures", "--count", "1e9"], "is no number of scenes"),
        (["draw", "--out", "pictures", "--seed", "-1"], "is no seed"),
        (["draw", "--out", "pictures", "--seed", "1.5"], "is no seed"),
        (["draw", "--out", "file"], "is a file"),
        (["draw", "--out", "file/below"], "is a file"),
        (["draw", "--out", "ring.jpg", "--caption", "A ring."], "name a file that ends in .png"),
        (["draw", "--out", "file/ring.png", "--caption", "A ring."], "is a file"),
        (["draw", "--out", "folder.png", "--caption", "A ring."], "folder.png"),
        (["train-starter", "--out", "starter", "--threads", "0"], "is no number of threads"),
        (["train-similarity", "--out", "s", "--steps", "0"], "is no number of steps"),
        (["train-clip", "--out", "c", "--steps", "-5"], "is no number of steps"),
        (["train-clip", "--out", "c", "--threads", "nan"], "is no number of threads"),
    ],
)
def test_worlds_that_cannot_be_drawn(
    argv: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "folder.png").mkdir()
    refused(main, ["smallworld", *argv], words, capsys)


@pytest.mark.parametrize("caption", ["", "\0", "a\udc80b", "∅" * 20_000, "At top left is a ring. " * 500])
def test_whatever_a_caption_says_is_drawn(caption: str, folder: Path) -> None:
    assert main(["smallworld", "draw", "--out", "ring.png", "--caption", caption]) == 0
    assert (folder / "ring.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("program", [main, kubectl_viper])
@pytest.mark.parametrize("argv", [[], [""], ["--"], ["nope"], ["-x"], ["\0"], ["\udc80"], ["--nope", "status"]])
def test_what_is_no_command(program: object, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(program, argv, "", capsys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "command", [*(("viper", c) for c in VIPER.commands), *(("kubectl", c) for c in KUBECTL_VIPER.commands)]
)
def test_every_command_refuses_an_option_that_it_has_not(
    command: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    program = main if command[0] == "viper" else kubectl_viper
    refused(program, [command[1], "--no-such-option"], "", capsys)


@pytest.mark.parametrize("command", ["status", "logs", "suspend", "resume", "retry", "promote"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("iteration/", "names nothing"),
        ("pod/x", "names nothing; write NAME, iteration/NAME or loop/NAME"),
        ("a/b/c", "names nothing"),
        ("iteration/Not A Name", "is no name"),
        ("../x", "names nothing"),
        ("x\0", "is no name"),
        ("ä", "is no name"),
        ("n" * 300, "is no name"),
        ("?watch=true", "is no name"),
    ],
)
def test_names_on_a_cluster_that_are_none(
    command: str, name: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (folder / "kube.conf").write_text(json.dumps(kubeconfig))
    refused(kubectl_viper, [command, name, "--kubeconfig", str(folder / "kube.conf")], words, capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["logs", "x", "--shard", "-1"], "is no shard"),
        (["logs", "x", "--shard", "one"], "is no shard"),
        (["logs", "x", "--tail", "-5"], "is no number of lines"),
        (["logs", "x", "--tail", "all"], "is no number of lines"),
        (["logs"], "required: NAME"),
        (["rollback", "m", "--to", "0"], "is no version"),
        (["rollback", "m", "--to", "abc"], "is no version"),
        (["rollback", "m", "--timeout=-1"], "is no number of seconds"),
        (["rollback", "m", "--timeout", "nan"], "is no number of seconds"),
        (["rollback", "m", "--timeout", "9" * 30], "is no number of seconds"),
        (["status", "-o", "xml"], "invalid choice"),
        (["version", "-o", "wide"], "invalid choice"),
        (["status", "-n", "UPPER"], "is no namespace"),
        (["status", "--context", "none", "--kubeconfig", "none"], "no cluster to talk to"),
    ],
)
def test_options_on_a_cluster_that_mean_nothing(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(kubectl_viper, argv, words, capsys)


@pytest.mark.parametrize(
    ("variables", "argv", "words"),
    [
        ({"VIPER_S3_ENDPOINT": "nonsense"}, ["plan", "it.yaml", "--store", "s3://bucket/x"], "not an S3 endpoint"),
        ({"VIPER_S3_ENDPOINT": "http://[x"}, ["plan", "it.yaml", "--store", "s3://bucket/x"], "s3://bucket/x"),
        ({"SSL_CERT_FILE": "/none.pem"}, ["plan", "it.yaml", "--store", "s3://bucket/x"], "/none.pem"),
        ({"VIPER_CACHE": "file", "VIPER_MODEL_CACHE": "file"}, ["models", "list"], "is a file"),
        ({"MLFLOW_TRACKING_URI": "nonsense"}, ["lineage", "m/1"], "not a tracking URI"),
        ({"KUBECONFIG": "file"}, ["kubectl", "status"], "no cluster to talk to"),
        ({"KUBECONFIG": "/none:/also-none"}, ["kubectl", "status"], "no cluster to talk to"),
    ],
    ids=str,
)
def test_variables_that_mean_nothing_are_refused(
    variables: dict[str, str],
    argv: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    program, rest = (kubectl_viper, argv[1:]) if argv[0] == "kubectl" else (main, argv)
    refused(program, rest, words, capsys)


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "nonsense"},
        {"COLUMNS": "-5"},
        {"AWS_REGION": "\t"},
        {"VIPER_CACHE": "nowhere"},
        {"TERM": ""},
        {"HOME": ""},
        {"TZ": "Nowhere/Never"},
        {"VIPER_STORE": "", "MLFLOW_TRACKING_URI": ""},
    ],
    ids=str,
)
def test_variables_that_do_not_matter_do_not(
    variables: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["render", "it.yaml"]) == 0
    assert main(["plan", "it.yaml"]) == 0
    assert main(["models", "list"]) == 0
    assert main(["doctor"]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("case", list(BAD)[3::10])
def test_the_doctor_and_the_cache_read_files_at_the_same_door(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD[case]
    (folder / "bad.yaml").write_bytes(content)
    for argv in (["doctor", "bad.yaml"], ["models", "pull", "bad.yaml"]):
        refused(main, argv, words, capsys)


def test_a_file_that_may_not_be_read_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "it.yaml").chmod(0)
    if os.access(folder / "it.yaml", os.R_OK):
        pytest.skip("root may read everything")
    refused(main, ["models", "pull", "it.yaml"], "Permission denied", capsys)
