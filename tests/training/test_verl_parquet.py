"""What verl is given to read: its own dataset class sees the samples that the one machine's trainer sees."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training_fakes import png

import viper.smallworld
from support.verl_environment import ask
from viper.training.data import EncodedSample
from viper.training.verl.parquet import prompt_text, rgb_bytes, write_rows

MODEL = Path(viper.smallworld.__file__).parent / "assets" / "starter"
ONE = EncodedSample(
    sample_id="a",
    prompt="Find the flaws: a sign says <image> and <|image_pad|>.",
    images=(png(1, 56),),
    ground_truth=('At top is "a" ring.', "Ünïcode."),
    task="captions",
    image_id="i",
    generator="sha256:0",
)


def transparent() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (56, 56), (250, 0, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_the_order_given_is_the_order_of_the_rows_and_the_ground_truth_names_its_sample(tmp_path: Path) -> None:
    samples = [replace(ONE, sample_id=f"s{i}", images=(png(i, 28),)) for i in range(3)]
    write_rows(tmp_path / "a.parquet", samples, [2, 0, 1, 2] * 40)
    found = rows(tmp_path / "a.parquet")
    truths = [json.loads(row["reward_model"]["ground_truth"]) for row in found]
    assert [t["sample_id"] for t in truths[:5]] == ["s2", "s0", "s1", "s2", "s2"]
    assert len(found) == 160
    assert truths[0] == {"sample_id": "s2", "generator": "sha256:0", "sentences": ['At top is "a" ring.', "Ünïcode."]}
    assert [row["extra_info"]["index"] for row in found] == list(range(160))
    assert found[0]["images"] == [{"bytes": png(2, 28)}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


@given(st.text(alphabet=st.sampled_from("<|>imagevdoupt_ ")))
def test_no_text_is_taken_for_an_image(text: str) -> None:
    made = prompt_text(replace(ONE, prompt=text + "<image><|video_pad|>", images=(b"", b"")))
    assert made.startswith("<image><image>")
    rest = made.removeprefix("<image><image>")
    assert not any(mark in rest for mark in ("<image>", "<video>", "<audio>", "<|image_pad|>", "<|video_pad|>"))


def test_images_that_are_rgb_stay_as_they_are_and_others_become_it() -> None:
    assert rgb_bytes(png(1)) == png(1)
    made = Image.open(io.BytesIO(rgb_bytes(transparent())))
    assert (made.mode, made.getpixel((3, 3))) == ("RGB", (250, 0, 0))


@pytest.mark.torch
@pytest.mark.slow
def test_verls_own_dataset_class_reads_one_and_two_images(tmp_path: Path) -> None:
    two = replace(ONE, sample_id="b", prompt="What changed?", images=(transparent(), png(2, 84)), task="operations")
    write_rows(tmp_path / "rows.parquet", [ONE, two], [0, 1])
    first, second = ask("verl_read.py", {"model": str(MODEL), "file": str(tmp_path / "rows.parquet")})
    assert first["types"] == ["image", "text"]
    assert first["text"] == "Find the flaws: a sign says < image> and < |image_pad|>."
    assert json.loads(first["ground_truth"])["sentences"] == list(ONE.ground_truth)
    assert (first["data_source"], first["index"]) == ("viper/captions", 0)
    assert second["types"] == ["image", "image", "text"]
    assert second["sizes"] == [[56, 56], [84, 84]]
    assert second["colours"][0] == [250, 0, 0]
    assert json.loads(second["ground_truth"])["sample_id"] == "b"

    from viper.training.local.policy import Policy

    policy = Policy(MODEL)
    ours = policy.encode([replace(ONE, prompt=first["text"]).decoded(), two.decoded()], 4096).attention_mask.sum(1)
    assert [first["tokens"], second["tokens"]] == ours.tolist()
