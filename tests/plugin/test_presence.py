"""Whether anybody watches, by the Leases that operators have written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from viper_operator.plugin.api import Cluster
from viper_operator.plugin.errors import ForbiddenError
from viper_operator.plugin.presence import absence, nobody_watches

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
NEVER = "no operator has acted in this namespace yet"


def lease(age: float | None, *, by: str = "viper-operator", lasts: int = 16, holder: str = "one") -> dict[str, Any]:
    """A Lease that was renewed so many seconds ago."""
    spec: dict[str, Any] = {"holderIdentity": holder} if holder else {}
    if age is not None:
        renewed = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec |= {"renewTime": renewed, "leaseDurationSeconds": lasts}
    return {"metadata": {"name": "any", "managedFields": [{"manager": by}]}, "spec": spec}


@pytest.mark.parametrize(
    ("leases", "said"),
    [
        ([lease(3)], ""),
        ([lease(40)], ""),  # another replica takes over
        ([lease(20, lasts=1, holder="")], ""),  # it was given back, for the next one
        ([lease(720, lasts=1, holder="")], "(last seen 12 min 00 s ago)"),  # uninstalled, or no replicas
        ([lease(90)], "(last seen 1 min 30 s ago)"),  # it died
        ([lease(9000), lease(720)], "(last seen 12 min 00 s ago)"),
        ([lease(9000), lease(2)], ""),
        ([lease(2, by="kube-controller-manager")], NEVER),
        ([lease(None)], NEVER),
        ([], NEVER),
    ],
)
def test_nobody_watches_once_the_last_lease_is_over(leases: list[dict[str, Any]], said: str) -> None:
    found = absence(leases, NOW)
    assert said in found
    assert bool(found) is bool(said)


def test_who_may_not_read_leases_is_told_nothing() -> None:
    class Closed(Cluster):
        def __init__(self) -> None:
            pass

        def items(self, *_: object, **__: object) -> list[dict[str, Any]]:
            raise ForbiddenError("no leases for you")

    assert nobody_watches(Closed(), NOW) == ""
