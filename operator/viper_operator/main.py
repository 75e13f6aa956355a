"""`viper-operator`: watches, waits for the lease, acts."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import replace

import kopf
from prometheus_client import start_http_server

from viper.errors import ViperError
from viper.store import open_store
from viper_operator import handlers, logs
from viper_operator.api import RAYJOBS, Api, connect
from viper_operator.controller import Controller
from viper_operator.leader import lead
from viper_operator.settings import Settings

log = logging.getLogger(__name__)


def main() -> int:
    """Exit status 0 after SIGTERM, 1 when the lease was lost or something else ended it: to be started again."""
    logs.configure(os.environ.get("VIPER_LOG_LEVEL", "INFO"))
    try:
        settings = Settings.from_environment()
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return asyncio.run(operate(settings))


async def operate(settings: Settings) -> int:
    """Runs until a signal, or until the lease is lost."""
    start_http_server(settings.metrics_port)
    client = await connect()
    api = Api(client, settings.namespace)
    settings = replace(settings, ray_jobs=await api.knows_ray_jobs())
    controller = Controller(settings, api, open_store(settings.store))
    stop, told = asyncio.Event(), asyncio.Event()
    root = await kopf.spawn_tasks(
        registry=handlers.registry(controller),
        settings=handlers.settings(),
        namespaces=[settings.namespace],
        # kopf would make one up from the user's name, which the user of a pod does not have.
        identity=settings.identity,  # type: ignore[arg-type]  # a NewType that kopf does not export
        standalone=True,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        stop_flag=stop,
    )
    # In place of kopf's own, which would end our tasks, and so give the lease back, only after a pause.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    main = asyncio.current_task()
    watching = asyncio.create_task(kopf.run_tasks(root, ignored={main} if main is not None else set()))
    ours = [
        asyncio.create_task(work)
        for work in (
            lead(api, settings.lease, settings.identity, controller.run),
            handlers.watch_watches((*handlers.WATCHED, *([RAYJOBS] if settings.ray_jobs else ()))),
            told.wait(),
        )
    ]
    try:
        await asyncio.wait({watching, *ours}, return_when=asyncio.FIRST_COMPLETED)
        code = 0 if told.is_set() else 1
        for task in (watching, *ours):
            if task.done() and not task.cancelled() and task.exception() is not None:
                log.error("ended by %r", task.exception(), exc_info=task.exception())
    finally:
        # The lease is given back before anything else takes time.
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        stop.set()
        await asyncio.wait({watching}, timeout=10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
