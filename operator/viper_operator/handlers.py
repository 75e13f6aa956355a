"""kopf's part: watches. Handlers only hand on what they see, and kopf writes nothing to any object."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import kopf

from viper_operator.api import RAYJOBS
from viper_operator.controller import ITERATIONS, JOBS, LOOPS, PROFILES, Controller
from viper_operator.kopf_internals import session, unwatched
from viper_operator.names import GROUP, SELECTOR, VERSION
from viper_operator.ray_specs import RAY_GROUP, RAY_GROUP_VERSION

WATCHED = (ITERATIONS, LOOPS, PROFILES, JOBS)


def registry(controller: Controller) -> kopf.OperatorRegistry:
    """The handlers. Only `on.event`: no finalizers, no annotations, no timers; every decision is the brain's."""
    found = kopf.OperatorRegistry()

    def hand_on(plural: str) -> Any:
        async def see(type: str | None, event: Any, **_: Any) -> None:
            body = event["object"]
            if type == "DELETED":
                controller.gone(plural, body)
            else:
                controller.seen(plural, body, listed=type is None)

        return see

    for plural in (ITERATIONS, LOOPS, PROFILES):
        kopf.on.event(GROUP, VERSION, plural, id=f"see-{plural}", registry=found)(hand_on(plural))
    kopf.on.event("batch", "v1", JOBS, id="see-jobs", registry=found)(hand_on(JOBS))
    if controller.settings.ray_jobs:
        kopf.on.event(RAY_GROUP, RAY_GROUP_VERSION, RAYJOBS, id="see-rayjobs", registry=found)(hand_on(RAYJOBS))
    kopf.on.login(registry=found)(login)
    return found


class NoDifferences(kopf.DiffBaseStorage):
    """Differences are nobody's here: kopf would copy every object three times to look for them."""

    def build(self, **_: Any) -> Any:
        """Nothing of the object."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was kept."""

    def store(self, **_: Any) -> None:
        """Keeps nothing."""


async def login(**arguments: Any) -> kopf.AiohttpSession | None:
    """By $KUBECONFIG, else by the pod's service account; as `viper_operator.api.connect` does."""
    by = kopf.login_with_kubeconfig if os.environ.get("KUBECONFIG") else kopf.login_with_service_account
    found = by(**arguments)
    return None if found is None else session(found)


async def watch_watches(watched: Sequence[str] = WATCHED, patience_s: float = 60.0) -> None:
    """Raises `RuntimeError` when a watch has ended for good.

    kopf goes on without it when a watcher's task fails for a reason it does not know, or when a resource is not there.
    """
    missing_since: float | None = None
    while True:
        await asyncio.sleep(5)
        missing = unwatched(watched)
        now = asyncio.get_running_loop().time()
        missing_since = (missing_since or now) if missing else None
        if missing_since is not None and now - missing_since > patience_s:
            raise RuntimeError(f"no watch on {', '.join(missing)}: are the definitions installed and readable?")


def settings() -> kopf.OperatorSettings:
    """How kopf watches."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True  # the Lease decides who acts
    found.scanning.disabled = True  # needs rights on the whole cluster, and our resources do not come and go
    found.watching.label_selectors["batch", "v1", JOBS] = SELECTOR
    found.watching.label_selectors[RAY_GROUP, RAY_GROUP_VERSION, RAYJOBS] = SELECTOR
    # Bookmarks come every minute or so: a watch that is silent for longer is dead, whatever its connection says.
    found.watching.inactivity_timeout = 90.0
    found.watching.server_timeout = 600  # a whole number, or the API server refuses
    found.watching.connect_timeout = 10.0
    found.watching.chunk_size = 250
    found.queueing.idle_timeout = 0.5  # handlers take microseconds
    found.persistence.consistency_timeout = 0.0
    found.persistence.diffbase_storage = NoDifferences()
    found.process.ultimate_exiting_timeout = 30
    return found
