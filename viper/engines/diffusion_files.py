"""Directories of diffusers pipelines and LoRA weights, looked at without loading them or importing torch.

The layout is diffusers' own: `model_index.json` names the class of the pipeline and of each component
(`"transformer": ["diffusers", "QwenImageTransformer2DModel"]`); each component lies in a folder of its name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from viper.engines.weights import DIGITS
from viper.errors import InputError
from viper.words import plural

INDEX: Final = "model_index.json"
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
#: Activations of a denoising step or of decoding, in bytes per pixel of the image, at two bytes a value. Not measured
#: on a GPU: the widest layers of the VAE's decoder hold 96 channels of every pixel, of which about twenty are alive.
WORKING_BYTES_PER_PIXEL: Final = 4096
#: Pixels of one tile when the VAE decodes in tiles (diffusers' default, 256×256).
TILE_PIXELS: Final = 256 * 256
#: Share of the working bytes that a transformer's step takes without the decoder.
STEP_SHARE: Final = 0.25
_WEIGHTLESS: Final = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor")
_FIX = "point to a directory in diffusers' layout, saved with save_pretrained(…, safe_serialization=True)"


def check_pipeline(directory: Path, classes: Sequence[str]) -> str:
    """The class that a directory says its pipeline has.

    Raises `InputError`: no such directory, no or an unreadable `model_index.json`, a class that is not among `classes`,
    a component without folder, weights that are missing, pickled, or cut short.
    """
    where = str(directory)
    if not directory.is_dir():
        raise InputError("there is no model directory", where=where, fix=_FIX)
    index = _json(directory / INDEX)
    name = str(index.get("_class_name"))
    if name not in classes:
        raise InputError(
            f"this is a {name}, and not a {' or '.join(classes)}", where=f"{where}/{INDEX}", fix="give another engine"
        )
    for component, kind in _components(index):
        folder = directory / component
        if not folder.is_dir() or not any(folder.iterdir()):
            raise InputError(
                f"the {name} lacks its {component}: there is no folder of that name", where=where, fix=_FIX
            )
        if not kind.endswith(_WEIGHTLESS):
            _check_weights(folder, component)
    return name


def _components(index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and class of each component that is there."""
    for key, value in index.items():
        if not key.startswith("_") and isinstance(value, list) and len(value) == 2 and value[1] is not None:
            yield key, str(value[1])


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"the model directory lacks {file.name}", where=str(file.parent), fix=_FIX)
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"this is not JSON: {error}", where=str(file), fix="download the file again") from error
    if not isinstance(content, dict):
        raise InputError("this is not a JSON object", where=str(file), fix="download the file again")
    return content


def _check_weights(folder: Path, component: str) -> None:
    there = {file.name for file in folder.glob("*.safetensors")}
    wanted = {
        str(part) for index in folder.glob("*.safetensors.index.json") for part in _json(index)["weight_map"].values()
    }
    if missing := sorted(wanted - there):
        raise InputError(
            f"the {component} lacks {len(missing)} of {plural(len(wanted), 'file')}: {', '.join(missing[:3])}",
            where=str(folder),
            fix="download the model again",
        )
    if not there:
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        raise InputError(
            f"the {component} has pickled weights only ({', '.join(pickled[:3])}), which are not read"
            if pickled
            else f"the {component} has no weights (*.safetensors)",
            where=str(folder),
            fix=_FIX,
        )
    for name in sorted(there):
        _tensors(folder / name)


def _tensors(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes; the file's header has to fit its length, so that a download cut short is found."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a whole safetensors file: {error}", where=str(file), fix="download it again") from error


def component_sizes(directory: Path, dtype: str) -> dict[str, int]:
    """Bytes of each component's weights in a type of numbers (`DTYPE_BYTES`), whatever type the files have."""
    return {component: sum(layers.values()) for component, layers in _layers(directory, dtype).items()}


def largest_layer(directory: Path, dtype: str) -> int:
    """Bytes of the largest layer: what sequential offloading holds on the device."""
    return max((size for layers in _layers(directory, dtype).values() for size in layers.values()), default=0)


def _layers(directory: Path, dtype: str) -> dict[str, Counter[str]]:
    """Bytes per component and layer (the name of a tensor without its last part)."""
    found: dict[str, Counter[str]] = {}
    for component, _ in _components(_json(directory / INDEX)):
        layers = Counter[str]()
        for file in (directory / component).glob("*.safetensors"):
            for name, shape in _tensors(file).items():
                layers[name.rpartition(".")[0]] += math.prod(shape) * DTYPE_BYTES[dtype]
        if layers:
            found[component] = layers
    return found


def memory_plan(directory: Path, settings: Any, pixels: int, images: int = 1) -> int:
    """Bytes on the device for loading and running: the weights that are there at a time, and the work on them.

    Weights: all components, of which only the largest with `offload: model` and its largest layer with
    `offload: sequential`; the LoRA's file on top. Work: `WORKING_BYTES_PER_PIXEL` × pixels × images, twice that in
    float32; with tiled decoding the denoising step's share (`STEP_SHARE`) for all pixels and one tile in full.

    Args:
        settings: `DiffusionSettings`.
        pixels: of one image, and of what is shown beside it.
        images: worked on at once.
    """
    scale = DTYPE_BYTES[settings.dtype] / 2
    working = (STEP_SHARE * pixels + min(pixels, TILE_PIXELS)) if settings.tiled_decoding else float(pixels)
    return weights_plan(directory, settings) + int(WORKING_BYTES_PER_PIXEL * scale * working * images)


def weights_plan(directory: Path, settings: Any) -> int:
    """Of `memory_plan`, the bytes of the weights: known from the files, where the work on them is an estimate."""
    sizes = component_sizes(directory, settings.dtype)
    weights = {
        "none": sum(sizes.values()),
        "model": max(sizes.values(), default=0),
        "sequential": largest_layer(directory, settings.dtype),
    }[settings.offload]
    return weights + (lora_file(Path(settings.lora)).stat().st_size if settings.lora else 0)


def lora_file(place: Path) -> Path:
    """The one safetensors file of LoRA weights that a path means: itself, or the only one in the directory."""
    if place.is_file() and place.suffix == ".safetensors":
        return place
    found = sorted(place.glob("*.safetensors")) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"there are {len(found)} safetensors files{_named(found)}, and one is wanted"
        if place.is_dir()
        else "there are no LoRA weights",
        where=str(place),
        fix="give the path of the file of LoRA weights (safetensors)",
    )


def lora_scheduler(place: Path) -> dict[str, Any] | None:
    """The scheduler that LoRA weights bring along (`scheduler_config.json` beside them or in `scheduler/`)."""
    folder = place if place.is_dir() else place.parent
    for file in (folder / "scheduler_config.json", folder / "scheduler" / "scheduler_config.json"):
        if file.is_file():
            return _json(file)
    return None


def lora_id(place: Path) -> str:
    """The first 16 hexadecimal digits of the sha256 over LoRA weights and the scheduler that they bring along."""
    with lora_file(place).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(lora_scheduler(place), sort_keys=True).encode())
    return digest.hexdigest()[:DIGITS]


def _named(files: Iterable[Path]) -> str:
    names = ", ".join(file.name for file in files)
    return f" ({names})" if names else ""
