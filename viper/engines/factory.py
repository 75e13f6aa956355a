"""Engines by name: what `spec.engines` says becomes an object, imported only when it is needed."""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, SimilarityModel, VisionLanguageModel
from viper.errors import SpecError

if TYPE_CHECKING:
    from viper.spec import IterationSpec

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


def _create(interface: str, name: str, spec: IterationSpec, *arguments: Any) -> Any:
    """An instance; engines without weights take no device."""
    cls = engine_class(interface, name)
    placed = {"device": spec.profile.device} if "device" in inspect.signature(cls).parameters else {}
    return cls(*arguments, **placed)


def vision_language_model(spec: IterationSpec, model_dir: Path) -> VisionLanguageModel:
    """Loads a model directory into the engine `spec.engines.vlm`."""
    return cast(VisionLanguageModel, _create("vlm", spec.engines.vlm, spec, model_dir))


def reconstructor(spec: IterationSpec) -> Reconstructor:
    """The text-to-image engine."""
    return cast(Reconstructor, _create("reconstructor", spec.engines.reconstructor, spec))


def editor(spec: IterationSpec) -> Editor:
    """The editing engine."""
    return cast(Editor, _create("editor", spec.engines.editor, spec))


def similarity(spec: IterationSpec) -> SimilarityModel:
    """The sentence-embedding engine."""
    return cast(SimilarityModel, _create("similarity", spec.engines.similarity, spec))


def image_similarity(spec: IterationSpec) -> ImageSimilarityModel:
    """The image-embedding engine."""
    return cast(ImageSimilarityModel, _create("imageSimilarity", spec.engines.image_similarity, spec))
