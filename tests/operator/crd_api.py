"""The project's resources on a real API server, in one namespace, with strict field validation (kubectl's default)."""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
from typing import Any

from kubernetes import client, config

from servers.kube import KubeApi, eventually
from viper_operator.crd import GROUP, VERSION, definitions
from viper_operator.crd_columns import NAMES

PLURALS = {model.__name__: plural for model, (plural, _) in NAMES.items()}


class RefusedError(Exception):
    """The API server's message."""


class Resources:
    """Creates, changes and reads resources; raises `RefusedError`."""

    def __init__(self, kube_api: KubeApi) -> None:
        kube_api.apply(*definitions())
        names = [f"crd/{plural}.{GROUP}" for plural in PLURALS.values()]
        kube_api.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
        eventually(lambda: _discovered(kube_api))  # that follows a moment later
        self.namespace = f"crd-{secrets.token_hex(4)}"
        kube_api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self._client = client.CustomObjectsApi(config.new_client_from_config(str(kube_api.kubeconfig)))

    def create(self, manifest: dict[str, Any], *, keep: bool = False) -> dict[str, Any]:
        """Creates it, as a dry run unless `keep`."""
        options = {} if keep else {"dry_run": "All"}
        return self._call("create", manifest, manifest, **options)

    def replace(self, manifest: dict[str, Any], *, status: bool = False) -> dict[str, Any]:
        """Replaces an object, or its status."""
        name = manifest["metadata"]["name"]
        return self._call("replace", manifest, name, manifest, suffix="_status" if status else "")

    def get(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The object as it is stored."""
        plural = PLURALS[manifest["kind"]]
        name = manifest["metadata"]["name"]
        return self._client.get_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, name)  # type: ignore[no-any-return]

    def _call(
        self, verb: str, manifest: dict[str, Any], *rest: Any, suffix: str = "", **options: Any
    ) -> dict[str, Any]:
        method = getattr(self._client, f"{verb}_namespaced_custom_object{suffix}")
        try:
            return method(  # type: ignore[no-any-return]
                GROUP, VERSION, self.namespace, PLURALS[manifest["kind"]], *rest, field_validation="Strict", **options
            )
        except client.ApiException as e:
            raise RefusedError(json.loads(e.body)["message"]) from None


@functools.cache
def installed(kube_api: KubeApi) -> Resources:
    """The resources on this server, installed once."""
    return Resources(kube_api)


def _discovered(kube_api: KubeApi) -> bool:
    """Whether kubectl knows the resources and can explain them."""
    known = set(kube_api.kubectl("api-resources", "-o", "name").split())
    if not {f"{plural}.{GROUP}" for plural in PLURALS.values()} <= known:
        return False
    try:
        schemas = kube_api.kubectl("get", "--raw", f"/openapi/v3/apis/{GROUP}/{VERSION}")
    except subprocess.CalledProcessError:
        return False
    return all(f'"{kind}"' in schemas for kind in PLURALS)
