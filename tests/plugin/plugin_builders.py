"""Objects as an API server returns them, with statuses as the operator writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    """A condition."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-20T10:00:00Z",
        "observedGeneration": 1,
    }


def stage(name: str, state: str, **more: Any) -> Object:
    """A stage of a status."""
    return {"name": name, "state": state, "reason": "", "message": "", "gpuSeconds": 0.0, **more}


def iteration(
    name: str, outcome: str, *stages: Object, loop: str = "", conditions: Any = None, **status: Any
) -> Object:
    """A ViperIteration of generation 1 whose status is up to date."""
    summary = {"Promoted": "True", "Registered": "True", "Held": "False", "Failed": "False"}.get(outcome, "Unknown")
    at = next((s["name"] for s in stages if s["state"] not in ("Succeeded", "Waiting")), None)
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperIteration",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-20T09:30:00Z",
            "labels": {"viper.dev/loop": loop} if loop else {},
        },
        "spec": {"model": "m"},
        "status": {
            "observedGeneration": 1,
            "conditions": conditions or [condition("Succeeded", summary, outcome)],
            "outcome": outcome,
            "stage": at,
            "stages": list(stages),
            **status,
        },
    }


def loop(name: str, summary: str, reason: str, message: str = "", **status: Any) -> Object:
    """A ViperLoop whose status is up to date."""
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "generation": 2,
            "creationTimestamp": "2026-11-17T12:00:00Z",
        },
        "spec": {"iterations": 3},
        "status": {
            "observedGeneration": 2,
            "conditions": [condition("Succeeded", summary, reason, message)],
            **status,
        },
    }


def pod(name: str, stage_name: str = "promote", *, shard: int = 0, created: str = "10:00:00", **status: Any) -> Object:
    """A stage's pod."""
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": f"2026-11-20T{created}Z",
            "labels": {
                "viper.dev/stage": stage_name,
                "batch.kubernetes.io/job-name": f"it-{stage_name}",
                "batch.kubernetes.io/job-completion-index": str(shard),
            },
        },
        "spec": {"containers": [{"name": "stage"}]},
        "status": {"phase": "Pending", **status},
    }


def container(**state: Any) -> list[Object]:
    """The statuses of a pod's one container."""
    return [{"name": "stage", "state": state}]


def event(uid: str, reason: str, message: str, at: str = "10:00:00", *, type_: str = "Warning") -> Object:
    """A core/v1 Event about the object with this uid."""
    return {
        "metadata": {"name": f"{uid}.1"},
        "involvedObject": {"uid": uid},
        "type": type_,
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-11-20T{at}Z",
    }
