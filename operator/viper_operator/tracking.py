"""The two things the operator asks of MLflow: where an alias points, and to close a run. Plain REST, best effort."""

from __future__ import annotations

import logging
import os
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from viper_operator.aliases import AliasSeen
from viper_operator.shallow import loads

log = logging.getLogger(__name__)

#: MLflow's REST API.
ALIAS, RUN = "/api/2.0/mlflow/registered-models/alias", "/api/2.0/mlflow/runs/update"
TIMEOUT = aiohttp.ClientTimeout(total=3)
#: How it says that there is no such model, or alias.
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class TrackingServer:
    """MLflow at `uri`; anything but an HTTP server (a file, a database) is only for stages and answers nothing here."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") if urlsplit(uri).scheme in ("http", "https") else ""
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        self._auth = aiohttp.BasicAuth(user, password) if user else None
        self._session: aiohttp.ClientSession | None = None

    async def alias(self, model: str, alias: str) -> AliasSeen | None:
        """Where an alias points; None when nobody knows."""
        at = time.time()
        answer = await self._ask("GET", ALIAS, params={"name": model, "alias": alias})
        if isinstance(answer, dict) and answer.get("error_code") in MISSING:
            return AliasSeen(None, at)
        try:
            return AliasSeen(int(answer["model_version"]["version"]), at)
        except (KeyError, TypeError, ValueError):
            return None

    async def finish_run(self, run: str, status: str) -> None:
        """Closes the run of an iteration: `FINISHED` or `FAILED`."""
        await self._ask("POST", RUN, json={"run_id": run, "status": status, "end_time": int(time.time() * 1000)})

    async def close(self) -> None:
        """Closes connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        """What it said, an error too; None where there was no answer in JSON."""
        if not self.uri:
            return None
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT, auth=self._auth)
        try:
            async with self._session.request(method, f"{self.uri}{path}", **arguments) as response:
                return loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.info("MLflow did not answer: %s: %s", type(error).__name__, error)
            return None
