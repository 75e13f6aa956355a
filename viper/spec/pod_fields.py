"""Misspelt fields of the parts of a profile that only Kubernetes reads: pod templates, affinities, label selectors.

Their fields are in `pod_fields.json`, written by `viper_operator.core_fields` from Kubernetes' own client. A name that
is neither like one of them nor one of another place may be a later Kubernetes', and is left to the API server.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel

from viper.errors import SpecError
from viper.spec.documents import shown
from viper.spec.pods import Affinity, PodTemplate, TopologySpreadConstraint
from viper.words import plural

#: Kinds of core/v1 and meta/v1 by their kind here.
KINDS: dict[type[BaseModel], str] = {
    PodTemplate: "PodTemplateSpec",
    Affinity: "Affinity",
    TopologySpreadConstraint: "TopologySpreadConstraint",
}
#: How alike two names are of which one is a misspelling of the other, from 0 to 1.
ALIKE = 0.8
#: Characters of a name from which on it is taken for the beginning of another one.
BEGINNING = 6
#: Problems that are listed.
MOST_PROBLEMS = 20
_REFUSED = re.compile(r"\.template\.(?P<path>[^:\s]+): field not declared in schema")


@cache
def fields() -> dict[str, dict[str, str]]:
    """The fields of each kind: names, and the kind of what they hold; `[]` before it: a list, `{}`: a map by name;
    empty where that has no fields."""
    text = resources.files("viper.spec").joinpath("pod_fields.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def check_pod_fields(resource: BaseModel, where: str = "") -> None:
    """Raises `SpecError` listing the misspelt fields of a resource, each with its path and what was meant."""
    found = list(_of_model(resource, ""))
    if not found:
        return
    more = [f"… and {len(found) - MOST_PROBLEMS} more"] if len(found) > MOST_PROBLEMS else []
    text = "\n".join(f"  {problem}" for problem in [*found[:MOST_PROBLEMS], *more])
    raise SpecError(
        f"{plural(len(found), 'problem')} in {type(resource).__name__}:\n{text}",
        where=where,
        fix="the names are those of Kubernetes (`kubectl explain pod.spec`)",
    )


def misspelt(value: Any, kind: str, at: str) -> Iterator[str]:
    """Path of every misspelt field of a value of that kind, with what was meant."""
    known = fields().get(kind, {})
    for key, inner in value.items() if isinstance(value, dict) else ():
        name = str(key)
        if name not in known:
            if (said := meant(name, kind)) and not name.startswith("$"):
                yield f"{at}.{shown(name)}: no field of {kind}; {said}"
            continue
        holds, here = known[name], f"{at}.{name}"
        if holds.startswith("[]"):
            for i, item in enumerate(inner if isinstance(inner, list) else ()):
                called = item.get("name") if isinstance(item, dict) else None
                yield from misspelt(item, holds[2:], f"{here}[{shown(called) if isinstance(called, str) else i}]")
        elif holds.startswith("{}"):
            for name_, item in inner.items() if isinstance(inner, dict) else ():
                yield from misspelt(item, holds[2:], f"{here}[{shown(name_)}]")
        else:
            yield from misspelt(inner, holds, here)


def meant(name: str, kind: str) -> str:
    """What is said of a field that a kind has not: the one beside it that is like it, else where it belongs; empty when
    nobody can tell."""
    beside = {known.lower(): known for known in fields().get(kind, ())}
    near = difflib.get_close_matches(name.lower(), beside, n=1, cutoff=ALIKE)
    near += [known for known in beside if len(name) >= BEGINNING and known.startswith(name.lower())]
    if near:
        return f"did you mean {beside[near[0]]}?"
    owners = [owner for owner, known in fields().items() if name in known]
    return f"it is one of {', '.join(owners[:3])}" if owners else ""


def hint(refusal: str) -> str:
    """What was meant by the field that an API server does not know in the template of a pod, by its words; empty when
    nobody can tell."""
    found = _REFUSED.search(refusal)
    if found is None:
        return ""
    # Lists say which of their items is meant: containers[name="stage"].
    *parents, name = re.sub(r"\[[^\]]*\]", "", found["path"]).split(".")
    kind = "PodTemplateSpec"
    for parent in parents:
        kind = fields().get(kind, {}).get(parent, "").lstrip("[]{}")
    return meant(name, kind)


def _of_model(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        if (kind := KINDS.get(type(value))) is not None:
            given = value.model_dump(mode="json", by_alias=True, exclude_none=True)
            yield from misspelt(given, kind, at)
            return
        for name, field in type(value).model_fields.items():
            inner = field.alias or name
            yield from _of_model(getattr(value, name), f"{at}.{inner}" if at else inner)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _of_model(item, f"{at}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _of_model(item, f"{at}[{i}]")
