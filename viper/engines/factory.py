"""Engines by name: what `spec.engines` says becomes an object, imported only when it is needed."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from viper.engines.base import Editor, ImageSimilarityModel, Reconstructor, SimilarityModel, VisionLanguageModel
from viper.engines.endpoints import is_endpoint
from viper.engines.names import engines, target_of
from viper.engines.weights import weights_id
from viper.errors import SpecError

if TYPE_CHECKING:
    from viper.spec import IterationSpec

#: What an engine of each interface can do (`viper.engines.base`).
CALLS = {
    "vlm": "generate",
    "reconstructor": "reconstruct",
    "editor": "edit",
    "similarity": "embed",
    "imageSimilarity": "embed_images",
}


def engine_class(interface: str, name: str) -> tuple[type[Any], tuple[Path | str, ...]]:
    """The class behind an engine name, and its first arguments.

    `viper.engines.names.target_of` says what a name may be. Raises `SpecError` naming the nearest known engine, or what
    is missing to import it.
    """
    target, rest = target_of(interface, name)
    place = rest if "://" in rest else Path(rest)  # a Path would join the slashes of a URL
    arguments = (place,) if rest else ()
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # somebody's module: it may raise anything
        raise SpecError(
            f"the engine {name!r} cannot be imported: {error}",
            where=f"spec.engines.{interface}",
            fix="install what it needs (extra `cpu` for the engines of one machine)",
        ) from error
    return cast("type[Any]", found), arguments


def _create(interface: str, name: str, device: str, *arguments: Any, settings: object = None) -> Any:
    """An instance; it gets `device` and `settings` as far as its constructor has parameters of these names."""
    cls, configured = engine_class(interface, name)
    call = CALLS[interface]
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):  # nothing that can be called, or something of C
        raise _no_engine(interface, name, f"has no constructor whose engine could {call}") from None
    offered = {"device": device} | ({} if settings is None else {"settings": settings})
    placed = {key: value for key, value in offered.items() if key in signature.parameters}
    try:
        signature.bind(*arguments, *configured, **placed)
    except TypeError as error:
        raise SpecError(
            f"the engine {name!r} cannot be made: {error}",
            where=f"spec.engines.{interface}",
            fix=f"engines with a model of their own are written {name.partition(':')[0]}:/directory/of/the/model",
        ) from None
    made = cls(*arguments, *configured, **placed)
    if not callable(getattr(made, call, None)):
        raise _no_engine(interface, name, f"cannot {call}")
    return made


def _no_engine(interface: str, name: str, why: str) -> SpecError:
    return SpecError(
        f"{name!r} is no engine of this kind: it {why}",
        where=f"spec.engines.{interface}",
        fix=f"use one of {sorted(engines(interface))}, or a class with what viper.engines.base says",
    )


def memory_needed(interface: str, name: str, settings: object, *arguments: Any) -> int:
    """Bytes on the device that an engine takes; 0 for one without weights, and for one that does not say.

    Args:
        arguments: what the constructor gets before the place in the name: the model directory of a `vlm`.
    """
    cls, configured = engine_class(interface, name)
    planned = getattr(cls, "memory_needed", None)
    return int(planned(*arguments, *configured, settings)) if planned is not None else 0


def weights_needed(interface: str, name: str, settings: object, *arguments: Any) -> int | None:
    """How much of `memory_needed` weights take, which files tell; None where an engine does not say."""
    cls, configured = engine_class(interface, name)
    known = getattr(cls, "weights_needed", None)
    return None if known is None else int(known(*arguments, *configured, settings))


def vision_language_model(spec: IterationSpec, model_dir: Path) -> VisionLanguageModel:
    """Loads a model directory into the engine `spec.engines.vlm`.

    An endpoint has to serve it already, under the name `viper-<weights_id>` unless the engine's name says another one.
    """
    if is_endpoint(spec.engines.vlm):
        name = spec.engines.vlm
        return endpoint_model(spec, name if "#" in name else f"{name}#{served_name(model_dir)}")
    return cast(
        VisionLanguageModel,
        _create("vlm", spec.engines.vlm, spec.profile.device, model_dir, settings=spec.engines.generation),
    )


def served_name(model_dir: Path) -> str:
    """The name under which an endpoint serves a checkpoint, so that no other one can answer for it."""
    return f"viper-{weights_id(model_dir)}"


def endpoint_model(spec: IterationSpec, uri: str) -> VisionLanguageModel:
    """The model behind an endpoint, `openai:https://host/v1#model-name`, whatever `spec.engines.vlm` is."""
    return cast(VisionLanguageModel, _create("vlm", uri, spec.profile.device, settings=spec.engines.generation))


def reconstructor(spec: IterationSpec) -> Reconstructor:
    """The text-to-image engine."""
    return cast(
        Reconstructor,
        _create("reconstructor", spec.engines.reconstructor, spec.profile.device, settings=spec.engines.reconstruction),
    )


def editor(spec: IterationSpec) -> Editor:
    """The editing engine."""
    return cast(Editor, _create("editor", spec.engines.editor, spec.profile.device, settings=spec.engines.editing))


def similarity(spec: IterationSpec | str, device: str = "cpu") -> SimilarityModel:
    """The sentence-embedding engine of a specification on its device, or the one of that name on `device`."""
    name, device = (spec, device) if isinstance(spec, str) else (spec.engines.similarity, spec.profile.device)
    return cast(SimilarityModel, _create("similarity", name, device))


def image_similarity(spec: IterationSpec) -> ImageSimilarityModel:
    """The image-embedding engine."""
    return cast(ImageSimilarityModel, _create("imageSimilarity", spec.engines.image_similarity, spec.profile.device))
