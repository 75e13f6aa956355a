"""How the operator of a namespace is installed: what it tells its pods, the plugin tells its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from viper.store import open_store
from viper_operator.names import COMPONENT, NAME
from viper_operator.plugin.api import DEPLOYMENTS, Cluster, Object
from viper_operator.plugin.errors import ClusterError
from viper_operator.settings import Settings
from viper_operator.shallow import loads

SELECTOR = f"{NAME}=viper,{COMPONENT}=operator"
#: Parts of the operator's pod that a pod of the plugin's own takes over where the chart says nothing else of it.
PLACEMENT = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")
#: What the chart's value `registryJobs` amounts to, as JSON, at the operator's container; charts had none once.
REGISTRY_JOBS = "VIPER_REGISTRY_JOBS"
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@dataclass(frozen=True)
class Installation:
    """An operator. `version`: of its chart's app; `ready`: replicas that answer.

    `resources`, `env`, `labels`, `annotations` and `placement` (fields of a pod's spec) are those of pods of the
    plugin's own.
    """

    name: str
    version: str
    image: str
    ready: int
    settings: Settings
    placement: Object = field(default_factory=dict)
    pull_policy: str = "IfNotPresent"
    resources: Object = field(default_factory=lambda: dict(RESOURCES))
    env: list[Object] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def find_installation(cluster: Cluster) -> Installation:
    """The operator of the namespace; raises `ClusterError` when there is none."""
    found = cluster.items(DEPLOYMENTS, labels=SELECTOR)
    if not found:
        raise ClusterError(
            "no operator is installed here",
            where=f"namespace {cluster.namespace}",
            fix="-n chooses the namespace of the operator; docs/install.md installs one",
        )
    return installation(min(found, key=lambda d: str(d["metadata"]["name"])))


def installation(deployment: Object) -> Installation:
    """What a Deployment of the operator says; raises `ClusterError` when it is not one."""
    meta, pod = deployment["metadata"], deployment["spec"]["template"]["spec"]
    for container in pod["containers"]:
        env = {e["name"]: e.get("value", "") for e in container.get("env", ())}
        if "VIPER_STORE" in env:
            settings = Settings(
                namespace=meta["namespace"],
                # As the operator spells it.
                store=open_store(env["VIPER_STORE"]).uri,
                tracking=env.get("VIPER_TRACKING", ""),
                image=env.get("VIPER_STAGE_IMAGE", ""),
                credentials_secret=env.get("VIPER_CREDENTIALS_SECRET", ""),
            )
            return Installation(
                name=meta["name"],
                version=meta.get("labels", {}).get("app.kubernetes.io/version", "unknown"),
                image=container["image"],
                ready=deployment.get("status", {}).get("readyReplicas", 0),
                settings=settings,
                pull_policy=container.get("imagePullPolicy", "IfNotPresent"),
                **_own_pods(pod, env.get(REGISTRY_JOBS, ""), f"deployment/{meta['name']}"),
            )
    raise ClusterError(
        "has the operator's labels but no container with VIPER_STORE",
        where=f"deployment/{meta['name']} in namespace {meta['namespace']}",
        fix="install the operator with its chart (docs/install.md)",
    )


def _own_pods(pod: Object, said: str, where: str) -> dict[str, Any]:
    """Fields of `Installation` that pods of the plugin's own are made from."""
    if not said:
        return {"placement": {key: pod[key] for key in PLACEMENT if pod.get(key)}}
    try:
        found = loads(said.encode())
        placement = {**found.get("placement", {})}
        kept = {key: found[key] for key in ("resources", "env", "labels", "annotations") if key in found}
    except (ValueError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{REGISTRY_JOBS} cannot be read: {error}",
            where=where,
            fix="the chart sets it from its value registryJobs: helm upgrade",
        ) from None
    if pod.get("imagePullSecrets"):
        placement["imagePullSecrets"] = pod["imagePullSecrets"]
    return {"resources": {}, **kept, "placement": placement}
