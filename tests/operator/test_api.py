"""Requests to an API server that is not always willing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from viper.retries import API_SERVER
from viper_operator.api import Api, ApiError, connect


class Server:
    """Answers with what it is given, in order, the last one again and again; `None` breaks the connection."""

    def __init__(self, *answers: tuple[int, Any, dict[str, str]] | None) -> None:
        self.answers, self.requests, self.pauses = list(answers), [], []

    async def __aenter__(self) -> Api:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        configuration.api_key["BearerToken"] = "bearer secret"
        self._client = ApiClient(configuration)
        return Api(self._client, "team", sleep=self._sleep)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._runner.cleanup()

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.text()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        status, body, headers = answer
        return web.json_response(body, status=status, headers=headers)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


OK = (200, {"kind": "Job"}, {})
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "it-freeze"}}


def test_apply_names_the_manager_and_never_takes_fields_of_others_by_force() -> None:
    async def scenario() -> None:
        server = Server(OK)
        async with server as api:
            assert await api.apply(JOB) == {"kind": "Job"}
        method, path, headers, body = server.requests[0]
        assert method == "PATCH"
        assert path == "/apis/batch/v1/namespaces/team/jobs/it-freeze?fieldManager=viper-operator&force=false"
        assert headers["Content-Type"] == "application/apply-patch+yaml"
        assert headers["Authorization"] == "bearer secret"
        assert json.loads(body) == JOB

    run(scenario)


@pytest.mark.parametrize(
    ("refusals", "pauses"),
    [
        ([(429, {}, {"Retry-After": "3"})], [3.0]),
        ([(429, {}, {"Retry-After": "600"})], [API_SERVER.most_asked]),
        ([(503, {}, {}), (500, {}, {})], None),
        ([None], None),
    ],
)
def test_what_may_pass_is_tried_again_after_the_pause_that_the_server_asks_for(
    refusals: list[Any], pauses: list[float] | None
) -> None:
    async def scenario() -> None:
        server = Server(*refusals, OK)
        async with server as api:
            assert await api.apply(JOB) == {"kind": "Job"}
        assert len(server.requests) == len(refusals) + 1
        if pauses is not None:
            assert server.pauses == pauses
        assert all(0 < p <= 1.5 * API_SERVER.waits[-1] or p <= API_SERVER.most_asked for p in server.pauses)

    run(scenario)


@pytest.mark.parametrize(("status", "requests"), [(400, 1), (404, 1), (409, 1), (422, 1), (503, API_SERVER.tries)])
def test_what_does_not_pass_is_an_error_with_the_servers_words(status: int, requests: int) -> None:
    async def scenario() -> None:
        server = Server((status, {"reason": "Because", "message": "of this"}, {}))
        async with server as api:
            with pytest.raises(ApiError, match="of this") as found:
                await api.apply(JOB)
        assert (found.value.status, found.value.reason) == (status, "Because")
        assert len(server.requests) == requests

    run(scenario)


@pytest.mark.parametrize(
    ("status", "message", "known_as"),
    [
        (500, "failed to create typed patch object (team/x; batch/v1, Kind=Job): .spec.x: field not declared", 422),
        (500, "failed to convert new object (team/x; batch/v1, Kind=Job) to proper version: quantities must", 422),
        (500, "etcdserver: request timed out", 500),
        (500, None, 500),
        (503, "failed to create typed patch object: the server is going down", 503),
    ],
)
def test_an_object_that_cannot_be_applied_is_not_tried_again(status: int, message: Any, known_as: int) -> None:
    async def scenario() -> None:
        server = Server((status, {"reason": "", "message": message}, {}))
        async with server as api:
            with pytest.raises(ApiError) as found:
                await api.apply(JOB)
        assert found.value.status == known_as
        assert len(server.requests) == (1 if known_as == 422 else API_SERVER.tries)

    run(scenario)


def test_a_server_that_is_not_there_is_an_error_without_status() -> None:
    async def scenario() -> None:
        server = Server(None)
        async with server as api:
            with pytest.raises(ApiError) as found:
                await api.request("GET", "/x", patient=False)
        assert found.value.status == 0

    run(scenario)


def test_an_event_that_was_told_before_is_no_error() -> None:
    async def scenario() -> None:
        async with Server((409, {"reason": "AlreadyExists"}, {})) as api:
            await api.create_event({"metadata": {"name": "it.1"}})

    run(scenario)


def test_long_lists_are_read_page_by_page() -> None:
    async def scenario() -> None:
        pages = [
            (200, {"metadata": {"continue": "t"}, "items": [{"metadata": {"name": "a", "uid": "1"}}]}, {}),
            (200, {"metadata": {}, "items": [{"metadata": {"name": "b", "uid": "2"}}]}, {}),
        ]
        server = Server(*pages)
        async with server as api:
            assert await api.existing("viperloops") == {"a": "1", "b": "2"}
        assert "continue=t" in server.requests[1][1]
        assert "PartialObjectMetadataList" in server.requests[0][2]["Accept"]

    run(scenario)


def test_a_list_of_nothing_may_be_null() -> None:
    async def scenario() -> None:
        async with Server((200, {"items": None}, {})) as api:
            assert await api.existing("jobs") == {}

    run(scenario)


@pytest.mark.parametrize(
    ("environment", "own", "used"),
    [
        ({}, "", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "", "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example"}, "", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.1,other.example"}, "", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://own:3128", "http://own:3128"),
    ],
)
def test_the_environments_proxy_is_asked_once_and_no_password_is_looked_for(
    environment: dict[str, str], own: str, used: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        for spelt in (name, name.lower()):
            monkeypatch.delenv(spelt, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster = {"server": "https://kube.example:6443", **({"proxy-url": own} if own else {})}
    file = tmp_path / "config"
    config = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(file))

    async def scenario() -> None:
        client = await connect()
        try:
            assert client.configuration.proxy == used
            assert client.rest_client.pool_manager is None or not client.rest_client.pool_manager.trust_env
        finally:
            await client.close()

    run(scenario)
