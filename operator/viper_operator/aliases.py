"""What may be said of the alias that an iteration will move, and when. Pure.

The alias is asked for by one round for all iterations and loops together (`viper_operator.tickers.Aliases`). An answer
counts for an iteration only if the question was asked after its frozen spec had been read: an earlier one may be about
the alias before the promotion that the iteration began from.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from viper.plan import Condition
from viper.spec.status import StageStatus, StatusCondition

#: The condition's type.
GENERATOR_CURRENT = "GeneratorCurrent"
#: Seconds for which an answer is believed.
FRESH_SECONDS = 15.0


@dataclass(frozen=True)
class AliasSeen:
    """An answer of the registry. `version`: None when there is no such alias. `at`: when it was asked, in seconds since
    the epoch. `known`: whether it has answered lately."""

    version: int | None
    at: float
    known: bool = True


@dataclass(frozen=True)
class Begun:
    """What an iteration began from. `version`: behind its promotion alias, None when there was none. `at`: when this
    was read, by the clock of `AliasSeen`. `policy`: of its promotion. `deciding`: its stages that may move the alias.
    """

    version: int | None
    at: float
    policy: str = "Automatic"
    deciding: frozenset[str] = frozenset()


def claim(begun: Begun | None, seen: AliasSeen | None, now: float) -> Condition | None:
    """Whether the alias is where the iteration began; None when nobody can say so now."""
    if begun is None or begun.version is None or seen is None or seen.at <= begun.at:
        return None
    if not seen.known:
        said = "the registry does not say where the alias is; the promotion asks again by itself"
        return Condition(GENERATOR_CURRENT, "Unknown", "RegistryUnavailable", said)
    if now - seen.at > FRESH_SECONDS:
        return None
    if seen.version == begun.version:
        return Condition(GENERATOR_CURRENT, "True", "AliasUnchanged", "")
    moved = f"the alias moved from version {begun.version} to {seen.version} since this iteration began"
    if seen.version is None:
        moved = f"the alias is gone, which was at version {begun.version} when this iteration began"
    held = "; promotion will be held" if begun.policy == "Automatic" else ""
    return Condition(GENERATOR_CURRENT, "False", "AliasMoved", f"{moved}{held}")


def promoting(stages: Iterable[StageStatus], deciding: Container[str]) -> bool:
    """Whether a stage that may move the alias has begun: from then on it may be the iteration's own promotion."""
    return any(s.name in deciding and s.state != "Waiting" for s in stages)


def is_news(found: Condition | None, said: StatusCondition | None) -> bool:
    """Whether a claim is another one than the status has."""
    if found is None:
        return False
    return said is None or (said.status, said.reason, said.message) != (found.status, found.reason, found.message)
