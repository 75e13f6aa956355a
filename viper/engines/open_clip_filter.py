"""Image embeddings by an open_clip model: the CLIP-score filter of the paper's quality assurance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.engines.weights import weights_size
from viper.errors import InputError

if TYPE_CHECKING:
    import torch

CONFIG: Final = "open_clip_config.json"
WEIGHTS: Final = "open_clip_model.safetensors"
#: Images of a forward pass.
BATCH: Final = 64


class OpenClipFilter:
    """The `ImageSimilarityModel` over a directory in open_clip's own layout.

    Args:
        directory: holds `open_clip_config.json` (`model_cfg` and `preprocess_cfg`) and
            `open_clip_model.safetensors`, as open_clip publishes its models. Pickled weights are not read.
        device: a torch device.
        batch_size: images per forward pass.

    Raises `InputError` when a file is missing.
    """

    def __init__(self, directory: Path, device: str = "cpu", batch_size: int = BATCH) -> None:
        self._directory, self._device, self._batch_size = Path(directory), device, batch_size
        _checked(self._directory)

    @staticmethod
    def memory_needed(directory: Path, settings: object = None, batch_size: int = BATCH) -> int:
        """Bytes on the device: weights, which run as the file has them, and the widest layer of a batch.

        A block holds its input and its MLP's fourfold width at once, and copies of both: sixteen widths of a token.
        """
        vision = _checked(Path(directory)).get("vision_cfg") or {}
        # Towers of timm do not say their width: that of a ViT-H is as wide as they come.
        width, side, patch = (
            _number(vision.get(n), d) for n, d in (("width", 1280), ("image_size", 224), ("patch_size", 14))
        )
        return OpenClipFilter.weights_needed(directory) + 4 * 16 * width * ((side // patch) ** 2 + 1) * batch_size

    @staticmethod
    def weights_needed(directory: Path, settings: object = None) -> int:
        """Bytes of `memory_needed` that weights take."""
        return weights_size(Path(directory))

    @cached_property
    def engine_id(self) -> str:
        """open_clip's version and the first 12 digits of the sha256 over configuration and weights."""
        from importlib.metadata import version

        digest = sha256((self._directory / CONFIG).read_bytes())
        with (self._directory / WEIGHTS).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return f"open-clip/{version('open-clip-torch')} sha256={digest.hexdigest()[:12]}"

    @cached_property
    def _model(self) -> Any:
        """The model with its preprocessing attached; nothing is downloaded."""
        import open_clip

        # A local directory: open_clip takes the weights by their file name, WEIGHTS before any other.
        model = open_clip.create_model(f"local-dir:{self._directory}", pretrained_text=False, device=self._device)
        return model.eval().requires_grad_(False)

    @cached_property
    def _preprocess(self) -> Any:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        settings = open_clip.get_model_preprocess_cfg(self._model)
        return image_transform_v2(PreprocessCfg(**settings), is_train=False)

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Shape (len(images), d), rows of unit length; images of any size and mode."""
        import torch

        rows = [np.empty((0, self._dimensions), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), self._batch_size):
                batch = images[start : start + self._batch_size]
                pixels: torch.Tensor = torch.stack([self._preprocess(image.convert("RGB")) for image in batch])
                features = self._model.encode_image(pixels.to(self._device), normalize=True)
                rows.append(features.float().cpu().numpy())
        return np.concatenate(rows)

    @cached_property
    def _dimensions(self) -> int:
        return int(_checked(self._directory)["embed_dim"])


def _checked(directory: Path) -> dict[str, Any]:
    """`model_cfg` of a model directory; raises `InputError` when it has none, or lacks a file."""
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise InputError(
                f"the CLIP model lacks {name}",
                where=str(directory),
                fix="point to a directory in open_clip's layout with weights as safetensors",
            )
    try:
        config = json.loads((directory / CONFIG).read_text("utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError):
        config = None
    if not isinstance(config, dict):
        raise InputError("has no `model_cfg`", where=str(directory / CONFIG), fix="download the file again")
    return config


def _number(said: Any, otherwise: int) -> int:
    """A size as open_clip writes it: a number, or a pair of which the larger counts."""
    values = [v for v in (said if isinstance(said, list) else [said]) if isinstance(v, int) and v > 0]
    return max(values, default=otherwise)
