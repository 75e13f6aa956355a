"""What is said of an alias: only by an answer to a question that was asked after the iteration had begun, lately."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kube_objects import NOW

from viper.spec.status import StageStatus
from viper_operator.aliases import AliasSeen, Begun, claim, promoting
from viper_operator.cache import Cache
from viper_operator.memory import Memory
from viper_operator.tickers import Aliases

BEGUN = Begun(2, NOW - 5)


@pytest.mark.parametrize(
    ("begun", "seen", "expected"),
    [
        (BEGUN, AliasSeen(2, NOW - 4), ("True", "AliasUnchanged")),
        (BEGUN, AliasSeen(3, NOW - 4), ("False", "AliasMoved")),
        (BEGUN, AliasSeen(1, NOW - 4), ("False", "AliasMoved")),  # rolled back
        (BEGUN, AliasSeen(None, NOW - 4), ("False", "AliasMoved")),
        (BEGUN, AliasSeen(2, NOW - 4, known=False), ("Unknown", "RegistryUnavailable")),
        # Of before it began: the promotion that it began from came after that.
        (BEGUN, AliasSeen(1, NOW - 6), None),
        (BEGUN, AliasSeen(1, NOW - 5), None),
        (BEGUN, AliasSeen(2, NOW - 6), None),
        (BEGUN, AliasSeen(2, NOW - 6, known=False), None),
        # Too long ago to be said.
        (Begun(2, NOW - 99), AliasSeen(3, NOW - 16), None),
        (Begun(2, NOW - 99), AliasSeen(3, NOW - 15), ("False", "AliasMoved")),
        # Nothing is known.
        (BEGUN, None, None),
        (None, AliasSeen(3, NOW), None),
        (Begun(None, NOW - 5), AliasSeen(3, NOW), None),
    ],
)
def test_a_claim_is_of_an_answer_that_is_new_enough(
    begun: Begun | None, seen: AliasSeen | None, expected: tuple[str, str] | None
) -> None:
    found = claim(begun, seen, NOW)
    assert (None if found is None else (found.status, found.reason)) == expected


@pytest.mark.parametrize(("policy", "held"), [("Automatic", True), ("Manual", False), ("Never", False)])
def test_only_a_promotion_that_would_come_by_itself_is_said_to_be_held(policy: str, held: bool) -> None:
    found = claim(Begun(1, NOW - 5, policy), AliasSeen(2, NOW), NOW)
    assert found is not None
    assert "from version 1 to 2" in found.message
    assert ("promotion will be held" in found.message) is held


@pytest.mark.parametrize("state", ["Pending", "Running", "Suspended", "Retrying", "Succeeded", "Held", "Failed"])
def test_once_the_promotion_has_begun_it_may_be_the_one_that_moves_the_alias(state: Any) -> None:
    stages = [StageStatus(name="evaluate", state="Succeeded"), StageStatus(name="promote", state=state)]
    assert promoting(stages, {"promote"})
    assert not promoting(stages, {"appoint"})
    waiting = [StageStatus(name="evaluate", state=state), StageStatus(name="promote", state="Waiting")]
    assert not promoting(waiting, {"promote"})


class Registry:
    """Answers what `version` says; nothing when that is `silent`."""

    uri = "http://mlflow"

    def __init__(self) -> None:
        self.version: Any = 1
        self.asked = 0
        self.now = NOW

    async def alias(self, model: str, alias: str) -> AliasSeen | None:
        self.asked += 1
        return None if self.version == "silent" else AliasSeen(self.version, self.now)


def test_one_question_a_round_for_all_and_each_is_told_what_is_new_to_it() -> None:
    async def scenario() -> None:
        cache, memory, registry = Cache(), Memory(), Registry()
        looked: list[str] = []
        for name in ("a", "b"):
            body = {"metadata": {"name": name, "uid": name}, "spec": {"model": "m"}, "status": {"outcome": "Running"}}
            cache.iterations.put(body)
        memory.waiting["turn"] = ("m", "generator")
        aliases = Aliases(registry, cache, memory, looked.append, looked.append, lambda: registry.now)  # type: ignore[arg-type]

        async def told(after: float, version: Any) -> list[str]:
            looked.clear()
            registry.now, registry.version = registry.now + after, version
            await aliases.round()
            return sorted(looked)

        assert await told(0, 1) == ["a", "b", "turn"]
        assert await told(5, 1) == []
        memory.begun["b"] = Begun(1, registry.now + 1)
        assert await told(5, 1) == ["b"], "nothing could be said of it before"
        assert await told(5, 1) == []
        assert await told(5, 2) == ["a", "b", "turn"]
        assert await told(5, "silent") == []
        assert await told(5, "silent") == []
        assert await told(6, "silent") == ["a", "b", "turn"], "what it said is 16 s old"
        assert await told(5, "silent") == []
        assert await told(5, 2) == ["a", "b", "turn"]
        assert registry.asked == 10
        cache.iterations.items.clear()
        del memory.waiting["turn"]
        await aliases.round()
        assert (registry.asked, memory.aliases) == (10, {})

    asyncio.run(scenario())
