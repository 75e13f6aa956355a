"""A person's move of an alias: recorded, and made once however often it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fakes.registry import MemoryRegistry
from viper.errors import InputError, RegistryError
from viper.registry import MissingError
from viper.registry.moves import Choice, Move, move_alias
from viper.registry.tags import PARENT_VERSION

TARGET = ("m", "generator")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def registry() -> MemoryRegistry:
    """Three versions, each made from the one before, with the alias at the third."""
    memory = MemoryRegistry()
    for number in (1, 2, 3):
        memory.register("m", f"file:///{number}", f"sha256:{number}")
        if number > 1:
            memory.set_tags("m", number, {PARENT_VERSION: number - 1})
    memory.promote("m", "generator", 3, expected=None)
    return memory


class StopsBefore(MemoryRegistry):
    """Ends before its first move of an alias, as a pod that is killed."""

    def __init__(self, of: MemoryRegistry) -> None:
        super().__init__()
        self.models, self.aliases = of.models, of.aliases

    def promote(self, model: str, alias: str, version: int, expected: int | None) -> None:
        raise RegistryError("killed")


@pytest.mark.parametrize(
    ("choice", "version"), [("newest", 3), ("parent", 2), (1, 1)], ids=["newest", "parent", "number"]
)
def test_the_alias_moves_to_what_was_chosen(registry: MemoryRegistry, choice: Choice, version: int) -> None:
    moved = move_alias(registry, TARGET, choice, "by me", now=NOW)
    assert moved == Move("m", "generator", 3, version)
    assert registry.get_alias(*TARGET) == version


def test_the_move_is_recorded_on_the_version(registry: MemoryRegistry) -> None:
    move_alias(registry, TARGET, 1, "rolled back by jane: worse on charts", now=NOW)
    assert registry.get("m", 1).tags == {
        "viper.alias_move.20261120T120000Z": "2026-11-20T12:00:00+00:00 generator: version 3 to 1, "
        "rolled back by jane: worse on charts"
    }


def test_where_the_alias_is_there_already_nothing_is_recorded(registry: MemoryRegistry) -> None:
    moved = move_alias(registry, TARGET, "newest", "by me")
    assert str(moved) == "m@generator: is at version 3 already"
    assert registry.get("m", 3).tags == {PARENT_VERSION: "2"}


def test_the_same_request_twice_goes_back_once(registry: MemoryRegistry) -> None:
    first = move_alias(registry, TARGET, "parent", "by me", request="r1")
    again = move_alias(registry, TARGET, "parent", "by me", request="r1")
    assert first == again == Move("m", "generator", 3, 2)
    assert registry.get_alias(*TARGET) == 2


def test_a_request_that_was_killed_between_record_and_move_is_finished(registry: MemoryRegistry) -> None:
    with pytest.raises(RegistryError):
        move_alias(StopsBefore(registry), TARGET, "parent", "by me", request="r1")
    assert registry.get_alias(*TARGET) == 3
    assert move_alias(registry, TARGET, "parent", "by me", request="r1") == Move("m", "generator", 3, 2)
    assert len(registry.get("m", 2).tags) == 2


def test_another_request_goes_back_further(registry: MemoryRegistry) -> None:
    move_alias(registry, TARGET, "parent", "by me", request="r1")
    move_alias(registry, TARGET, "parent", "by me", request="r2")
    assert registry.get_alias(*TARGET) == 1


def test_a_first_move_of_an_alias_that_does_not_exist_is_finished_too(registry: MemoryRegistry) -> None:
    with pytest.raises(RegistryError):
        move_alias(StopsBefore(registry), ("m", "stable"), 2, "by me", request="r1")
    assert move_alias(registry, ("m", "stable"), 2, "by me", request="r1") == Move("m", "stable", None, 2)


@pytest.mark.parametrize(
    ("target", "choice", "kind", "expected"),
    [
        (TARGET, 9, MissingError, "no version 9"),
        (("other", "generator"), "newest", InputError, "has no version"),
        (("m", "stable"), "parent", InputError, "the alias stable does not exist"),
    ],
)
def test_what_is_not_there_is_refused(
    registry: MemoryRegistry, target: tuple[str, str], choice: Choice, kind: type[Exception], expected: str
) -> None:
    with pytest.raises(kind, match=expected):
        move_alias(registry, target, choice, "by me")
    assert registry.calls == ["register"] * 3 + ["promote"]


def test_the_first_version_has_nothing_to_go_back_to(registry: MemoryRegistry) -> None:
    move_alias(registry, TARGET, 1, "by me")
    with pytest.raises(InputError, match="version 1 names no version that it was made from"):
        move_alias(registry, TARGET, "parent", "by me")
