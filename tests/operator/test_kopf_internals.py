"""What `viper_operator.kopf_internals` relies on is so in the kopf that is installed, against a small server."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
from aiohttp import web
from aiohttp.test_utils import TestServer

from viper_operator import handlers
from viper_operator.kopf_internals import session, unwatched
from viper_operator.names import API_VERSION, GROUP, VERSION

LOOPS, PROFILES = "viperloops", "viperprofiles"
#: Ends the watches.
OVER = web.AppKey("over", asyncio.Event)
#: Deeper than Python reads JSON.
DEEP = '{"a":' * 5_000 + "1" + "}" * 5_000


def _loop(name: str) -> str:
    meta = f'{{"name": "{name}", "namespace": "n", "uid": "{name}", "resourceVersion": "1"}}'
    return f'{{"apiVersion": "{API_VERSION}", "kind": "ViperLoop", "metadata": {meta}, "spec": {DEEP}}}'


async def _loops(request: web.Request) -> web.StreamResponse:
    """Two objects in a list, another one in a watch, which then stays open."""
    if request.query.get("watch") != "true":
        listed = f'{{"metadata": {{"resourceVersion": "1"}}, "items": [{_loop("first")}, {_loop("second")}]}}'
        return web.Response(text=listed, content_type="application/json")
    response = web.StreamResponse()
    await response.prepare(request)
    line = f'{{"type": "ADDED", "object": {_loop("third")}}}\n'.encode()
    for piece in (line[:7000], line[7000:]):
        await response.write(piece)
    await request.app[OVER].wait()
    return response


def _server(over: asyncio.Event) -> TestServer:
    group = {"name": GROUP, "preferredVersion": {"version": VERSION}, "versions": [{"version": VERSION}]}
    loops = {"name": LOOPS, "singularName": "viperloop", "kind": "ViperLoop", "namespaced": True}
    answers = {
        "/api": {"versions": ["v1"]},
        "/api/v1": {
            "resources": [{"name": "namespaces", "singularName": "", "kind": "Namespace", "namespaced": False}]
        },
        "/apis": {"groups": [group]},
        f"/apis/{API_VERSION}": {"resources": [{**loops, "verbs": ["list", "watch", "patch"]}]},
    }
    app = web.Application()
    app[OVER] = over
    app.router.add_get(f"/apis/{API_VERSION}/namespaces/n/{LOOPS}", _loops)

    async def discover(request: web.Request) -> web.Response:
        return web.json_response(answers[request.path])

    for path in answers:
        app.router.add_get(path, discover)
    return TestServer(app)


def test_kopfs_tasks_and_answers_are_what_we_take_them_for() -> None:
    seen: list[tuple[str | None, str, Any]] = []
    watched: dict[str, list[str]] = {}

    async def scenario() -> None:
        over, stop, all_seen = asyncio.Event(), asyncio.Event(), asyncio.Event()
        registry = kopf.OperatorRegistry()
        async with _server(over) as server:

            async def login(**_: Any) -> kopf.AiohttpSession:
                return session(kopf.ConnectionInfo(server=str(server.make_url("")).rstrip("/")))

            async def see(type: str | None, event: Any, **_: Any) -> None:
                seen.append((type, event["object"]["metadata"]["name"], event["object"]["spec"]))
                if len(seen) == 3:
                    all_seen.set()

            kopf.on.login(registry=registry)(login)
            kopf.on.event(GROUP, VERSION, LOOPS, id="see", registry=registry)(see)
            tasks = await kopf.spawn_tasks(
                registry=registry,
                settings=handlers.settings(),
                namespaces=["n"],
                identity="test",  # type: ignore[arg-type]
                standalone=True,
                stop_flag=stop,
            )
            mine = asyncio.current_task()
            running = asyncio.create_task(kopf.run_tasks(tasks, ignored={mine} if mine else set()))
            await asyncio.wait_for(all_seen.wait(), 30)
            watched["while it runs"] = unwatched((LOOPS, PROFILES))
            stop.set()
            await asyncio.wait({running}, timeout=30)
            over.set()
            watched["afterwards"] = unwatched((LOOPS, PROFILES))

    asyncio.run(scenario())
    assert watched == {"while it runs": [PROFILES], "afterwards": [LOOPS, PROFILES]}
    assert sorted((kind or "listed", name) for kind, name, _ in seen) == [
        ("ADDED", "third"),
        ("listed", "first"),
        ("listed", "second"),
    ]
    for _, name, spec in seen:
        assert spec["a"]["a"]["a"], f"{name} is read as far as that goes"
