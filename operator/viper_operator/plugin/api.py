"""The few calls that the plugin makes, with plain JSON objects and errors for a person.

The generated API classes build and parse models that nothing here needs; `ApiClient` below them does authentication and
transport.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from viper import retries
from viper_operator.names import GROUP, VERSION
from viper_operator.plugin.errors import ClusterError, Request, UnavailableError, refusal, unreachable
from viper_operator.shallow import loads

Object = dict[str, Any]
T = TypeVar("T")

MERGE_PATCH = "application/merge-patch+json"
FIELD_MANAGER = "kubectl-viper"
#: Seconds to connect, and between two bytes of an answer.
TIMEOUT = (10, 60)


class Resource(NamedTuple):
    """A kind of object. `group`: empty for the core."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Its path on the API server; `namespace` None: in all."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
        below = "".join(f"/{quote(x, safe='')}" for x in (name, subresource) if x)
        return f"{root}{inside}/{self.plural}{below}"


ITERATIONS = Resource(GROUP, VERSION, "viperiterations", "ViperIteration")
LOOPS = Resource(GROUP, VERSION, "viperloops", "ViperLoop")
PROFILES = Resource(GROUP, VERSION, "viperprofiles", "ViperProfile")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
JOBS = Resource("batch", "v1", "jobs", "Job")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")
_REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


