"""What every model of the specification shares: camelCase on the outside, unknown fields refused, frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel

from viper.errors import SpecError, nearest
from viper.spec.forms import STORED, Form

#: Where a default comes from.
PAPER = "ViPER, arXiv 2510.24285"
OURS = "not given in the paper; our choice"
#: Characters of what is said about a problem.
LONGEST_PROBLEM = 500


class SpecModel(BaseModel):
    """Base of all specification models. YAML and JSON use camelCase (the Kubernetes API convention)."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=False,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any, info: ValidationInfo) -> Any:
        """A null where none can be stands for a field that is not set, as in Kubernetes and as YAML reads `recipe:`."""
        if not isinstance(data, dict):
            return data
        fields = _nulls(cls)
        if info.context == STORED and cls.model_config.get("extra") == "forbid":
            data = {k: v for k, v in data.items() if k in fields}
        full, unknown = {}, (True, False)
        for key, value in data.items():
            nullable, filled = fields.get(key, unknown)
            if filled and isinstance(value, dict):
                full[key] = {k: v for k, v in value.items() if v is not None}
            elif nullable or value is not None:
                full[key] = value
        return full

    def dump(self) -> dict[str, Any]:
        """The model as plain JSON types with camelCase keys, every default written out."""
        return self.model_dump(mode="json", by_alias=True)

    def value_at(self, path: str) -> Any:
        """What is set at a path of names as people write them (`recipe.captions.samples`), or None where something on
        the way is not set; raises `SpecError` where there is no such field."""
        found: Any = self
        for name in path.split("."):
            if found is None:
                return None
            fields = {f.alias: n for n, f in type(found).model_fields.items()} if isinstance(found, SpecModel) else {}
            if name not in fields:
                raise SpecError(f"there is no setting {path}", where=name, fix=nearest(name, [str(f) for f in fields]))
            found = getattr(found, fields[name])
        return found


def first_problem(error: ValueError) -> str:
    """The first thing that is wrong with data, with the field's path, in one line of at most 500 characters."""
    if not isinstance(error, ValidationError):
        return str(error)[:LONGEST_PROBLEM]
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path, said = ".".join(str(p) for p in first["loc"]), first["msg"].removeprefix("Value error, ")
    return (f"{path}: {said}" if path else said)[:LONGEST_PROBLEM]


def _nullable(annotation: Any) -> bool:
    return annotation in (Any, None, type(None)) or any(_nullable(a) for a in _alternatives(annotation))


@cache
def _nulls(model: type[BaseModel]) -> dict[str, tuple[bool, bool]]:
    """By name and alias of a field: whether it may be null, and whether it is a map whose values may not be."""
    found = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        filled = get_origin(kind) is dict and not _nullable(get_args(kind)[1])
        found[name] = found[field.alias or name] = (_nullable(kind), filled)
    return found


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return get_args(annotation)[:1] if get_origin(annotation) is Annotated else ()


def setting(
    default: Any = ...,
    *,
    unit: str = "",
    source: str = "",
    since: str = "",
    forms: Sequence[Form] = (),
    **limits: Any,
) -> Any:
    """A documented field: `description` and limits as in `pydantic.Field`, plus unit, source, the release from which on
    it can be carried out (`since`; empty: 0.2.0), and the forms of its text, the first one told first."""
    extra: dict[str, Any] = {k: v for k, v in (("unit", unit), ("source", source), ("since", since)) if v}
    if callable(default) and default is not ...:
        field = Field(default_factory=default, json_schema_extra=extra, **limits)
    else:
        field = Field(default, json_schema_extra=extra, **limits)
    field.metadata.extend(forms)
    return field
