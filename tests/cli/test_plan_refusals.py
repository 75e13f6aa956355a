"""`viper plan` and whatever is given to it: a clear refusal or the right result."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.bad_resources import BAD, GOOD, TEXT, spec
from support.refusals import refused
from viper.cli import main

#: One of every few: the file is read at the same door as by `viper render`.
SOME = list(BAD)[::4]
PROFILE = "apiVersion: viper.dev/v1alpha1\nkind: ViperProfile\nmetadata: {name: p}\nspec: {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a resource and other things."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.yaml").write_text(TEXT)
    (tmp_path / "p.yaml").write_text(PROFILE)
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", SOME)
def test_what_is_no_resource_is_refused_with_its_place(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD[case]
    (folder / "it.yaml").write_bytes(content)
    refused(main, ["plan", "it.yaml"], words, capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: FILE"),
        (["none.yaml"], "there is no such file"),
        (["folder"], "is a folder"),
        (["p.yaml"], "a ViperProfile is nothing to run"),
        (["it.yaml", "--profile", "none"], "'none' is neither a profile"),
        (["it.yaml", "--profile", ""], "'' is neither a profile"),
        (["it.yaml", "--profile", "folder"], "'folder' is neither a profile"),
        (["it.yaml", "--profile", "nul\0"], "is neither a profile"),
        (["it.yaml", "--profile", "n" * 300], "is neither a profile"),
        (["it.yaml", "--profile", "it.yaml"], "is a ViperIteration, not a ViperProfile"),
        (["it.yaml", "--profile", "empty.yaml"], "is empty"),
        (["it.yaml", "--rates", "none.yaml"], "there is no such file"),
        (["it.yaml", "--rates", "folder"], "is a folder"),
        (["it.yaml", "--rates", "empty.yaml"], "is empty"),
        (["it.yaml", "--rates", "it.yaml"], "is not a table of rates"),
        (["it.yaml", "--gpu", "abacus"], "'abacus' is not in the table"),
        (["it.yaml", "--gpu", ""], "'' is not in the table"),
        (["it.yaml", "--price-per-gpu-hour", "nan"], "is no price"),
        (["it.yaml", "--price-per-gpu-hour", "inf"], "is no price"),
        (["it.yaml", "--price-per-gpu-hour", "-1"], "is no price"),
        (["it.yaml", "--price-per-gpu-hour", "2,50"], "is no price"),
        (["it.yaml", "--price-per-gpu-hour", "$2"], "is no price"),
        (["it.yaml", "--questions", "-1"], "is no number of questions"),
        (["it.yaml", "--questions", "1e3"], "is no number of questions"),
        (["it.yaml", "--questions", "9" * 5000], "is no number of questions"),
        (["it.yaml", "--questions", "many"], "is no number of questions"),
        (["it.yaml", "--store", "none"], "the store is gone, or never was there"),
        (["it.yaml", "--store", ""], "not a store URI"),
        (["it.yaml", "--store", "it.yaml"], "the store is a file"),
        (["it.yaml", "--store", "ftp://x/y"], "not a store URI"),
        (["it.yaml", "--store", "s3:/bucket"], "not an S3 URI"),
        (["it.yaml", "--store", "minio:9000/bucket"], "not a store URI"),
        (["it.yaml", "--store", "s3://Bucket_/x"], "not a bucket name"),
        (["it.yaml", "--store", "s3://bucket?endpoint=nowhere"], "not an S3 endpoint"),
        (["it.yaml", "--store", "s3://bucket?endpoint=http://host:port"], "s3://bucket"),
        (["it.yaml", "--store", "s3://key:secret@bucket/x"], "credentials do not belong in a URI"),
        (["it.yaml", "--store", "file://it"], "a file URI needs an absolute path"),
        (["it.yaml", "-o", "yaml"], "invalid choice"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    argv: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(main, ["plan", *argv], words, capsys)


def _first(table: dict[str, Any], field: str, **values: Any) -> None:
    next(iter(table[field].values())).update(values)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.update(version=2), "version: "),
        (lambda t: t.update(rates={}), "rates: "),
        (lambda t: t.update(prices={}), "prices: "),
        (lambda t: t["rates"][0].update(gpu="B999"), "rates name B999, of which gpus says nothing"),
        (
            lambda t: t["rates"][0].update(factors=["haste"]),
            "rates name the factor haste, of which factors says nothing",
        ),
        (lambda t: t["rates"][0].update(kind="felt"), "rates.0.kind: "),
        (lambda t: t["rates"][0].update(seconds=[2, 1]), "is [least, most]"),
        (lambda t: t["rates"][0].update(seconds=[0, 1]), "more than 0"),
        (lambda t: t["rates"][0].update(seconds=5), "rates.0.seconds: "),
        (lambda t: t["rates"][0].update(seconds=[1, 2, 3]), "rates.0.seconds"),
        (lambda t: t["rates"][0].update(seconds=[1, float("nan")]), "rates.0.seconds"),
        (lambda t: t["rates"][0].update(seconds=[1, 1e300]), "from 0 to 1e+15"),
        (lambda t: t["rates"][0].update(megapixels=0), "rates.0.megapixels"),
        (lambda t: _first(t, "gpus", speed=[0, 0]), "more than 0"),
        (lambda t: _first(t, "gpus", price=[-1, 2]), "is [least, most]"),
        (lambda t: _first(t, "acceptance", value=[-0.5, 0.5]), "is [least, most]"),
    ],
)
def test_a_table_of_rates_that_nothing_can_be_reckoned_with_is_refused(
    edit: Callable[[dict[str, Any]], Any], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = yaml.safe_load((files("viper.costs") / "rates.yaml").read_text("utf-8"))
    edit(table)
    (folder / "rates.yaml").write_text(yaml.safe_dump(table))
    refused(main, ["plan", "it.yaml", "--rates", "rates.yaml"], words, capsys)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.pop("gpus"),
        lambda t: t["gpus"].pop("A100"),
        lambda t: t.update(rates=[]),
        lambda t: t["calls"].popitem(),
        lambda t: t["factors"].popitem(),
        lambda t: t["startup"].pop("gpu"),
        lambda t: t["storage"].pop("photo"),
        lambda t: t["acceptance"].clear(),
        lambda t: [t.pop(name) for name in list(t) if name != "version"],
    ],
)
def test_what_a_table_does_not_have_is_taken_from_ours(
    edit: Callable[[dict[str, Any]], Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = yaml.safe_load((files("viper.costs") / "rates.yaml").read_text("utf-8"))
    edit(table)
    (folder / "rates.yaml").write_text(yaml.safe_dump(table))
    assert main(["plan", "it.yaml"]) == 0
    with_ours = capsys.readouterr().out
    assert main(["plan", "it.yaml", "--rates", "rates.yaml"]) == 0
    assert capsys.readouterr().out == with_ours


def _measurement(**fields: Any) -> bytes:
    one: dict[str, Any] = {
        "stage": "synthesize-captions",
        "iteration": "x",
        "identity": "y",
        "when": 1,
        "items": 1,
        "rows": 1,
        "accepted": 1,
        "seconds": 1,
        "shards": 1,
        "gpus": 0,
        "speed": {"demands": []},
        "quality": {},
    }
    return json.dumps({**one, **fields}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        _measurement(speed={"demands": 3}),
        _measurement(speed={"demands": ["x"]}),
        _measurement(speed={"demands": [{"work": "nothing"}]}),
        _measurement(speed=[]),
        _measurement(items=0),
        _measurement(items=1e-300, seconds=1e300),
        _measurement(rows=10**400, accepted=10**400),
        _measurement(seconds=1e308, items=1e308),
    ],
    ids=lambda content: content[-60:].decode("latin-1"),
)
def test_a_measurement_that_is_none_is_left_aside(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "it.yaml", "-o", "json"]) == 0
    without = capsys.readouterr().out
    path = folder / "store" / "rates" / "synthesize-captions"
    path.mkdir(parents=True)
    (path / "x.json").write_bytes(content)
    assert main(["plan", "it.yaml", "-o", "json", "--store", "store"]) == 0
    assert capsys.readouterr().out == without


@pytest.mark.parametrize("case", GOOD)
def test_what_looks_odd_and_is_right_is_planned(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "it.yaml").write_bytes(GOOD[case][0])
    assert main(["plan", "it.yaml"]) == 0
    assert "in all" in capsys.readouterr().out


@pytest.mark.parametrize(
    "questions", ["http://[x", "smallworld:nonsense", "none.jsonl", "folder", "it.yaml\\n", "~x/q"]
)
def test_questions_that_cannot_be_counted_are_not(
    questions: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "it.yaml").write_bytes(spec(evaluation={"questions": questions}))
    status = main(["plan", "it.yaml"])
    said = capsys.readouterr()
    assert "defect" not in said.err
    assert status == 0 or (
        questions in ("http://[x", "smallworld:nonsense", "it.yaml\\n") and "spec.evaluation.questions" in said.err
    )