class Cluster:
    """One namespace of a cluster.

    Args:
        client: `kubernetes.client.ApiClient`.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self._client, self.namespace = client, namespace

    def get(self, resource: Resource, name: str) -> Object:
        """One object; raises `MissingObjectError`."""
        return self._json("get", resource, name)

    def collection(self, resource: Resource, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Object:
        """The list object of a collection, all pages."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": "500", "continue": ""}
        found = self._json("list", resource, query=query, everywhere=everywhere)
        while more := found["metadata"].get("continue"):
            page = self._json("list", resource, query=query | {"continue": more}, everywhere=everywhere)
            found["items"] += page["items"]
            found["metadata"] = page["metadata"]
        return found

    def items(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a collection."""
        found: list[Object] = self.collection(resource, labels=labels, fields=fields)["items"]
        return found

    def create(self, resource: Resource, body: Object) -> Object:
        """Creates an object; raises `ConflictError` when it is there already."""
        return self._json("create", resource, body=body, query={"fieldManager": FIELD_MANAGER})

    def patch(self, resource: Resource, name: str, body: Object) -> Object:
        """Merges `body` into an object; with `metadata.resourceVersion` only if it has not changed since."""
        return self._json("patch", resource, name, body=body, query={"fieldManager": FIELD_MANAGER})

    def delete(self, resource: Resource, name: str, *, uid: str) -> None:
        """Deletes an object (and what it owns, after it), if it is still the same."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self._json("delete", resource, name, body=body)

    def watch(
        self, resource: Resource, version: str, *, labels: str = "", fields: str = "", seconds: int = 60
    ) -> Iterator[tuple[str, Object]]:
        """Changes since `version`, as (type, object), for at most so many seconds. An expired version ends it."""
        query = {
            "watch": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(seconds),
            "allowWatchBookmarks": "true",
        }
        for line in self._lines("watch", resource, query=query, timeout=(TIMEOUT[0], seconds + TIMEOUT[1])):
            event = loads(line.encode())
            if event["type"] == "ERROR":  # 410 Gone: whoever watches lists again
                return
            if event["type"] != "BOOKMARK":
                yield event["type"], event["object"]

    def log(
        self,
        pod: str,
        *,
        container: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since: str = "",
    ) -> Iterator[str]:
        """The lines of a container's log; with `timestamps` each after its time, `since` such a time."""
        query = {
            "container": container,
            "follow": "true" if follow else "",
            "tailLines": "" if tail is None else str(tail),
            "timestamps": "true" if timestamps else "",
            "sinceTime": since,
        }
        # A stage may say nothing for hours.
        timeout = (TIMEOUT[0], None if follow else TIMEOUT[1])
        yield from self._lines("get", PODS, pod, subresource="log", query=query, timeout=timeout)

    def server_version(self) -> str:
        """The API server's version."""
        request = Request("get", "", "version", "version", "", self.namespace)
        return str(self._read(self._send(request, "/version"))["gitVersion"])

    def user(self) -> str:
        """Whom the API server takes the person for; empty when it does not say."""
        try:
            return str(self._json("create", REVIEWS, body=_REVIEW, everywhere=True)["status"]["userInfo"]["username"])
        except (ClusterError, KeyError):
            return ""

    # ---- transport ---------------------------------------------------------------------------------------------------

    def _json(
        self,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        everywhere: bool = False,
    ) -> Object:
        request = Request(verb, resource.group, resource.plural, resource.kind, name, self.namespace)
        path = resource.path(None if everywhere else self.namespace, name)
        return self._read(self._send(request, path, query=query, body=body))

    def _lines(
        self,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        subresource: str = "",
        query: Mapping[str, str],
        timeout: tuple[float, float | None],
    ) -> Iterator[str]:
        from urllib3.exceptions import HTTPError

        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        request = Request(verb, resource.group, plural, resource.kind, name, self.namespace)
        path = resource.path(self.namespace, name, subresource)
        response = self._send(request, path, query=query, timeout=timeout)
        rest = b""
        try:
            for piece in response.stream(amt=None):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", errors="replace")
            if rest:
                yield rest.decode("utf-8", errors="replace")
        except HTTPError:
            return  # cut: whoever reads looks again at what there is
        finally:
            response.close()

    def _read(self, response: Any) -> Object:
        from urllib3.exceptions import HTTPError

        try:
            found: Object = loads(response.read())
        except HTTPError as error:
            raise unreachable(self._client.configuration.host, _cause(error)) from None
        return found

    def _send(
        self,
        request: Request,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        timeout: tuple[float, float | None] = TIMEOUT,
    ) -> Any:
        """The `urllib3.HTTPResponse` of a request that was accepted."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = MERGE_PATCH if request.verb == "patch" else "application/json"
        try:
            serialized = self._client.param_serialize(
                _METHODS[request.verb],
                path,
                query_params=[(k, v) for k, v in (query or {}).items() if v],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*serialized, _request_timeout=timeout).response
            if response.status >= 400:
                raise refusal(request, response.status, response.read().decode("utf-8", errors="replace"))
            return response
        except (ApiException, HTTPError) as error:
            raise unreachable(self._client.configuration.host, _cause(error)) from None


_METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "patch": "PATCH",
    "delete": "DELETE",
}


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason).split(": ", 1)[-1]
    return " ".join(text.split())


def patiently(look: Callable[[], T], tell: Callable[[str], object], pause: Callable[[float], None] = time.sleep) -> T:
    """What `look` returns, also when the API server does not answer for a while; tells so once.

    Raises `UnavailableError` when that takes longer than `retries.API_SERVER_AWAY`.
    """

    def told(error: BaseException, _: float, tries: int) -> None:
        if tries == 1 and isinstance(error, UnavailableError):
            tell(f"{error.where}: {error.what}; waiting for it")

    return retries.retrying(retries.API_SERVER_AWAY, UnavailableError, told=told, sleep=pause)(look)


def connect(args: argparse.Namespace) -> Cluster:
    """The cluster that the arguments (`main.connection`) choose, as kubectl does; raises `ClusterError`."""
    try:
        from kubernetes import config
        from kubernetes.client import ApiClient, Configuration
    except ModuleNotFoundError as error:
        raise ClusterError(f"the Kubernetes client is missing ({error})", fix="pip install 'viper[operator]'") from None

    configuration = Configuration()
    configuration.retries = 1
    try:
        namespace = _load(config, configuration, args.kubeconfig, args.context)
        client = ApiClient(configuration)
    except Exception as error:  # the client's reader raises whatever it meets in the file: it is not checked before
        reason = (
            str(error) if isinstance(error, config.ConfigException | OSError) else f"{type(error).__name__}: {error}"
        )
        raise ClusterError(
            f"no cluster to talk to: {' '.join(reason.split())[:500]}",
            where=args.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config",
            fix="name a file by --kubeconfig or KUBECONFIG, and a context in it by --context "
            "(`kubectl config get-contexts` lists them)",
        ) from None
    return Cluster(client, args.namespace or namespace or "default")


def _load(config: Any, configuration: Any, file: str | None, context: str | None) -> str | None:
    """Fills the configuration; returns the namespace of the context."""
    if file is None and context is None and _in_pod() and not os.environ.get("KUBECONFIG"):
        config.load_incluster_config(client_configuration=configuration)
        return _POD_NAMESPACE.read_text("utf-8")
    config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    contexts, current = config.list_kube_config_contexts(config_file=file)
    chosen = current if context is None else next(c for c in contexts if c["name"] == context)
    namespace: str | None = chosen["context"].get("namespace")
    return namespace


_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _in_pod() -> bool:
    # expanduser: a pod's uid may have no home.
    return _POD_NAMESPACE.exists() and not Path(os.path.expanduser("~/.kube/config")).exists()  # noqa: PTH111
