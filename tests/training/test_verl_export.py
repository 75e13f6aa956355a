"""From verl's converted weights to a model directory, and what is noticed on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from safetensors.torch import load_file, save_file  # noqa: E402

from viper.errors import StageError  # noqa: E402
from viper.training.verl.export import INDEX, common_dtype, compare_with_shards, export_model  # noqa: E402


def weights(shift: float = 0.0, dtype: Any = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(4, 3, generator=generator) + shift for name in ("a", "b", "c")}
    return {name: tensor.to(dtype or torch.float32) for name, tensor in made.items()}


def model(folder: Path, tensors: dict[str, Any], shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"of": "{folder.name}"}}', "utf-8")
    (folder / "tokenizer.json").write_text(folder.name, "utf-8")
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": files}), "utf-8")
    return folder


def read(folder: Path) -> dict[str, Any]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_the_weights_are_the_trained_ones_in_the_type_of_the_start_and_all_else_is_the_starts(tmp_path: Path) -> None:
    start = model(tmp_path / "start", weights(dtype=torch.bfloat16))
    converted = model(tmp_path / "converted", weights(1.0), shards=2)
    export_model(start, converted, tmp_path / "made")
    found = read(tmp_path / "made")
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys("abc", torch.bfloat16)
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in weights(1.0).items())
    assert (tmp_path / "made" / "tokenizer.json").read_text("utf-8") == "start"
    index = json.loads((tmp_path / "made" / INDEX).read_text("utf-8"))
    assert index["metadata"]["total_size"] == 3 * 12 * 2
    assert {(tmp_path / "made" / name).is_file() for name in index["weight_map"].values()} == {True}
    assert not (tmp_path / "made" / "model.safetensors").exists()


def test_a_start_that_stays_the_model_keeps_its_bytes(tmp_path: Path) -> None:
    start = model(tmp_path / "start", weights(), shards=2)
    export_model(start, start, tmp_path / "made")
    assert {p.name: p.read_bytes() for p in start.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()
    }


def test_the_type_of_most_weights_decides(tmp_path: Path) -> None:
    mixed = {"a": torch.zeros(100, dtype=torch.float16), "b": torch.zeros(3), "n": torch.zeros(999, dtype=torch.int64)}
    assert common_dtype(model(tmp_path / "mixed", mixed)) == "float16"


def test_a_conversion_that_lost_or_changed_a_weight_is_found_out(tmp_path: Path) -> None:
    made = model(tmp_path / "made", weights())
    compare_with_shards(made, model(tmp_path / "same", weights(dtype=torch.bfloat16)))
    changed = weights(dtype=torch.bfloat16)
    changed["b"][0, 0] += 1
    with pytest.raises(StageError, match="does not have the weights of verl's shards: b"):
        compare_with_shards(made, model(tmp_path / "changed", changed))
    with pytest.raises(StageError, match="do not have the same weights: c"):
        compare_with_shards(made, model(tmp_path / "lost", {k: v for k, v in weights().items() if k != "c"}))
