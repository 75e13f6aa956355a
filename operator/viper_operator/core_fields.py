"""Writes the fields of pods from Kubernetes' client.

python -m viper_operator.core_fields > viper/spec/pod_fields.json
"""

from __future__ import annotations

import json
import re
import sys

from kubernetes.aio.client import models

ROOT = "V1PodTemplateSpec"


def core_fields() -> dict[str, dict[str, str]]:
    """See `viper.spec.pod_fields.fields`."""
    found: dict[str, dict[str, str]] = {}
    left = [ROOT]
    while left:
        name = left.pop()
        if _kind(name) in found:
            continue
        model = getattr(models, name)
        fields = found[_kind(name)] = {}
        for attribute, written in model.openapi_types.items():
            inner = re.search(r"\b[A-Za-z]*V1\w+", written)  # in List[V1Volume], Dict[str, V1Quantity]
            if inner is not None:
                left.append(inner[0])
            many = {"Li": "[]", "Di": "{}"}.get(written[:2], "")
            fields[model.attribute_map[attribute]] = "" if inner is None else many + _kind(inner[0])
    return found


def _kind(name: str) -> str:
    """The kind that a model of the client stands for: `CoreV1ResourceClaim`, `V1Volume`."""
    return name.replace("V1", "", 1)


if __name__ == "__main__":
    json.dump(core_fields(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
