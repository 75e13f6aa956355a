"""A proxy in front of the API server that loses answers, answers itself, cuts watches, and counts writes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from servers.running import free_port

WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Request:
    """A request of the operator. `number`: of the write, from 1; 0 for reads."""

    method: str
    path: str
    number: int

    @property
    def write(self) -> bool:
        """Whether it changes something of iterations; Leases are beside the point."""
        return self.method in WRITES and "/leases" not in self.path


@dataclass(frozen=True)
class Answer:
    """What the proxy says instead of the server, or `after` it has carried the request out nevertheless. 410 is said as
    the server says it of a watch: as an event of a stream."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False

    @property
    def status(self) -> int:
        return 200 if self.code == 410 else self.code

    @property
    def body(self) -> bytes:
        said = self._said()
        return json.dumps({"type": "ERROR", "object": said} if self.code == 410 else said).encode() + b"\n"

    def _said(self) -> dict[str, Any]:
        reasons = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
        said = {"kind": "Status", "status": "Failure", "code": self.code, "reason": reasons.get(self.code, "")}
        return {**said, "message": "injected"}


class FaultProxy:
    """`kubeconfig` leads through it. `before` is asked about every request and may answer instead of the server;
    `after` hears of every write that the server has carried out, before the operator does."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._upstream, self._authority = cluster["server"], cluster["certificate-authority"]
        self._port = free_port()
        content["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        self.kubeconfig = folder / "proxy.conf"
        self.kubeconfig.write_text(yaml.safe_dump(content))
        self.before: Callable[[Request], Answer | None] = lambda request: None
        self.after: Callable[[Request], None] = lambda request: None
        self.writes: list[Request] = []
        self._watches: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._up, self._down = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(10)

    def cut_watches(self) -> None:
        """Breaks every watch in the middle of the connection."""
        self._loop.call_soon_threadsafe(lambda: [w.cancel() for w in self._watches])

    async def _serve(self) -> None:
        import ssl

        tls = ssl.create_default_context(cafile=self._authority)
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 20) as self._session:
            application = web.Application(client_max_size=64 << 20)
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            self._up.set()
            await self._down.wait()
            await runner.cleanup()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(incoming.method, incoming.raw_path, 0)
        if request.write:
            request = Request(incoming.method, incoming.raw_path, len(self.writes) + 1)
        answer = self.before(request)
        if answer is not None and not answer.after:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers, content_type=JSON)
        headers = {k: v for k, v in incoming.headers.items() if k.lower() not in ("host", "content-length")}
        headers["Accept-Encoding"] = "identity"
        url = f"{self._upstream}{incoming.raw_path}"
        data = await incoming.read()
        async with self._session.request(incoming.method, url, headers=headers, data=data or None) as response:
            if "watch=true" in incoming.raw_path:
                return await self._stream(incoming, response)
            body = await response.read()
            if request.write and response.status < 300:
                self.writes.append(request)
                self.after(request)
            if answer is not None:
                return web.Response(status=answer.status, body=answer.body, headers=answer.headers, content_type=JSON)
            kept = {k: v for k, v in response.headers.items() if k.lower() in ("content-type", "retry-after")}
            return web.Response(status=response.status, body=body, headers=kept)

    async def _stream(self, incoming: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, headers={"Content-Type": JSON})
        await response.prepare(incoming)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        try:
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
        except (asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
            if incoming.transport is not None:
                incoming.transport.abort()
        finally:
            self._watches.discard(task)
        return response


JSON = "application/json"
