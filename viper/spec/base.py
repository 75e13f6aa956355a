"""What every model of the specification shares: camelCase on the outside, unknown fields refused, frozen values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


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

    def dump(self) -> dict[str, Any]:
        """The model as plain JSON types with camelCase keys, every default written out."""
        return self.model_dump(mode="json", by_alias=True)


def setting(default: Any = ..., *, unit: str = "", source: str = "", **limits: Any) -> Any:
    """A documented field: `description` and limits as in `pydantic.Field`, plus unit and source."""
    extra: dict[str, Any] = {k: v for k, v in (("unit", unit), ("source", source)) if v}
    if callable(default) and default is not ...:
        return Field(default_factory=default, json_schema_extra=extra, **limits)
    return Field(default, json_schema_extra=extra, **limits)
