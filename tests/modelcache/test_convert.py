"""Weights that are published as a pickle become safetensors, and nothing in the pickle is run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from engines import tiny_bge_m3
from viper.cli import main
from viper.engines.bge_m3 import BgeM3
from viper.errors import InputError
from viper.modelcache.convert import convert

pytestmark = pytest.mark.torch


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A tiny BGE-M3 as its authors publish it: weights and heads as pickles."""
    import torch
    from safetensors.torch import load_file

    directory = tiny_bge_m3.build(tmp_path / "published")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    torch.save({"weight": torch.zeros(1, 32)}, directory / "sparse_linear.pt")
    torch.save({"weight": torch.zeros(32, 32)}, directory / "colbert_linear.pt")
    (directory / "model.safetensors").rename(tmp_path / "expected.safetensors")
    return directory


def test_a_converted_model_gives_the_same_vectors(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "convert", str(published), str(tmp_path / "converted")]) == 0
    assert hashlib.sha256((published / "pytorch_model.bin").read_bytes()).hexdigest() in capsys.readouterr().out
    (tmp_path / "expected.safetensors").rename(published / "model.safetensors")
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        (published / name).unlink()
    expected = BgeM3(published).embed(tiny_bge_m3.SENTENCES)
    np.testing.assert_array_equal(BgeM3(tmp_path / "converted").embed(tiny_bge_m3.SENTENCES), expected)


def test_other_pickles_are_left_out(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "converted")
    names = {path.name for path in (tmp_path / "converted").rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "1_Pooling"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt"))}


class Planted:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_a_pickle_that_would_run_something_is_refused_and_not_run(published: Path, tmp_path: Path) -> None:
    import torch

    trace = tmp_path / "trace"
    torch.save({"weight": Planted(trace)}, published / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        convert(published, tmp_path / "converted")
    assert not trace.exists()
    assert not (tmp_path / "converted").exists()


def test_an_existing_directory_is_not_written_over(published: Path, tmp_path: Path) -> None:
    (tmp_path / "converted").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(published, tmp_path / "converted")


def test_weights_that_are_no_pickle_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pytorch_model\.bin"):
        convert(tmp_path, tmp_path / "converted")
