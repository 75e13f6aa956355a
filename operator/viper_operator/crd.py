"""The CustomResourceDefinitions, generated from the pydantic models that validate the same resources everywhere else.

`python -m viper_operator.crd DIRECTORY` (`make crds`) writes one Helm template per kind. Schemas are structural
(apiextensions.k8s.io/v1): no references, null as `nullable`, maps as `additionalProperties`; free-form objects only
where a model says `dict[str, Any]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from viper.spec import API_VERSION, IterationSpec, Profile, ViperIteration, ViperLoop, ViperProfile
from viper.spec.forms import FORMS, WORDS
from viper.spec.profile import CLUSTER
from viper.spec.status import IterationStatus, LoopStatus, StatusModel
from viper_operator.cel import Rule, form_rule, key_rule
from viper_operator.crd_columns import CATEGORY, COLUMNS, NAMES
from viper_operator.crd_rules import ROOT_RULES, RULES

GROUP, VERSION = API_VERSION.split("/")

Schema = dict[str, Any]

#: Kind and its status.
KINDS: dict[type[BaseModel], type[BaseModel] | None] = {
    ViperIteration: IterationStatus,
    ViperLoop: LoopStatus,
    ViperProfile: None,
}
#: Fields without a default on the server: whether they were given has a meaning of its own.
GIVEN_OR_NOT = {(IterationSpec, "profile")}

_COPIED = (
    "type",
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def definitions() -> list[Schema]:
    """The CustomResourceDefinition of every kind."""
    return [_definition(model, status) for model, status in KINDS.items()]


def _definition(model: type[BaseModel], status: type[BaseModel] | None) -> Schema:
    kind = model.__name__
    plural, short = NAMES[model]
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(model, status)},
        "additionalPrinterColumns": [c.dump() for c in COLUMNS[model]],
    }
    if status is not None:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "viper"},
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short),
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _root(model: type[BaseModel], status: type[BaseModel] | None) -> Schema:
    own = model.model_fields["spec"].description or ""
    properties: Schema = {
        "apiVersion": {"type": "string", "description": "API version."},
        "kind": {"type": "string", "description": "Kind."},
        "metadata": {"type": "object"},
        "spec": {**structural(_model_of(model.model_fields["spec"])), "description": own},
    }
    if status is not None:
        properties["status"] = {**structural(status), "description": "What the operator observes."}
    made: Schema = {
        "type": "object",
        "description": _sentence(model.__doc__),
        "required": ["spec"],
        "properties": properties,
    }
    if rules := ROOT_RULES[model]:
        made["x-kubernetes-validations"] = [r.dump() for r in rules]
    return made


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, with the CEL rules listed for it."""
    full = model.model_json_schema(by_alias=True)
    models = {m.__name__: m for m in _models(model)}
    properties: Schema = {}
    required = []
    for name, field in model.model_fields.items():
        alias = field.alias or name
        node = _convert(full["properties"][alias], full.get("$defs", {}), models)
        if (model, name) == (Profile, "stages"):
            _leave_unset(node["additionalProperties"])
        if issubclass(model, StatusModel) and name == "conditions":  # as every API of Kubernetes has them
            node |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        node["description"] = _description(field)
        if field.is_required():
            required.append(alias)
        elif (model, name) not in GIVEN_OR_NOT and (default := _default(field)) is not None:
            node["default"] = default
        properties[alias] = node
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    # Rules of a text stand at the object around it: at the text itself, the server repeats it, passwords too.
    forms = [form_rule(f, alias) for alias, node in full["properties"].items() for f in node.get(FORMS, ())]
    return made | _validations([*RULES.get(model, ()), *forms])


def _convert(schema: Schema, shared: Schema, models: dict[str, type[BaseModel]]) -> Schema:
    made = _converted(schema, shared, models)
    rules = [key_rule(f) for f in schema.get("propertyNames", {}).get(FORMS, ())]
    if isinstance(values := schema.get("additionalProperties"), dict):
        made["additionalProperties"] |= _validations([form_rule(f) for f in values.get(FORMS, ())])
    return made | _validations(rules)


def _validations(rules: Sequence[Rule]) -> Schema:
    return {"x-kubernetes-validations": [r.dump() for r in rules]} if rules else {}


def _converted(schema: Schema, shared: Schema, models: dict[str, type[BaseModel]]) -> Schema:
    if "$ref" in schema:
        return structural(models[schema["$ref"].rsplit("/", 1)[-1]])
    if schema.get("x-kubernetes-int-or-string"):
        return {k: schema[k] for k in ("anyOf", "pattern", "x-kubernetes-int-or-string")}
    if "anyOf" in schema:
        (chosen,) = (s for s in schema["anyOf"] if s.get("type") != "null")
        made = {**_convert(chosen, shared, models), "nullable": True}
        if values := made.pop("enum", None):  # `nullable` does not get a null past `enum`
            names = ", ".join(values)
            made["x-kubernetes-validations"] = [Rule(f"self in {values}", f"must be one of {names}").dump()]
        return made
    made = {k: schema[k] for k in _COPIED if k in schema}
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema:  # a flag in OpenAPI 3.0, a number in JSON Schema 2020-12
            made |= {bound: schema[exclusive], exclusive: True}
    if words := WORDS.get(made.get("pattern", "")):
        made["x-kubernetes-validations"] = [Rule(f"self.matches(r'{made.pop('pattern')}')", f"must be {words}").dump()]
    if "items" in schema:
        made["items"] = _convert(schema["items"], shared, models)
    values = schema.get("additionalProperties")
    if values is True:
        made["x-kubernetes-preserve-unknown-fields"] = True
    elif values:
        made["additionalProperties"] = _convert(values, shared, models)
    return made


def _leave_unset(stage: Schema) -> None:
    """Resources of a single stage have no defaults of their own: what is not set there is that of `defaults`."""
    for node in stage["properties"].values():
        node.pop("default", None)


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        # The server holds a default against the rules before it fills in the defaults below it.
        short = type(value) not in RULES
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=short, exclude_none=True)
    return value


def _description(field: FieldInfo) -> str:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    facts = [f"Unit: {extra['unit']}."] if "unit" in extra else []
    if source := extra.get("source"):
        facts.append("Cluster only." if source == CLUSTER else f"Source: {source}.")
    return " ".join([field.description or "", *facts])


def _sentence(text: str | None) -> str:
    return " ".join((text or "").replace("`", "").split())


def _model_of(field: FieldInfo) -> type[BaseModel]:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    raise TypeError(f"{annotation} is no model")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation mentions, itself and below."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for inner in get_args(annotation):
        yield from _models(inner)


def template(definition: Schema) -> str:
    """A definition as Helm template: YAML whose braces Helm leaves alone."""
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=120)
    text = text.replace("{{", '{{ "{{" }}')
    head = "# Generated from viper/spec by `make crds`; do not edit.\n{{- if (.Values.crds).install }}\n"
    return f"{head}{text}{{{{- end }}}}\n"


def write(directory: Path) -> None:
    """Writes one template per kind."""
    directory.mkdir(parents=True, exist_ok=True)
    for definition in definitions():
        (directory / f"{definition['spec']['names']['plural']}.yaml").write_text(template(definition), "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
