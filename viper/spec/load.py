"""From a YAML or JSON file to a validated resource, with errors a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from viper.errors import SpecError
from viper.spec.documents import read_document, shown
from viper.spec.forms import STORED, WORDS
from viper.spec.iteration import API_VERSION, Metadata, ViperIteration, ViperLoop, ViperProfile
from viper.spec.pod_fields import check_pod_fields
from viper.text import without_credentials
from viper.words import plural

Resource = ViperIteration | ViperLoop | ViperProfile

#: Problems of one resource that are listed.
MOST_PROBLEMS = 20

KINDS: dict[str, type[ViperIteration] | type[ViperLoop] | type[ViperProfile]] = {
    "ViperIteration": ViperIteration,
    "ViperLoop": ViperLoop,
    "ViperProfile": ViperProfile,
}


def load_runnable(path: Path) -> ViperIteration | ViperLoop:
    """Reads a resource that runs without a cluster; raises `SpecError`."""
    resource = load_resource(path)
    if isinstance(resource, ViperProfile):
        raise SpecError(
            "a ViperProfile says where iterations run, it is nothing to run itself",
            where=str(path),
            fix="give the file of a ViperIteration or ViperLoop",
        )
    loop = isinstance(resource, ViperLoop)
    spec = resource.spec.template if isinstance(resource, ViperLoop) else resource.spec
    if spec.profile_ref is not None:
        field = "spec.template.profile" if loop else "spec.profile"
        raise SpecError(
            f"{field}Ref names the ViperProfile {spec.profile_ref!r} in a cluster, which is not read here",
            where=str(path),
            fix=f"write the profile into {field}, or run it in the cluster with `kubectl apply -f {path}`",
        )
    return resource


def load_resource(path: Path) -> Resource:
    """Reads one resource from a YAML or JSON file; raises `SpecError`."""
    resource = parse_resource(read_document(path), where=str(path))
    check_pod_fields(resource, str(path))
    return resource


def parse_stored(data: Mapping[str, Any], *, lenient: bool = False) -> Resource:
    """Validates a resource as an API server returns it: status and the server's own metadata are left aside.

    With `lenient`, which is for what a program has written out, fields of a later release are left aside as well.
    Raises `SpecError`.
    """
    metadata = data.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        return parse_resource(dict(data))
    own = {name: metadata[name] for name in Metadata.model_fields if metadata.get(name) is not None}
    bare = {"apiVersion": data.get("apiVersion"), "kind": data.get("kind"), "metadata": own, "spec": data.get("spec")}
    where = f"{data.get('kind')} {own.get('namespace', '')}/{own.get('name', '')}"
    return parse_resource(bare, where=where, lenient=lenient)


def parse_resource(data: Any, *, where: str = "", lenient: bool = False) -> Resource:
    """Validates a decoded document; raises `SpecError` listing every problem with its field path."""
    if not isinstance(data, dict):
        raise SpecError("expected one resource (a mapping with apiVersion, kind, metadata, spec)", where=where)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(shown(kind), KINDS, n=1)
        raise SpecError(
            f"kind is {_brief(kind)}",
            where=where,
            fix=f"did you mean {near[0]!r}?" if near else f"use one of {sorted(KINDS)}",
        )
    if data.get("apiVersion") != API_VERSION:
        raise SpecError(f"apiVersion is {_brief(data.get('apiVersion'))}", where=where, fix=f"use {API_VERSION!r}")
    model = KINDS[kind]
    try:
        # Strict, as an API server: "3" is no number. YAML's own types are what was meant.
        context = STORED if lenient else None
        return model.model_validate(_whole(data), strict=True, by_alias=True, by_name=False, context=context)
    except ValidationError as e:
        errors = e.errors()
        problems = [_describe(model, error) for error in errors[:MOST_PROBLEMS]]
        if len(errors) > MOST_PROBLEMS:
            problems.append(f"… and {len(errors) - MOST_PROBLEMS} more")
        text = "\n".join(f"  {p}" for p in problems)
        raise SpecError(
            f"{plural(len(errors), 'problem')} in {kind}:\n{text}", where=where, fix="`viper explain` lists every field"
        ) from None


def _whole(data: Any) -> Any:
    """The same with 1.0 as 1: JSON knows one kind of number, and an API server takes either for an integer."""
    if isinstance(data, dict):
        return {k: _whole(v) for k, v in data.items()}
    if isinstance(data, list):
        return [_whole(v) for v in data]
    return int(data) if isinstance(data, float) and data.is_integer() and abs(data) < 2**53 else data


def _describe(model: type[BaseModel], error: ErrorDetails) -> str:
    location = tuple(shown(p) for p in error["loc"])
    path = ".".join(location) or "(root)"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown field{_suggestion(model, location)}"
    if error["type"] == "missing":
        return f"{path}: required field is missing"
    got = error.get("input")
    written = "" if isinstance(got, (dict, list)) else f" (got {_brief(got)})"
    if words := WORDS.get(error.get("ctx", {}).get("pattern", "")):
        return f"{path}: must be {words}{written}"
    return f"{path}: {shown(error['msg'].removeprefix('Value error, '), 1000)}{written}"


def _brief(value: Any) -> str:
    """How a value was written, shortened."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(shown(without_credentials(value))) if isinstance(value, str) else shown(value)


def _suggestion(model: type[BaseModel], location: tuple[str, ...]) -> str:
    """The nearest valid name: first beside the unknown one, then anywhere in the resource."""
    *parents, name = location
    siblings = _names(_descend(model, parents))
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.6):
        return f"; did you mean {'.'.join([*parents, near[0]])}?"
    everywhere = {path.rsplit(".", 1)[-1]: path for path in field_paths(model)}
    if near := difflib.get_close_matches(name, everywhere, n=1, cutoff=0.8):
        return f"; did you mean {everywhere[near[0]]}?"
    return f"; valid here: {', '.join(siblings)}" if siblings else ""


def _names(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [f.alias or n for n, f in model.model_fields.items()]


def submodel(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as `X`, `X | None`, `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := submodel(a)) is not None), None)


def _descend(model: type[BaseModel] | None, parents: list[str]) -> type[BaseModel] | None:
    for part in parents:
        if model is None:
            return None
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is not None:
            model = submodel(field.annotation)
    return model


def field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field path of a resource, dotted, in camelCase."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path
        if (inner := submodel(field.annotation)) is not None:
            yield from field_paths(inner, f"{path}.")
