"""How the operator of a namespace is installed: what it tells its pods, the plugin tells its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from viper.store import open_store
from viper_operator.names import COMPONENT, NAME
from viper_operator.plugin.api import DEPLOYMENTS, Cluster, Object
from viper_operator.plugin.errors import ClusterError
from viper_operator.settings import Settings

SELECTOR = f"{NAME}=viper,{COMPONENT}=operator"
#: Parts of the operator's pod that a pod of the plugin's own takes over.
PLACEMENT = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")


@dataclass(frozen=True)
class Installation:
    """An operator. `version`: of its chart's app; `ready`: replicas that answer."""

    name: str
    version: str
    image: str
    ready: int
    settings: Settings
    placement: Object = field(default_factory=dict)
    pull_policy: str = "IfNotPresent"


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
                placement=_taken(pod),
                pull_policy=container.get("imagePullPolicy", "IfNotPresent"),
            )
    raise ClusterError(
        "has the operator's labels but no container with VIPER_STORE",
        where=f"deployment/{meta['name']} in namespace {meta['namespace']}",
        fix="install the operator with its chart (docs/install.md)",
    )


def _taken(pod: Object) -> dict[str, Any]:
    return {key: pod[key] for key in PLACEMENT if pod.get(key)}
