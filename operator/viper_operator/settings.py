"""The operator's settings, from its environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from viper.errors import SpecError
from viper.spec.addresses import check_anonymous
from viper.store import open_store

RESTRICTED, UNRESTRICTED, FORBIDDEN = POD_TEMPLATES = ("restricted", "unrestricted", "forbidden")


@dataclass(frozen=True)
class Settings:
    """What an installed operator is told once.

    `store` and `tracking` are URIs without credentials. `credentials_secret` is the Secret whose keys stage pods get as
    environment; its name is all the operator ever knows of it.
    """

    namespace: str
    store: str
    tracking: str
    image: str
    credentials_secret: str = ""
    lease: str = "viper-operator"
    identity: str = ""
    health_port: int = 8081
    metrics_port: int = 8080
    workers: int = 16
    store_threads: int = 8
    progress_seconds: float = 10.0
    problem_seconds: float = 10.0
    sweep_seconds: float = 600.0
    #: What profiles may make of their pods: the finished pod passes "Restricted", any, or no templates at all.
    pod_templates: str = RESTRICTED
    #: Secrets that no stage may mention.
    protected_secrets: tuple[str, ...] = ()
    #: Whether the cluster knows KubeRay's RayJob; looked for when the operator starts.
    ray_jobs: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises `SpecError` naming what is missing, `RegistryError` for credentials in a URI."""
        required = ("VIPER_NAMESPACE", "VIPER_STORE", "VIPER_TRACKING", "VIPER_STAGE_IMAGE")
        if missing := [n for n in required if not environment.get(n)]:
            raise SpecError(f"{', '.join(missing)} must be set", where="environment", fix="the chart sets them")

        def number(name: str, default: float) -> float:
            try:
                return float(environment.get(name) or default)
            except ValueError:
                raise SpecError(f"{environment[name]!r} is not a number", where=name) from None

        templates = environment.get("VIPER_POD_TEMPLATES") or cls.pod_templates
        if templates not in POD_TEMPLATES:
            raise SpecError(
                f"{templates!r} is none of {', '.join(POD_TEMPLATES)}",
                where="VIPER_POD_TEMPLATES",
                fix="set one of them",
            )
        protected = environment.get("VIPER_PROTECTED_SECRETS", "")

        return cls(
            namespace=environment["VIPER_NAMESPACE"],
            # As the store itself spells it, so that pods and people see the same URI.
            store=open_store(environment["VIPER_STORE"]).uri,
            tracking=check_anonymous(environment["VIPER_TRACKING"]),
            image=environment["VIPER_STAGE_IMAGE"],
            credentials_secret=environment.get("VIPER_CREDENTIALS_SECRET", ""),
            lease=environment.get("VIPER_LEASE") or cls.lease,
            identity=environment.get("VIPER_IDENTITY") or f"{socket.gethostname()}-{os.getpid()}",
            health_port=int(number("VIPER_HEALTH_PORT", cls.health_port)),
            metrics_port=int(number("VIPER_METRICS_PORT", cls.metrics_port)),
            workers=int(number("VIPER_WORKERS", cls.workers)),
            store_threads=int(number("VIPER_STORE_THREADS", cls.store_threads)),
            progress_seconds=number("VIPER_PROGRESS_SECONDS", cls.progress_seconds),
            problem_seconds=number("VIPER_PROBLEM_SECONDS", cls.problem_seconds),
            sweep_seconds=number("VIPER_SWEEP_SECONDS", cls.sweep_seconds),
            pod_templates=templates,
            protected_secrets=tuple(name for n in protected.split(",") if (name := n.strip())),
        )
