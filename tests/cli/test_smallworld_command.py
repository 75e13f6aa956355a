"""`viper smallworld`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from support.refusals import refused
from viper.cli import main
from viper.smallworld.language import parse_caption
from viper.smallworld.sight import see


def test_drawn_pictures_show_what_their_captions_say(tmp_path: Path) -> None:
    assert main(["smallworld", "draw", "--out", str(tmp_path), "--count", "3", "--seed", "40"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text("utf-8").splitlines()]
    assert [row["file"] for row in rows] == ["scene-40.png", "scene-41.png", "scene-42.png"]
    for row in rows:
        sight = see(Image.open(tmp_path / row["file"]))
        assert sight is not None
        assert parse_caption(row["caption"]).things == sight.scene.things


def test_a_caption_is_drawn_into_a_file(tmp_path: Path) -> None:
    said = "The background is smooth gray. At top left is a small striped red ring."
    assert main(["smallworld", "draw", "--out", str(tmp_path / "a" / "ring.png"), "--caption", said]) == 0
    sight = see(Image.open(tmp_path / "a" / "ring.png"))
    assert sight is not None
    assert sight.scene.occupied == (0,)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["draw", "--out", "x", "--count", "0"], "is no number of scenes"),
        (["draw", "--out", "x.jpg", "--caption", "y"], "--out: a caption is drawn into one PNG file"),
        (["train-clip", "--out", "x", "--steps", "0"], "is no number of steps"),
    ],
)
def test_impossible_requests_are_refused(
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(main, ["smallworld", *arguments], complaint, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_a_similarity_model_is_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["smallworld", "train-similarity", "--out", str(out), "--steps", "2"]) == 0
    assert "paraphrase" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
