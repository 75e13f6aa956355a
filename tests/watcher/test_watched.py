"""The judge of what is said finds what is not so, and nothing else: each rule on a made-up run, true and false."""

from __future__ import annotations

import pytest

from watcher.cases import CASES, failed_with_its_job, line, together
from watcher.film import T0, Act, play
from watcher.judge import judge, report
from watcher.timeline import Span, Track, untold, untrue


def test_a_run_of_which_everything_is_true_has_no_faults() -> None:
    assert report(judge(play())) == ""


@pytest.mark.parametrize(("more", "left_out", "fault"), CASES.values(), ids=CASES.keys())
def test_what_is_not_so_is_found(more: list[tuple[float, Act]], left_out: list[float], fault: str) -> None:
    entries = play(*more, without=left_out)
    found = [f"{f.rule}: {f.what}" for f in judge(entries)]
    if fault:
        assert [f for f in found if f.startswith(fault)], found
    else:
        assert found == []


@pytest.mark.parametrize(("text", "named"), [("[promote] 08:00:30Z  loads", True), ("08:00:30Z  loads", False)])
def test_a_line_says_which_of_two_stages_at_work_it_is_of(text: str, named: bool) -> None:
    rules = {f.rule for f in judge(play(*together(), (30.0, line(text))))}
    assert ("lines name their stage" in rules) is not named


@pytest.mark.parametrize(("number", "so"), [(1, True), (2, False)])
def test_the_last_attempt_may_be_told_of_a_job_that_has_failed_with_it(number: int, so: bool) -> None:
    later = [22.0, 26.0, 30.0, 34.0, 38.0, 42.0]
    rules = {f.rule for f in judge(play(*failed_with_its_job(number), without=later))}
    assert ("stage is as said" in rules) is not so


@pytest.mark.parametrize(
    ("shown", "fact", "first"),
    [
        ((0, 50), [(0, True)], None),
        ((0, 50), [(0, True), (20, False)], 35),
        ((0, 34), [(0, True), (20, False)], None),
        ((0, 50), [(0, True), (20, False), (34, True)], None),
        ((0, 50), [(1.5, True)], None),
        ((0, 50), [(5, True)], 0),
        ((40, 40), [(0, True), (20, False)], 40),
        ((30, 30), [(0, True), (20, False)], None),
        ((30, 30), [(0, False), (31, True)], None),
    ],
)
def test_what_is_shown_may_be_fifteen_seconds_late_and_two_early(
    shown: tuple[float, float], fact: list[tuple[float, bool]], first: float | None
) -> None:
    assert untrue(Span(*shown, None), Track(False, fact), bool, end=100) == first


@pytest.mark.parametrize(
    ("so", "said", "first"),
    [((0, 10), [], None), ((0, 20), [], 15), ((0, 40), [(10, True)], None), ((0, 40), [(20, True)], 15)],
)
def test_what_is_so_for_fifteen_seconds_is_told(
    so: tuple[float, float], said: list[tuple[float, bool]], first: float | None
) -> None:
    assert untold(Span(*so, None), Track(False, said), bool, end=100) == first


def test_faults_come_in_order_with_their_time() -> None:
    entries = play((80.0, lambda f: f.say(outcome="Running")), without=[71.0])
    lines = report(judge(entries)).splitlines()
    times = [line.split()[0] for line in lines]
    assert times == sorted(times)
    assert "08:01:20.000000  done stays done: l-1: Promoted, then Running" in lines, T0
