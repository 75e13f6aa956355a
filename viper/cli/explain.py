"""`viper explain [FIELD]`: every field of a resource, from the pydantic models that validate it."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

#: How the words of a form begin that says what a text has to be.
_MUST = "must be "
_LIMITS = (
    ("gt", ">"),
    ("ge", "≥"),
    ("lt", "<"),
    ("le", "≤"),
    ("min_length", "length ≥"),
    ("max_length", "length ≤"),
    ("pattern", "pattern"),
)

_INTRODUCTION = (
    "`apiVersion` is `viper.dev/v1alpha1`. Unknown fields are errors; a null stands for a field that is not set,",
    "unless null is among its values. Source says where a default comes from; `cluster only` marks what the local",
    "runner does not read.",
    "",
    "On a cluster, an iteration may be corrected until the operator has made its first Job, and again if it",
    "failed before anything was frozen (no generator in its status). From then on nothing of its spec can be",
    "changed but `suspend`; of a loop that has begun: `suspend`, `iterations` and `budget`. A profile can always",
    "be changed: an iteration reads it once, when it starts.",
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `explain`."""
    parser = subparsers.add_parser(
        "explain",
        help="describe the fields of a resource",
        description="Describes fields with type, unit, default, limits and source.",
        epilog="example: viper explain spec.recipe.captions.training",
    )
    parser.add_argument("field", nargs="?", default="", metavar="FIELD", help="field path, e.g. spec.recipe.reward.tau")
    kinds = ["ViperIteration", "ViperLoop", "ViperProfile"]
    parser.add_argument("--kind", choices=kinds, help=f"resource (default: {kinds[0]})")
    parser.add_argument("--markdown", action="store_true", help="print the whole reference (docs/reference.md)")


def run(args: argparse.Namespace) -> int:
    """Prints the fields below FIELD."""
    from viper.errors import SpecError
    from viper.spec.load import KINDS

    if args.markdown:
        if args.field or args.kind is not None:
            raise SpecError("is all fields of all kinds", where="--markdown", fix="leave out FIELD and --kind, or it")
        print(reference(), end="")
        return 0
    kind, wanted = args.kind or next(iter(KINDS)), args.field.strip(".")
    fields = [f for f in documented(KINDS[kind]) if not wanted or f"{f.path}.".startswith(f"{wanted}.")]
    if not fields:
        raise _unknown(wanted, kind)
    for entry in fields:
        print(entry.path)
        facts = [entry.type, *(x for x in (entry.unit, entry.limits) if x), f"default: {entry.default}"]
        print(f"    {' · '.join(facts)}")
        text = entry.description + (f" [{entry.source}]" if entry.source else "")
        print(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    "))
    return 0


@dataclass(frozen=True)
class DocumentedField:
    """One documented field."""

    path: str
    type: str
    unit: str
    default: str
    limits: str
    description: str
    source: str


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Some models are those of many fields."""
    return model.model_json_schema(by_alias=True)


def documented(model: type[BaseModel], prefix: str = "") -> Iterator[DocumentedField]:
    """Every field below a model, in the order of its definition."""
    from viper.spec.load import submodel

    schema = _schema(model)
    for name, field in model.model_fields.items():
        alias = field.alias or name
        extra: Any = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        path = f"{prefix}{alias}"
        yield DocumentedField(
            path=path,
            type=_type(schema["properties"][alias], schema.get("$defs", {})),
            unit=str(extra.get("unit", "")),
            default=_default(field),
            limits=_limits(field),
            description=field.description or "",
            source=str(extra.get("source", "")),
        )
        inner = submodel(field.annotation)
        if inner is None:
            continue
        if get_origin(field.annotation) is dict:
            for entry in documented(inner, f"{path}.<stage>."):
                yield replace(entry, default="that of `defaults`")
        else:
            yield from documented(inner, f"{path}{'[]' if get_origin(field.annotation) is list else ''}.")


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in schema:
        return " or ".join(_type(s, definitions) for s in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(str(v) for v in schema["enum"])
    kind = str(schema.get("type", "value"))
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return f"map of {_type(values, definitions)}"
    return kind


def _default(field: FieldInfo) -> str:
    from pydantic import BaseModel

    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see its fields"
    return json.dumps(value, ensure_ascii=False)


def _limits(field: FieldInfo) -> str:
    from viper.spec.forms import WORDS, Form

    found = []
    for item in field.metadata:
        if isinstance(item, Form) and item.says.startswith(_MUST) and not item.when:
            found.append(item.says.removeprefix(_MUST))
        for name, sign in _LIMITS:
            value = getattr(item, name, None)
            if value is not None:
                found.append(WORDS.get(value, f"{sign} {value}"))
    return ", ".join(found)


def _unknown(wanted: str, kind: str) -> Exception:
    import difflib

    from viper.errors import SpecError
    from viper.spec.documents import shown
    from viper.spec.load import KINDS

    wanted = shown(wanted, 100)
    paths = [f.path for f in documented(KINDS[kind])]
    last = {p.rsplit(".", 1)[-1]: p for p in reversed(paths)}
    near = difflib.get_close_matches(wanted, paths, n=1) or [
        last[n] for n in difflib.get_close_matches(wanted.rsplit(".", 1)[-1], last, n=1)
    ]
    fix = f"did you mean {near[0]}?" if near else "`viper explain` lists every field"
    return SpecError(f"{kind} has no such field", where=wanted, fix=fix)


def reference() -> str:
    """`docs/reference.md`."""
    from viper.spec.iteration import LoopSpec
    from viper.spec.load import KINDS

    lines = [
        "# Every field",
        "",
        "Written by `viper explain --markdown` from the models that validate the resources; do not edit.",
        "",
        *_INTRODUCTION,
        "",
        "## ViperIteration",
        "",
        *_table([e for e in documented(KINDS["ViperIteration"]) if "<stage>" not in e.path]),
        "",
        "## ViperLoop",
        "",
        "`spec.template` has the fields of `spec` above.",
        "",
        *_table([e for e in documented(LoopSpec, "spec.") if not e.path.startswith("spec.template.")]),
        "",
        "## ViperProfile",
        "",
        "`spec` has the fields of `spec.profile` above.",
    ]
    return "\n".join(lines) + "\n"


def _table(entries: list[DocumentedField]) -> list[str]:
    rows = ["| field | type | unit | default | limits | meaning | source |", "|---|---|---|---|---|---|---|"]
    for e in entries:
        cells = (f"`{e.path}`", e.type, e.unit, f"`{e.default}`", e.limits, e.description, e.source)
        rows.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return rows
