"""The recipe as rows for people: every field with its value, its default, its unit and where the default comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from viper.report.collect import LoopReport
from viper.spec import Recipe


@dataclass(frozen=True)
class Setting:
    """One field. `value` lists the values of all iterations where they differ."""

    path: str
    value: str
    default: str
    unit: str
    source: str
    description: str

    @property
    def changed(self) -> bool:
        """Whether it differs from the default."""
        return self.value != self.default


def settings(report: LoopReport) -> list[Setting]:
    """Every field of the recipe in the order of the specification; empty without iterations."""
    if not report.iterations:
        return []
    per_iteration = [dict(_leaves(i.frozen.iteration.spec.recipe)) for i in report.iterations]
    defaults = dict(_leaves(Recipe()))
    rows = []
    for path in dict.fromkeys(p for leaves in per_iteration for p in leaves):
        values = list(dict.fromkeys(_shown(leaves[path][0]) for leaves in per_iteration if path in leaves))
        info = next(leaves[path][1] for leaves in per_iteration if path in leaves)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        rows.append(
            Setting(
                path=path,
                value=", ".join(values),
                default=_shown(defaults[path][0]) if path in defaults else "–",
                unit=str(extra.get("unit", "")),
                source=str(extra.get("source", "")),
                description=info.description or "",
            )
        )
    return rows


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name, info in type(model).model_fields.items():
        path, value = f"{prefix}{info.alias or name}", getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, (value, info)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_shown(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
