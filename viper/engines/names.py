"""Engines and trainers by name, as data: what a name stands for is told without importing it."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from viper.errors import SpecError, nearest
from viper.extensions import Place, extensions

#: Interface (the field of `spec.engines`) → name of an engine of viper's own → `module:Class`.
ENGINES: dict[str, dict[str, str]] = {
    "vlm": {
        "openai": "viper.engines.openai_endpoint:OpenAiEndpoint",
        "transformers": "viper.engines.transformers_vlm:TransformersVlm",
        "vllm": "viper.engines.vllm_offline:VllmOffline",
    },
    "reconstructor": {
        "qwen-image": "viper.engines.qwen_image:QwenImageReconstructor",
    },
    "editor": {
        "omnigen2": "viper.engines.omnigen2:OmniGen2Editor",
        "qwen-image-edit": "viper.engines.qwen_image_edit:QwenImageEditor",
    },
    "similarity": {
        "bge-m3": "viper.engines.bge_m3:BgeM3",
    },
    "imageSimilarity": {
        "open-clip": "viper.engines.open_clip_filter:OpenClipFilter",
    },
}
#: What trains (`spec.engines.trainer`).
TRAINERS = ("trl", "verl")

#: A VLM that is loaded here gets the model of its role.
PLACES: dict[tuple[str, str], Place] = {
    ("vlm", "openai"): "must",
    ("vlm", "transformers"): "none",
    ("vlm", "vllm"): "none",
    ("reconstructor", "qwen-image"): "must",
    ("editor", "omnigen2"): "must",
    ("editor", "qwen-image-edit"): "must",
    ("similarity", "bge-m3"): "must",
    ("imageSimilarity", "open-clip"): "must",
}
#: Engines that may be behind a server, `name:http://host/v1#model`.
SERVED = frozenset({"openai", "omnigen2"})
#: Source files over this many bytes are not looked into.
_LARGEST_SOURCE = 4 << 20


def engines(interface: str) -> dict[str, str]:
    """Engine name → `module:Class`, those of extensions included."""
    added = {name: e.engines[interface].target for name, e in extensions().items() if interface in e.engines}
    return added | ENGINES[interface]


def _place(interface: str, name: str) -> Place:
    added = extensions()[name].engines.get(interface) if name in extensions() else None
    return PLACES.get((interface, name), added.place if added is not None else "may")


def target_of(interface: str, name: str) -> tuple[str, str]:
    """`module:Class` behind an engine's name, and the place of its model, empty without one.

    A name is a key of `engines`; a key with the directory of its model (`open-clip:/models/clip`) or its URL; or
    `module:Class` for an engine of one's own. Raises `SpecError` naming the nearest known engine.
    """
    known = engines(interface)
    key, _, rest = name.partition(":")
    if key in known:
        return known[key], rest
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not re.fullmatch(r"\w+(\.\w+)*", module):
        raise SpecError(
            f"there is no engine {name!r}",
            where=f"spec.engines.{interface}",
            fix=nearest(key, known, "module:Class of your own"),
        )
    return name, ""


def check_place(interface: str, name: str) -> None:
    """Raises `SpecError` where the model of an engine is left out, or one is given to an engine that takes none."""
    key, colon, rest = name.partition(":")
    wanted = _place(interface, key)
    where = f"spec.engines.{interface}"
    if wanted == "must" and not rest:
        form = f"{key}:https://host/v1" if key == "openai" else f"{key}:/directory/of/the/model"
        raise SpecError(f"the engine {name!r} does not say where its model is", where=where, fix=f"write {form}")
    if colon and wanted == "none":
        models = "; the models are those of spec.generator and spec.recipe.models" if interface == "vlm" else ""
        raise SpecError(f"the engine {key} takes no model of its own", where=where, fix=f"write {key}{models}")


def check_trainer(name: str) -> None:
    """Raises `SpecError` for a trainer that there is not."""
    if name not in TRAINERS:
        raise SpecError(
            f"there is no trainer {name!r}", where="spec.engines.trainer", fix=nearest(name.partition(":")[0], TRAINERS)
        )


def missing(target: str) -> str:
    """Why `module:Class` cannot be imported here, as far as that is told without importing anything; else empty."""
    module, _, attribute = target.partition(":")
    found = _spec_of(module)
    if found is None:
        return f"there is no module {module} here"
    names = _defined(found)
    if names is None or attribute in names:
        return ""
    near = difflib.get_close_matches(attribute, names, n=1)
    return f"the module {module} has no {attribute}" + (f" (it has {near[0]})" if near else "")


def _spec_of(module: str) -> ModuleSpec | None:
    """Where a module is. `find_spec` of a dotted name would import the packages above it."""
    first, *rest = module.split(".")
    try:
        found = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    name = first
    for part in rest:
        name = f"{name}.{part}"
        if found is None or found.submodule_search_locations is None:
            return None
        found = PathFinder.find_spec(name, list(found.submodule_search_locations))
    return found


def _defined(found: ModuleSpec) -> set[str] | None:
    """The names that a module's source defines; None where that cannot be told."""
    source = Path(found.origin or "")
    try:
        if source.suffix != ".py" or source.stat().st_size > _LARGEST_SOURCE:
            return None
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = set(_names(tree.body))
    return None if names & {"*", "__getattr__"} or _made_by_program(tree) else names


def _made_by_program(tree: ast.Module) -> bool:
    """Whether names may come into being otherwise."""
    return any(isinstance(n, ast.Name) and n.id in ("globals", "exec", "vars") for n in ast.walk(tree))


def _names(body: Iterable[ast.AST]) -> Iterator[str]:
    """What a list of statements gives a name to, within conditions and loops too."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((a.asname or a.name).partition(".")[0] for a in node.names)
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                yield node.id
        else:
            yield from _names(ast.iter_child_nodes(node))
