"""A fake hub with one model, and an empty cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import FakeHub
from viper.modelcache import ModelCache

FILES = {
    "model_index.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": os.urandom(200_000),
    "transformer/config.json": b'{"a": 1}',
    "tokenizer/merges.txt": b"a b",
    "tokenizer/chat_template.jinja": b"{{ x }}",
    "pytorch_model.bin": b"pickle" * 1000,
    "weights.pt": b"pickle",
    "modeling.py": b"import os",
    "README.md": b"# Model",
}
LOADED = sorted(n for n in FILES if not n.endswith((".bin", ".pt", ".py", ".md")))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub that huggingface_hub talks to; it reads its address when it is imported."""
    from huggingface_hub import constants, hf_api

    fake = FakeHub()
    fake.commit("org/name", FILES)
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", fake.url)
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield fake
    fake.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCache:
    """An empty cache; what this machine remembers lies elsewhere."""
    monkeypatch.setenv("VIPER_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("VIPER_MODEL_CACHE", str(tmp_path / "models"))
    return ModelCache(tmp_path / "models")
