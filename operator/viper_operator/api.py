"""The few calls to the API server that the operator makes: plain JSON in and out, with patience."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from viper import retries
from viper_operator.metrics import API_REQUESTS
from viper_operator.names import GROUP, MANAGER, VERSION
from viper_operator.ray_specs import RAY_GROUP, RAY_GROUP_VERSION
from viper_operator.shallow import loads

#: Seconds one request may take. What a former leader has sent arrives before its lease can be anybody else's.
TIMEOUT = 4.0
APPLY = "application/apply-patch+yaml"
#: What a stage may run as: API group and version by kind.
GROUPS = {"Job": "batch/v1", "RayJob": f"{RAY_GROUP}/{RAY_GROUP_VERSION}"}
RAYJOBS = "rayjobs"
#: How an API server begins what it says with 500 of an object that it could never apply: a field that is not there, a
#: list for a text, an item twice (apimachinery, `managedfields`).
UNFIT = ("failed to create typed patch object", "failed to convert new object")


class ApiError(Exception):
    """The API server did not do what it was asked.

    `status`: of HTTP, 0 when there was no answer; `after`: seconds after which the server wants to be asked again.
    """

    def __init__(self, status: int, reason: str, message: str, after: float = 0.0) -> None:
        self.status, self.reason, self.after = status, reason, after
        super().__init__(f"{status} {reason}: {message}" if status else message)


def _passes(error: BaseException) -> bool:
    return isinstance(error, ApiError) and (error.status in (0, 429) or error.status >= 500)


async def connect() -> ApiClient:
    """A client by $KUBECONFIG, else by the pod's service account."""
    configuration = Configuration()
    if path := os.environ.get("KUBECONFIG"):
        await config.load_kube_config(config_file=path, client_configuration=configuration)
    else:
        config.load_incluster_config(client_configuration=configuration)
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    # aiohttp would ask the environment with every request, in threads, and take a password out of ~/.netrc.
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def _proxy(url: str) -> str | None:
    """The proxy that the environment has for this URL (HTTPS_PROXY, NO_PROXY)."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _job(name: str, kind: str) -> dict[str, Any]:
    return {"apiVersion": GROUPS[kind], "kind": kind, "metadata": {"name": name}}


class Api:
    """Requests within one namespace. All raise `ApiError`.

    Answers 429 and 5xx, and broken connections, are tried again within the call, as long as the server asks for or with
    growing pauses: every write here may be repeated, because names follow from what things are for.
    """

    def __init__(self, client: ApiClient, namespace: str, *, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
        self.client, self.namespace, self._sleep = client, namespace, sleep

    async def apply(
        self, body: Mapping[str, Any], *, manager: str = MANAGER, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply. Without `force`, 409 when another manager owns one of the fields.

        With `dry_run` nothing is changed.
        """
        query = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        return await self.request("PATCH", self._path(body), query, body, content=APPLY)

    async def apply_status(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces the status; with `metadata.uid`, 409 unless it is still that object."""
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self.request("PATCH", f"{self._path(body)}/status", query, body, content=APPLY)

    async def look(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The Service of this name as it is, None when there is none.

        By a patch of nothing that is not carried out, which takes no right beyond that to patch. Where there is no
        Service, one without ports would be made, which is refused.
        """
        bare = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {"name": body["metadata"]["name"]}}
        query = {"fieldManager": f"{MANAGER}-look", "force": "false", "dryRun": "All"}
        try:
            return await self.request("PATCH", self._path(body), query, bare, content=APPLY)
        except ApiError as error:
            if error.status != 422:
                raise
            return None

    async def get_job(self, name: str, kind: str = "Job") -> dict[str, Any]:
        """A Job or RayJob."""
        return await self.request("GET", self._path(_job(name, kind)))

    async def knows_ray_jobs(self) -> bool:
        """Whether KubeRay's RayJob is installed."""
        try:
            known = await self.request("GET", f"/apis/{GROUPS['RayJob']}")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return any(r["name"] == RAYJOBS for r in known.get("resources", ()))

    async def delete_job(self, name: str, uid: str, kind: str = "Job") -> None:
        """Deletes a Job or RayJob and, in the background, its pods; nothing when it is gone."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self.request("DELETE", self._path(_job(name, kind)), body=options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def create_event(self, body: Mapping[str, Any]) -> None:
        """Creates a core/v1 Event; nothing when it is there, or when the namespace is going."""
        try:
            await self.request("POST", f"/api/v1/namespaces/{self.namespace}/events", body=body)
        except ApiError as error:
            if error.status not in (404, 409) and "being terminated" not in str(error):
                raise

    async def pods(self, selector: str, fields: str = "") -> AsyncIterator[dict[str, Any]]:
        """Pods by label and field selector."""
        async for pod in self._pages(f"/api/v1/namespaces/{self.namespace}/pods", selector, fields, "application/json"):
            yield pod

    async def events_of(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """Events about an object: this very one, and not another of its name."""
        fields = f"involvedObject.uid={uid}"
        path = f"/api/v1/namespaces/{self.namespace}/events"
        async for event in self._pages(path, "", fields, "application/json"):
            yield event

    async def existing(self, plural: str, selector: str = "") -> dict[str, str]:
        """uid by name of all objects of a kind (`jobs`, `rayjobs`, one of ours); only metadata is transferred."""
        group = {"jobs": GROUPS["Job"], RAYJOBS: GROUPS["RayJob"]}.get(plural, f"{GROUP}/{VERSION}")
        path = f"/apis/{group}/namespaces/{self.namespace}/{plural}"
        accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        found = {}
        async for one in self._pages(path, selector, "", accept):
            found[one["metadata"]["name"]] = one["metadata"]["uid"]
        return found

    async def _pages(self, path: str, selector: str, fields: str, accept: str) -> AsyncIterator[dict[str, Any]]:
        query = {"limit": "250", "labelSelector": selector, "fieldSelector": fields}
        query = {k: v for k, v in query.items() if v}
        while True:
            page = await self.request("GET", path, query, accept=accept)
            for item in page.get("items") or ():
                yield item
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query = {**query, "continue": token}

    def _path(self, body: Mapping[str, Any]) -> str:
        plural = f"{body['kind'].lower()}s"
        root = "apis" if "/" in body["apiVersion"] else "api"  # the core group has no name
        return f"/{root}/{body['apiVersion']}/namespaces/{self.namespace}/{plural}/{body['metadata']['name']}"

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content: str = "application/json",
        accept: str = "application/json",
        patient: bool = True,
    ) -> dict[str, Any]:
        """One request, repeated while that may help; once, unless `patient`."""
        url = f"{self.client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")

        async def once() -> dict[str, Any]:
            status, answer, after = await self._once(method, url, body, content, accept)
            API_REQUESTS.labels(method, str(status)).inc()
            if status >= 400 or not status:
                said = answer.get("message", f"no answer to {method} {path}")
                raise ApiError(status, answer.get("reason", ""), said, after)
            return answer

        policy = retries.API_SERVER if patient else retries.ONCE
        return await retries.retrying_async(policy, _passes, sleep=self._sleep)(once)

    async def _once(
        self, method: str, url: str, body: Any, content: str, accept: str
    ) -> tuple[int, dict[str, Any], float]:
        """Status (0: no answer), answer, and the pause in seconds that the server asks for."""
        headers = {"Accept": accept, "Content-Type": content, "User-Agent": MANAGER}
        await self.client.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self.client.call_api(method, url, headers, body, _request_timeout=TIMEOUT)
                data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return 0, {"message": f"the API server cannot be reached: {type(error).__name__}: {error}"}, 0.0
        try:
            answer = loads(data)
        except ValueError:
            answer = {"message": data[:200].decode(errors="replace")}
            if response.status < 400:
                return 0, answer, 0.0
        try:
            wait = float(response.headers.get("Retry-After", 0))
        except ValueError:
            wait = 0.0
        unfit = response.status == 500 and str(answer.get("message", "")).startswith(UNFIT)
        return 422 if unfit else response.status, answer, wait
