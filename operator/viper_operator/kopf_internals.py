"""What we rely on in kopf and it promises nobody: what it calls its tasks, and how it reads answers of the API server.

`tests/operator/test_kopf_internals.py` fails when a release of kopf does otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import kopf

from viper_operator.shallow import loads, shallow


def unwatched(plurals: Sequence[str]) -> list[str]:
    """Those of these resources on which kopf has no watch in this event loop: each is a task of its own."""
    names = [t.get_name() for t in asyncio.all_tasks()]
    return [p for p in plurals if not any(n.startswith(f"watcher for {p}.") for n in names)]


class _Lines:
    """The body of a watch, an event on a line, each made shallow."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines."""
        rest = b""
        async for data in self._content.iter_chunked(size):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                yield b"".join(shallow(line) + b"\n" for line in lines if line)
        if rest:
            yield shallow(rest)


class Response(aiohttp.ClientResponse):
    """An answer to kopf."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """See `aiohttp.ClientResponse`."""
        await super().start(connection)
        if self.url.query.get("watch") == "true":
            self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    async def json(self, **_: Any) -> Any:
        """See `aiohttp.ClientResponse`."""
        return loads(await self.read())


def session(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """What kopf would make of these credentials, with answers that are read as `viper_operator.shallow` does."""
    made = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=Response,
    )
    return kopf.AiohttpSession(
        aiohttp_session=made,
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
    )
