"""What MLflow says of an alias: where it points, that there is none, or nothing that anybody could believe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from viper_operator.tracking import ALIAS, TrackingServer

NONE, NOBODY = "there is none", "nobody knows"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, '{"model_version": {"name": "m", "version": "7", "aliases": ["generator"]}}', 7),
        (
            400,
            '{"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias generator not found."}',
            NONE,
        ),
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=m not found"}', NONE),
        (404, "<html>nginx: no such page</html>", NOBODY),
        (404, '{"detail": "Not Found"}', NOBODY),
        (401, "You are not authenticated.", NOBODY),
        (403, '{"error_code": "PERMISSION_DENIED", "message": ""}', NOBODY),
        (500, '{"error_code": "INTERNAL_ERROR", "message": "database is locked"}', NOBODY),
        (503, '{"error_code": "TEMPORARILY_UNAVAILABLE"}', NOBODY),
        (200, "[]", NOBODY),
        (200, "null", NOBODY),
        (200, '{"model_version": {"version": "latest"}}', NOBODY),
        (200, "", NOBODY),
    ],
)
def test_an_alias_is_gone_only_if_the_registry_itself_says_so(status: int, body: str, expected: Any) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert dict(request.query) == {"name": "m", "alias": "generator"}
        return web.Response(status=status, text=body, content_type="application/json")

    async def scenario() -> Any:
        app = web.Application()
        app.router.add_get(ALIAS, answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        server = TrackingServer(f"http://127.0.0.1:{port}")
        try:
            return await server.alias("m", "generator")
        finally:
            await server.close()
            await runner.cleanup()

    seen = asyncio.run(scenario())
    assert (NOBODY if seen is None else NONE if seen.version is None else seen.version) == expected


def test_a_registry_that_is_not_there_says_nothing() -> None:
    async def scenario() -> Any:
        server = TrackingServer("http://127.0.0.1:9")
        try:
            return await server.alias("m", "generator")
        finally:
            await server.close()

    assert asyncio.run(scenario()) is None
    assert asyncio.run(TrackingServer("sqlite:////x").alias("m", "generator")) is None
