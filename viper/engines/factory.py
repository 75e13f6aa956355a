"""Engines by name: what `spec.engines` says becomes an object, imported only when it is needed."""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from typing import Any, cast

from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, SimilarityModel, VisionLanguageModel
from viper.errors import SpecError

#: Interface (the field of `spec.engines`) → engine name → `module:Class`.
ENGINES: dict[str, dict[str, str]] = {
    "vlm": {"transformers": "viper.engines.transformers_vlm:TransformersVlm"},
    "reconstructor": {"smallworld": "viper.smallworld.reconstructor:SmallWorldReconstructor"},
    "editor": {"smallworld": "viper.smallworld.editor:SmallWorldEditor"},
    "similarity": {"smallworld": "viper.smallworld.similarity:SentenceEmbedder"},
    "imageSimilarity": {"smallworld": "viper.smallworld.similarity:ImageEmbedder"},
}


def engine_class(interface: str, name: str) -> type[Any]:
    """The class behind an engine name, or behind `module:Class` for an engine of one's own.

    Raises `SpecError` naming the nearest known engine, or what is missing to import it.
    """
    known = ENGINES[interface]
    target = known.get(name, name if ":" in name else "")
    where = f"spec.engines.{interface}"
    if not target:
        near = difflib.get_close_matches(name, known, n=1)
        raise SpecError(
            f"there is no engine {name!r}",
            where=where,
            fix=f"did you mean {near[0]!r}?" if near else f"use one of {sorted(known)}, or module:Class of your own",
        )
    module, _, attribute = target.partition(":")
    try:
        return cast("type[Any]", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"the engine {name!r} cannot be imported: {error}",
            where=where,
            fix="install what it needs (extra `cpu` for the engines of one machine)",
        ) from error


def _create(interface: str, name: str, device: str, *arguments: Any) -> Any:
    """An instance; engines without weights take no device."""
    cls = engine_class(interface, name)
    placed = {"device": device} if "device" in inspect.signature(cls).parameters else {}
    return cls(*arguments, **placed)


def vision_language_model(name: str, model_dir: Path, device: str = "cpu") -> VisionLanguageModel:
    """Loads a model directory into the engine `name`."""
    return cast(VisionLanguageModel, _create("vlm", name, device, model_dir))


def reconstructor(name: str, device: str = "cpu") -> Reconstructor:
    """The text-to-image engine `name`."""
    return cast(Reconstructor, _create("reconstructor", name, device))


def editor(name: str, device: str = "cpu") -> Editor:
    """The editing engine `name`."""
    return cast(Editor, _create("editor", name, device))


def similarity(name: str, device: str = "cpu") -> SimilarityModel:
    """The sentence-embedding engine `name`."""
    return cast(SimilarityModel, _create("similarity", name, device))


def image_similarity(name: str, device: str = "cpu") -> ImageSimilarityModel:
    """The image-embedding engine `name`."""
    return cast(ImageSimilarityModel, _create("imageSimilarity", name, device))
