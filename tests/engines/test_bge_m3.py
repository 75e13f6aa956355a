"""BGE-M3 by FlagEmbedding, with a tiny random model in the published layout."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from engines import tiny_bge_m3
from engines.contracts import SimilarityContract
from viper.engines import factory
from viper.engines.base import SimilarityModel
from viper.engines.bge_m3 import BgeM3
from viper.errors import InputError, UnfitEngineError

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bge_m3.build(tmp_path_factory.mktemp("bge-m3"))


class TestBgeM3(SimilarityContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, directory: Path) -> SimilarityModel:
        return BgeM3(directory, batch_size=2)


@pytest.mark.torch
class TestSmallWorldSimilarity(SimilarityContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> SimilarityModel:
        return factory.similarity("smallworld")


def test_vectors_are_those_that_flag_embedding_encodes(directory: Path) -> None:
    from FlagEmbedding import BGEM3FlagModel

    sentences = [*tiny_bge_m3.SENTENCES, "Ünïcödé", "word " * 300]
    theirs = BGEM3FlagModel(str(directory), use_fp16=False, devices="cpu").encode(sentences, max_length=128)
    np.testing.assert_allclose(BgeM3(directory).embed(sentences), theirs["dense_vecs"], atol=1e-6)


def test_the_vector_is_the_first_tokens_last_hidden_state_at_unit_length(directory: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        states = model(**tokenizer(tiny_bge_m3.SENTENCES[0], return_tensors="pt")).last_hidden_state
    expected = torch.nn.functional.normalize(states[0, 0], dim=0).numpy()
    np.testing.assert_allclose(BgeM3(directory).embed(tiny_bge_m3.SENTENCES[:1])[0], expected, atol=1e-6)


def test_it_is_named_with_its_directory_and_identified_by_its_weights(directory: Path, tmp_path: Path) -> None:
    engine = factory.similarity(f"bge-m3:{directory}")
    assert isinstance(engine, BgeM3)
    other = tiny_bge_m3.build(tmp_path / "other", hidden_size=16)
    assert engine.engine_id == BgeM3(directory).engine_id != BgeM3(other).engine_id


def test_the_memory_it_needs_grows_with_the_model(directory: Path, tmp_path: Path) -> None:
    larger = tiny_bge_m3.build(tmp_path / "larger", hidden_size=64, intermediate_size=256)
    needed = [factory.memory_needed("similarity", f"bge-m3:{place}", None) for place in (directory, larger)]
    assert 0 < needed[0] < needed[1]


def test_after_closing_the_model_is_gone_until_it_is_used_again(directory: Path) -> None:
    engine = BgeM3(directory)
    before = engine.embed(["A ring."])
    engine.close()
    assert "_embedder" not in vars(engine)
    np.testing.assert_array_equal(engine.embed(["A ring."]), before)


def test_without_flag_embedding_it_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "FlagEmbedding", None)
    with pytest.raises(UnfitEngineError, match=r"needs FlagEmbedding[\s\S]*extra `reward`"):
        BgeM3(directory).embed(["A ring."])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: (d / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), r"a pickle[\s\S]*viper models convert"),
        (lambda d: (d / "sparse_linear.pt").write_bytes(b"x"), r"sparse_linear.pt is a pickle"),
        (lambda d: (d / "config.json").write_text('{"model_type": "bert"}'), "this is 'bert'"),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}'), "pool otherwise"),
    ],
    ids=["missing", "pickled weights", "pickled head", "another model", "damaged", "another pooling"],
)
def test_a_directory_that_must_not_be_loaded_is_refused(
    directory: Path, tmp_path: Path, change: object, problem: str
) -> None:
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    assert callable(change)
    change(copy)
    with pytest.raises(InputError, match=problem):
        BgeM3(copy)
