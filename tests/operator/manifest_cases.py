"""A manifest with a single mistake, made of a valid one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

#: A value that removes the field.
GONE = object()
#: How a bound is named.
AT_LEAST, AT_MOST = "greater than or equal to {}", "less than or equal to {}"

ENGINES = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")
SPEC: dict[str, Any] = {"model": "m", "images": {"uri": "smallworld:scenes?count=1000"}, "engines": ENGINES}

VALID: dict[str, dict[str, Any]] = {
    "ViperIteration": {"metadata": {"name": "turn"}, "spec": SPEC},
    "ViperLoop": {"metadata": {"name": "loop"}, "spec": {"template": SPEC}},
    "ViperProfile": {"metadata": {"name": "a100"}, "spec": {"defaults": {"gpus": 1}}},
}


def valid(kind: str) -> dict[str, Any]:
    """The smallest valid manifest of a kind."""
    return {"apiVersion": "viper.dev/v1alpha1", "kind": kind, **copy.deepcopy(VALID[kind])}


def patched(manifest: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at these paths (keys separated by spaces) set, or removed with `GONE`."""
    made = copy.deepcopy(manifest)
    for path, value in patch.items():
        *parents, last = path.split(" ")
        at = made
        for key in parents:
            at = at.setdefault(key, {})
        if value is GONE:
            del at[last]
        else:
            at[last] = value
    return made


@dataclass(frozen=True)
class Case:
    """A mistake.

    `field`: the path that both messages name; `says`: words of the remedy in both; `server`, `here`: words of one;
    `hidden`: what neither may repeat.
    """

    name: str
    patch: dict[str, Any]
    field: str
    says: tuple[str, ...]
    kind: str = "ViperIteration"
    server: tuple[str, ...] = ()
    here: tuple[str, ...] = ()
    hidden: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        return patched(valid(self.kind), self.patch)
