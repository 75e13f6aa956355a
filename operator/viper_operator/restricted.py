"""What all our pods have in common: restricted Pod Security, no API access, a message at the end. Pure."""

from __future__ import annotations

from typing import Any

from viper_operator.settings import Settings

#: User and group of every pod; the images have no other.
USER = 65532
TERMINATION_LOG = "/dev/termination-log"


def restricted_pod() -> dict[str, Any]:
    """The part of a pod's spec that is the same for all."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def restricted_container(settings: Settings) -> dict[str, Any]:
    """The part of a container that is the same for all; the store's credentials by reference."""
    container: dict[str, Any] = {
        "terminationMessagePath": TERMINATION_LOG,
        # A program that could not leave a message has its last lines of log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if settings.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.credentials_secret}}]
    return container
