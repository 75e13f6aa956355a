"""Leader election by a Lease: one replica acts, the others only watch."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from viper_operator.api import Api, ApiError

log = logging.getLogger(__name__)

#: Another replica takes over at the latest `LEASE_SECONDS` + `RETRY_SECONDS` after the leader's last sign of life. A
#: leader that cannot renew stops acting `LEASE_SECONDS` - `RENEW_SECONDS` before that, longer than a request takes.
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 16, 11, 2


class Lease(BaseLock):  # type: ignore[misc]
    """The lock of the client's election, over our own requests.

    The client's own (37.0.2) refuses to create a Lease (`pretty=True` fails its validation) and lets a connection that
    breaks, or hangs for minutes, end the election.
    """

    def __init__(self, name: str, identity: str, api: Api) -> None:
        super().__init__(name, api.namespace, identity)
        self._api, self._path = api, f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"
        self._known: dict[str, Any] = {}

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Whether the Lease could be read, and who holds it; else why not."""
        try:
            self._known = await self._api.request("GET", f"{self._path}/{name}", patient=False)
        except ApiError as error:
            why = ApiException(status=error.status, reason=str(error))
            why.body = json.dumps({"code": error.status})  # where the election looks for it
            return False, why
        spec = self._known.get("spec", {})
        lasts = spec.get("leaseDurationSeconds")
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            None if lasts is None else str(lasts),
            spec.get("acquireTime"),
            spec.get("renewTime"),
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Whether the Lease is there now, and ours."""
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        return await self._send("POST", self._path, {**body, "spec": self._spec(election_record)})

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Whether the Lease is ours now; not when another one was faster, by its resourceVersion."""
        body = {**self._known, "spec": {**self._known.get("spec", {}), **self._spec(updated_record)}}
        return await self._send("PUT", f"{self._path}/{name}", body)

    async def release(self) -> None:
        """Lets the next one lead at once, when this one does; best effort."""
        found, record = await self.get(self.name, self.namespace)
        if found and record.holder_identity == self.identity:
            # Without a holder: an empty one is refused.
            spec = {k: v for k, v in self._known["spec"].items() if k != "holderIdentity"}
            body = {**self._known, "spec": {**spec, "leaseDurationSeconds": 1}}
            await self._send("PUT", f"{self._path}/{self.name}", body)

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> bool:
        try:
            self._known = await self._api.request(method, path, body=body, patient=False)
        except ApiError as error:
            log.info("the lease could not be written: %s", error)
            return False
        return True

    def _spec(self, record: LeaderElectionRecord) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = self._known.get("spec", {})
        ours = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": record.holder_identity,
            "leaseDurationSeconds": int(record.lease_duration),
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
        }


async def lead(api: Api, name: str, identity: str, act: Callable[[], Awaitable[None]]) -> None:
    """Waits for the lease, then runs `act`; returns when the lease is lost, raises what `act` raises.

    `act` is cancelled when the lease is lost: the process should end then, so that nothing of the past is left.
    """
    lock = Lease(name, identity, api)
    acquired = asyncio.Event()

    async def started() -> None:
        acquired.set()

    async def stopped() -> None:
        log.warning("the lease is lost")

    settings = Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, started, stopped)
    election = asyncio.create_task(LeaderElection(settings).run())

    async def acting() -> None:
        await acquired.wait()
        await act()

    action = asyncio.create_task(acting())
    try:
        await asyncio.wait({election, action}, return_when=asyncio.FIRST_COMPLETED)
        for task in (election, action):
            if task.done():
                task.result()
    finally:
        for task in (election, action):
            task.cancel()
        await asyncio.gather(election, action, return_exceptions=True)
        if acquired.is_set():
            await asyncio.shield(lock.release())
