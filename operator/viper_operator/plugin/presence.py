"""Whether anybody watches: without an operator, what statuses say of work that goes on is as the last one left it.

An operator that ends writes nothing: the next one goes on. But its Lease says until when it was there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from viper.words import duration
from viper_operator.names import MANAGER
from viper_operator.plugin.api import LEASES, Cluster, Object
from viper_operator.plugin.errors import ForbiddenError

#: Seconds beyond its Lease after which a leader without a successor is gone.
SLACK = 30.0


def absence(leases: Iterable[Object], now: datetime) -> str:
    """What to tell a person when no operator acts; empty when one does. Pure.

    Args:
        leases: of the namespace; ours are those that an operator has written.
    """
    ours = [
        lease
        for lease in leases
        if any(m.get("manager") == MANAGER for m in lease["metadata"].get("managedFields", ()))
    ]
    last: datetime | None = None
    for spec in (lease.get("spec", {}) for lease in ours):
        renewed = datetime.fromisoformat(spec["renewTime"]) if spec.get("renewTime") else None
        if renewed is None:
            continue
        lasts = float(spec.get("leaseDurationSeconds") or 0) + SLACK
        if (now - renewed).total_seconds() <= lasts:
            return ""
        last = renewed if last is None else max(last, renewed)
    if last is None:
        return "no operator has acted in this namespace yet"
    seen = duration((now - last).total_seconds())
    return f"no operator acts in this namespace (last seen {seen} ago): what goes on is shown as it was then"


def nobody_watches(cluster: Cluster, now: datetime) -> str:
    """The same of a cluster; empty where the person may not read Leases."""
    try:
        return absence(cluster.items(LEASES), now)
    except ForbiddenError:
        return ""
