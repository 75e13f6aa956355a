"""Merging a partial pod template over a generated one, by the rules of strategic merge patches as far as pods need."""

from __future__ import annotations

from typing import Any

#: List fields whose items are merged by a key (core/v1 `patchMergeKey`); every other list is replaced.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}


def merged(base: Any, change: Any, field: str = "") -> Any:
    """`base` with `change` over it. Maps are merged, null removes a key, lists are merged by name or replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        result = dict(base)
        for key, value in change.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(base[key], value, key) if key in base else value
        return result
    key = MERGE_KEYS.get(field)
    if key and isinstance(base, list) and isinstance(change, list):
        return _by_key(base, change, key)
    return change


def _name(item: Any, key: str) -> Any:
    """What an item is merged by; None for one that is no map, or named by no text or number: it stands by itself."""
    name = item.get(key) if isinstance(item, dict) else None
    return name if isinstance(name, str | int) else None


def _by_key(base: list[Any], change: list[Any], key: str) -> list[Any]:
    result = list(base)
    position = {_name(item, key): i for i, item in enumerate(base)}
    for item in change:
        at = position.get(_name(item, key))
        if at is None or _name(item, key) is None:
            result.append(item)
        else:
            result[at] = merged(result[at], item)
    return result
