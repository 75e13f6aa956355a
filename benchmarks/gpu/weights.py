"""Random weights on the device, wherever a library would read them from files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

#: Digests of gigabytes that are not there: `module`, name.
_DIGESTS = (
    ("viper.engines.transformers_vlm", "weights_id"),
    ("viper.engines.diffusion", "weights_id"),
    ("viper.engines.bge_m3", "weights_id"),
    ("viper.training.local.grpo", "weights_digest"),
)


@contextmanager
def random_weights(device: str) -> Iterator[None]:
    """Within it, models that are loaded from a directory are made from its configuration instead, on `device`.

    Our engines run as they are: transformers' and diffusers' `from_pretrained` and open_clip's `create_model` are
    replaced, and digests of weights are not taken. Weights are initialised as the libraries do it before training.
    """
    with ExitStack() as stack:
        import transformers

        stack.enter_context(patch.object(transformers.PreTrainedModel, "from_pretrained", _transformers(device)))
        if diffusers := _imported("diffusers"):
            stack.enter_context(patch.object(diffusers.ModelMixin, "from_pretrained", _diffusers(device)))
        if open_clip := _imported("open_clip"):
            stack.enter_context(patch.object(open_clip, "create_model", _open_clip(open_clip.create_model, device)))
        for module, name in _DIGESTS:
            if (found := _imported(module)) and hasattr(found, name):
                stack.enter_context(patch.object(found, name, lambda *_, **__: "random"))
        yield


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def made(build: Callable[[], Any], device: str, dtype: Any) -> Any:
    """A module built on a device in a type of numbers, as if it had been loaded: no gradients, no dropout."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            model = build()
    finally:
        torch.set_default_dtype(before)
    return model.to(device).eval()


def _number(*said: Any, otherwise: Any) -> Any:
    """The torch type that a caller or a configuration names."""
    import torch

    for one in (*said, otherwise):
        if isinstance(one, torch.dtype):
            return one
        if isinstance(one, str) and isinstance(found := getattr(torch, one, None), torch.dtype):
            return found
    return torch.bfloat16


def _transformers(device: str) -> Any:
    @classmethod  # type: ignore[misc]
    def from_pretrained(cls: Any, directory: Any, *_: Any, config: Any = None, **how: Any) -> Any:
        from transformers import GenerationConfig

        if not isinstance(config, cls.config_class):
            config = cls.config_class.from_pretrained(directory)
        dtype = _number(how.get("dtype"), how.get("torch_dtype"), otherwise=getattr(config, "dtype", None))
        model = made(lambda: cls(config), device, dtype)
        if (Path(directory) / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(directory)
        return model

    return from_pretrained


def _diffusers(device: str) -> Any:
    @classmethod  # type: ignore[misc]
    def from_pretrained(cls: Any, directory: Any, *_: Any, **how: Any) -> Any:
        config = cls.load_config(directory)
        dtype = _number(how.get("dtype"), how.get("torch_dtype"), otherwise=None)
        return made(lambda: cls.from_config(config), device, dtype).to(dtype)

    return from_pretrained


def _open_clip(create: Callable[..., Any], device: str) -> Callable[..., Any]:
    def create_model(*arguments: Any, **how: Any) -> Any:
        import torch

        return made(lambda: create(*arguments, **{**how, "load_weights": False}), device, torch.float32)

    return create_model
