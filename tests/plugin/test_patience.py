"""What goes on for hours outlives connections and servers that come and go."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from plugin_builders import pod

from viper.retries import API_SERVER_AWAY
from viper_operator.plugin.api import patiently
from viper_operator.plugin.errors import ClusterError, MissingObjectError, UnavailableError
from viper_operator.plugin.follow import followed
from viper_operator.plugin.status import watch

PATIENCE = API_SERVER_AWAY.tries or 0
AWAY = UnavailableError("does not answer", where="https://api")


class Script:
    """Answers in turn: values are returned, errors raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.calls = 0

    def __call__(self, *_: Any) -> Any:
        self.calls += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_api_server_that_comes_back_is_waited_for_and_told_of_once() -> None:
    told: list[str] = []
    pauses: list[float] = []
    assert patiently(Script(AWAY, AWAY, 5), told.append, pauses.append) == 5
    assert told == ["https://api: does not answer; waiting for it"]
    assert len(pauses) == 2


def test_patience_ends() -> None:
    look = Script(*[AWAY] * (PATIENCE + 1))
    with pytest.raises(UnavailableError):
        patiently(look, lambda _: None, lambda _: None)
    assert look.calls == PATIENCE


def test_other_errors_are_not_waited_for() -> None:
    look = Script(ClusterError("no"))
    with pytest.raises(ClusterError):
        patiently(look, lambda _: None, lambda _: None)
    assert look.calls == 1


def test_watching_prints_only_what_is_new_until_nothing_more_happens() -> None:
    out = io.StringIO()
    look = Script(("a\n", False, "1"), ("a\n", False, "2"), AWAY, ("b\n", True, "3"))
    seen: list[str] = []

    def happen(version: str) -> Iterator[object]:
        seen.append(version)
        return iter(())

    assert watch(look, happen, out, lambda _: None) == 0
    assert out.getvalue() == "a\n\nb\n"
    assert seen == ["1", "2"]


class Logs:
    """A cluster with one pod: what each connection to its log is sent, and its phase after each."""

    def __init__(self, *connections: Any, phases: list[Any]) -> None:
        self._connections, self._phases = list(connections), phases
        self.since: list[str] = []

    def log(self, _pod: str, *, since: str, **_: Any) -> Iterator[str]:
        self.since.append(since)
        connection = self._connections.pop(0)
        if isinstance(connection, Exception):
            raise connection
        yield from connection

    def get(self, _resource: object, name: str) -> dict[str, Any]:
        phase = self._phases.pop(0)
        if isinstance(phase, Exception):
            raise phase
        body = pod(name, phase=phase)
        body["metadata"]["resourceVersion"] = "1"
        return body

    def watch(self, *_: Any, **__: Any) -> Iterator[object]:
        return iter(())


ONE, TWO, THREE = (f"2026-11-20T10:00:0{i}Z {t}" for i, t in enumerate(("one", "two", "three")))


@pytest.mark.parametrize(
    ("connections", "phases", "expected"),
    [
        ([[ONE, TWO], [TWO]], ["Succeeded"], ["one", "two"]),
        ([[ONE, TWO], [TWO, THREE], [THREE]], ["Running", "Failed"], ["one", "two", "three"]),
        # Cut just before the end: what was written meanwhile is not lost.
        ([[ONE], [ONE, TWO, THREE]], ["Succeeded"], ["one", "two", "three"]),
        ([AWAY, [ONE], AWAY, [ONE, TWO]], ["Succeeded"], ["one", "two"]),
        ([[ONE]], [MissingObjectError("gone")], ["one"]),
        ([[ONE, ONE.replace("one", "at the same time")], []], ["Succeeded"], ["one", "at the same time"]),
        (
            [[ONE], [ONE, ONE.replace("one", "same"), TWO], [ONE, ONE.replace("one", "same"), TWO]],
            ["Running", "Succeeded"],
            ["one", "same", "two"],
        ),
        ([[ONE, ONE], [ONE, ONE, ONE, TWO]], ["Succeeded"], ["one", "one", "one", "two"]),
    ],
    ids=[
        "whole",
        "cut",
        "cut-at-the-end",
        "kubelet-away",
        "pod-deleted",
        "equal-times",
        "cut-between-equal-times",
        "equal-lines",
    ],
)
def test_every_line_of_a_pod_is_printed_once(connections: list[Any], phases: list[Any], expected: list[str]) -> None:
    logs = Logs(*connections, phases=phases)
    assert list(followed(logs, pod("p"), pause=lambda _: None)) == expected  # type: ignore[arg-type]


def test_a_pod_of_the_same_name_is_another_one() -> None:
    other = pod("p")
    other["metadata"]["uid"] = "other"
    assert list(followed(Logs([ONE], phases=["Running"]), other)) == ["one"]  # type: ignore[arg-type]


def test_a_kubelet_that_stays_away_is_given_up() -> None:
    logs = Logs(*[AWAY] * (PATIENCE + 2), phases=[])
    with pytest.raises(UnavailableError):
        list(followed(logs, pod("p"), pause=lambda _: None))  # type: ignore[arg-type]
