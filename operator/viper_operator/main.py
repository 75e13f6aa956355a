"""`viper-operator`: watches, waits for the lease, acts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import kopf
from prometheus_client import start_http_server

from viper.errors import ViperError
from viper.store import open_store
from viper_operator import handlers, logs
from viper_operator.api import Api, connect
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
    controller = Controller(settings, api, open_store(settings.store))
    stop, told = asyncio.Event(), asyncio.Event()
    watching = asyncio.create_task(
        kopf.operator(
            registry=handlers.registry(controller, told),
            settings=handlers.settings(),
            namespaces=[settings.namespace],
            # kopf would make one up from the user's name, which the user of a pod does not have.
            identity=settings.identity,  # type: ignore[arg-type]  # a NewType that kopf does not export
            standalone=True,
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
            stop_flag=stop,
        )
    )
    acting = asyncio.create_task(lead(api, settings.lease, settings.identity, controller.run))
    minding = asyncio.create_task(handlers.watch_watches())
    signalled = asyncio.create_task(told.wait())
    code = 0
    try:
        tasks = {watching, acting, minding, signalled}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is not None:
                log.error("ended by %r", task.exception(), exc_info=task.exception())
                code = 1
        if acting in done:
            code = 1
    finally:
        # The lease is given back before anything else takes time.
        for task in (acting, minding, signalled):
            task.cancel()
        await asyncio.gather(acting, minding, signalled, return_exceptions=True)
        stop.set()
        await asyncio.wait({watching}, timeout=10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
