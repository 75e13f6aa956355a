"""The paper's sentence similarity: BGE-M3's dense vectors, computed by FlagEmbedding.

Published by its authors as `BAAI/bge-m3` (arXiv 2402.03216): an XLM-RoBERTa whose first token's last hidden state, at
unit length, is the dense vector. The sparse and ColBERT heads of the model are not used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from viper.engines.memory import Batches
from viper.engines.weights import weights_id, weights_size
from viper.errors import EngineError, InputError, UnfitEngineError

#: Tokens of a sentence that are read: FlagEmbedding's own default for passages.
MAX_TOKENS: Final = 512
BATCH: Final = 256
_NEEDED: Final = ("config.json", "model.safetensors", "tokenizer.json")
#: What FlagEmbedding would unpickle if it were there. Dense vectors need neither.
_HEADS: Final = ("colbert_linear.pt", "sparse_linear.pt")


class BgeM3:
    """The `SimilarityModel` over a directory in BGE-M3's own layout, with weights as safetensors.

    Args:
        directory: `config.json`, `model.safetensors`, `tokenizer.json`, and where present `1_Pooling/config.json`.
        device: a torch device. On a GPU the model runs in half precision, on a CPU in single precision.
        batch_size: sentences per forward pass at first; less when memory does not suffice.

    Raises `InputError` when a file is missing, is a pickle, or says that the model is another one.
    """

    def __init__(self, directory: Path, device: str = "cpu", batch_size: int = BATCH) -> None:
        self._directory, self._device = Path(directory), device
        self._config = _checked(self._directory)
        self._batches = Batches(batch_size, "the reward's similarity model", "give it a GPU with more memory free")
        # Two positions are XLM-RoBERTa's own (fairseq counts from the padding id on).
        self._max_tokens = min(MAX_TOKENS, int(self._config["max_position_embeddings"]) - 2)

    @cached_property
    def engine_id(self) -> str:
        """FlagEmbedding's version and the digest of the model directory."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            library = version("FlagEmbedding")
        except PackageNotFoundError as error:
            raise _not_installed() from error
        return f"bge-m3/flagembedding-{library} weights={weights_id(self._directory)}"

    @staticmethod
    def memory_needed(directory: Path, settings: object = None) -> int:
        """Bytes on a GPU: weights in half precision, and the widest layer of a batch of the longest sentences."""
        config = _checked(Path(directory))
        widest = int(config["intermediate_size"]) + 4 * int(config["hidden_size"])
        return BgeM3.weights_needed(directory) + 2 * 2 * BATCH * MAX_TOKENS * widest

    @staticmethod
    def weights_needed(directory: Path, settings: object = None) -> int:
        """Bytes of `memory_needed` that weights take."""
        return weights_size(Path(directory)) // 2

    @cached_property
    def _embedder(self) -> Any:
        try:
            from FlagEmbedding import BGEM3FlagModel
        except ImportError as error:
            raise _not_installed() from error
        half = self._device.startswith("cuda")
        embedder = BGEM3FlagModel(str(self._directory), use_fp16=half, devices=self._device)
        embedder.model.to(self._device).eval().requires_grad_(False)
        return embedder

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(sentences), d), rows of unit length; of a sentence the first `MAX_TOKENS` tokens count.

        Raises `EngineError` when not even one sentence fits into memory.
        """
        rows = np.empty((len(sentences), int(self._config["hidden_size"])), np.float32)
        if not sentences:
            return rows
        tokenizer = self._embedder.tokenizer
        ids = tokenizer(list(sentences), truncation=True, max_length=self._max_tokens)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        rows[order] = self._batches.run([ids[i] for i in order], self._vectors)
        # Half precision leaves lengths that are off by 1e-3; τ is compared with the cosine.
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise EngineError(
                "a sentence has an embedding of length 0 or one that is not a number", where=self.engine_id
            )
        unit: NDArray[np.float32] = rows / lengths
        return unit

    def _vectors(self, ids: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Dense vectors by FlagEmbedding's model; its `encode` would run the first batch of every call twice."""
        import torch

        inputs = self._embedder.tokenizer.pad({"input_ids": list(ids)}, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found = self._embedder.model(dict(inputs.to(self._device)), return_dense=True)["dense_vecs"]
        return list(found.float().cpu().numpy())

    def close(self) -> None:
        """Drops the model."""
        self.__dict__.pop("_embedder", None)


def _not_installed() -> UnfitEngineError:
    return UnfitEngineError(
        "the similarity engine bge-m3 needs FlagEmbedding, which cannot be imported",
        where="spec.engines.similarity",
        fix="install viper's extra `reward`, or use the training image, which has it",
    )


def _checked(directory: Path) -> dict[str, Any]:
    """The model's configuration; raises `InputError` when the directory is not what FlagEmbedding should load."""
    for name in _NEEDED:
        if not (directory / name).is_file():
            pickled = name == "model.safetensors" and (directory / "pytorch_model.bin").is_file()
            raise InputError(
                f"BGE-M3 lacks {name}" + (", its weights are a pickle" if pickled else ""),
                where=str(directory),
                fix="convert it: `viper models convert SOURCE TARGET` (docs/reward.md)"
                if pickled
                else "point to a directory in the layout of BAAI/bge-m3 with weights as safetensors",
            )
    for name in _HEADS:
        if (directory / name).exists():
            raise InputError(
                f"{name} is a pickle, which FlagEmbedding would load",
                where=str(directory),
                fix="remove it: the reward takes dense vectors, which do not need it",
            )
    config: dict[str, Any] = _json(directory / "config.json")
    if config.get("model_type") != "xlm-roberta":
        raise InputError(
            f"BGE-M3 is an xlm-roberta, this is {config.get('model_type')!r}", where=str(directory / "config.json")
        )
    pooling = directory / "1_Pooling" / "config.json"
    if pooling.is_file() and not _json(pooling).get("pooling_mode_cls_token"):
        raise InputError(
            "the model was trained to pool otherwise than by its first token, which is what BGE-M3 does",
            where=str(pooling),
            fix="give another embedder as `module:Class` of your own",
        )
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise InputError("is not a JSON object", where=str(path))
    return found
