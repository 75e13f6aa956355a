"""What `kubectl viper status` prints, from objects to lines."""

from __future__ import annotations

import pytest
from plugin_builders import NOW, condition, iteration, loop, stage

from viper.terminal import printed
from viper_operator.plugin.view import (
    Iteration,
    Loop,
    age,
    iteration_data,
    iteration_node,
    loop_node,
    ordered,
    table,
)

GENERATOR = {"model": "m", "version": 5, "uri": "s3://viper/models/5", "digest": "sha256:5"}
RUNNING = iteration(
    "evolve-2",
    "Running",
    stage("freeze", "Succeeded", headline="generator is version 5 of m", startedAt="2026-11-20T09:30:00Z",
          finishedAt="2026-11-20T09:30:07Z"),
    stage("ingest-images", "Succeeded", seconds=62.4, headline="512 of 520 accepted (small 8)"),
    stage(
        "synthesize-captions",
        "Running",
        startedAt="2026-11-20T10:00:00Z",
        gpuSeconds=57600.0,
        items={"done": 412, "total": 512, "rate": 0.14, "etaSeconds": 714.0},
    ),
    stage("validate-captions", "Waiting", message="waits for synthesize-captions"),
    loop="evolve",
    generator=GENERATOR,
    gpuSeconds=57600.0,
    progress="412/512 synthesize-captions, 12 min left",
)  # fmt: skip
PROMOTED = iteration(
    "evolve-1", "Promoted", stage("freeze", "Succeeded"), loop="evolve", version=5, score="80.3 % (+8.4)"
)


def lines_of(one: Iteration) -> list[str]:
    return printed(iteration_node(one, NOW)).split("\n")


def test_an_iteration_shows_its_stages_with_time_gpu_time_progress_rate_and_what_they_made() -> None:
    assert lines_of(Iteration(RUNNING)) == [
        "evolve-2  Running  θ0: m version 5  16.0 GPU-h",
        "├─ ✔ freeze                 Succeeded          7.0 s                generator is version 5 of m",
        "├─ ✔ ingest-images          Succeeded     1 min 02 s                512 of 520 accepted (small 8)",
        "├─ ▶ synthesize-captions    Running       2 h 00 min    16.0 GPU-h  412/512 (0.14/s, 11 min 54 s left)",
        "└─   validate-captions      Waiting",
    ]


def test_trouble_of_pods_stands_below_its_stage() -> None:
    lines = lines_of(Iteration(RUNNING, {"synthesize-captions": ["2 pods: Unschedulable: no node"]}))
    assert lines[4:6] == [
        "│       ! 2 pods: Unschedulable: no node",
        "└─   validate-captions      Waiting",
    ]


def test_what_the_operator_says_of_pods_is_not_said_twice() -> None:
    waits = stage("evaluate", "Pending", message="pod p waits for a node: no GPU")
    body = iteration("it", "Running", waits)
    assert lines_of(Iteration(body))[1].endswith("  pod p waits for a node: no GPU")
    assert lines_of(Iteration(body, {"evaluate": ["Unschedulable: no GPU"]}))[1:] == [
        "└─   evaluate               Pending",
        "        ! Unschedulable: no GPU",
    ]


def test_trouble_of_an_earlier_attempt_is_not_shown_once_the_stage_is_done() -> None:
    assert lines_of(Iteration(RUNNING, {"freeze": ["attempt failed, OOMKilled"]})) == lines_of(Iteration(RUNNING))


def test_what_belongs_to_no_stage_stands_below_the_iteration() -> None:
    assert lines_of(Iteration(RUNNING, {"": ["troubles are not shown"]}))[1] == "│    ! troubles are not shown"


@pytest.mark.parametrize(
    ("outcome", "conditions", "expected"),
    [
        ("Held", [condition("Succeeded", "False", "PromotionHeld", "promote: worse")], "it  Held  promote: worse"),
        ("Failed", [condition("Succeeded", "False", "OOMKilled", "evaluate: killed")], "it  Failed  evaluate: killed"),
        ("Running", [condition("Succeeded", "Unknown", "Running", "1 of 9 stages done")], "it  Running"),
        (
            "Running",
            [
                condition("Succeeded", "Unknown", "Running"),
                condition("GeneratorCurrent", "False", "AliasMoved", "moved"),
            ],
            "it  Running  moved",
        ),
    ],
    ids=["held", "failed", "running", "alias-moved"],
)
def test_the_first_line_says_why_when_a_person_has_to_know(outcome: str, conditions: object, expected: str) -> None:
    assert lines_of(Iteration(iteration("it", outcome, conditions=conditions)))[0] == expected


def test_an_iteration_without_status_says_that_nobody_has_looked_at_it() -> None:
    body = iteration("it", "Running")
    del body["status"]
    assert lines_of(Iteration(body)) == ["it  Unseen  no operator has looked at it yet"]
    assert not Iteration(body).finished


def test_a_status_older_than_the_spec_is_not_final() -> None:
    body = iteration("it", "Failed")
    assert Iteration(body).finished
    body["metadata"]["generation"] = 2
    assert not Iteration(body).finished


@pytest.mark.parametrize(("asked", "finished"), [("1", True), ("2", False), ("soon", True)])
def test_a_retry_that_nobody_has_begun_is_not_the_end(asked: str, finished: bool) -> None:
    body = iteration("it", "Failed", retries=1)
    body["metadata"]["annotations"] = {"viper.dev/retry": asked}
    assert Iteration(body).finished is finished


def test_a_loop_shows_the_stages_of_the_iterations_that_are_not_promoted() -> None:
    body = loop("evolve", "Unknown", "Running", iteration=2, of=3, current="evolve-2", version=5, gpuSeconds=200000.0)
    lines = printed(loop_node(Loop(body, (Iteration(PROMOTED), Iteration(RUNNING))), NOW)).split("\n")
    assert lines[:4] == [
        "evolve  Running  iteration 2 of 3  promoted: version 5  55.6 GPU-h",
        "├─ evolve-1  Promoted  version 5  80.3 % (+8.4)",
        "└─ evolve-2  Running  θ0: m version 5  16.0 GPU-h",
        "   ├─ ✔ freeze                 Succeeded          7.0 s                generator is version 5 of m",
    ]
    wide = printed(loop_node(Loop(body, (Iteration(PROMOTED), Iteration(RUNNING))), NOW, wide=True)).split("\n")
    assert wide[2] == "│  └─ ✔ freeze                 Succeeded"


@pytest.mark.parametrize(
    ("summary", "reason", "suspend", "state", "finished"),
    [
        ("Unknown", "Running", False, "Running", False),
        ("Unknown", "Suspended", True, "Suspended", False),
        ("True", "AllIterationsDone", False, "Succeeded", True),
        ("False", "IterationHeld", False, "IterationHeld", True),
        ("False", "BudgetSpent", False, "BudgetSpent", True),
    ],
)
def test_a_loops_state_is_its_summary(summary: str, reason: str, suspend: bool, state: str, finished: bool) -> None:
    body = loop("l", summary, reason)
    body["spec"]["suspend"] = suspend
    assert (Loop(body).state, Loop(body).finished) == (state, finished)


def test_a_loop_is_not_at_its_end_while_an_iteration_is_tried_again() -> None:
    body, failed = loop("l", "False", "IterationFailed"), iteration("l-1", "Failed", loop="l")
    assert Loop(body, (Iteration(failed),)).finished
    failed["metadata"]["annotations"] = {"viper.dev/retry": "1"}
    assert not Loop(body, (Iteration(failed),)).finished


def test_the_table_has_loops_with_their_iterations_then_the_others() -> None:
    body = loop("evolve", "Unknown", "Running", iteration=2, of=3, current="evolve-2", version=5, gpuSeconds=200000.0)
    single = iteration("alone", "Held", stage("evaluate", "Held"), progress="evaluate: PromotionHeld")
    lines = table([Loop(body, (Iteration(PROMOTED), Iteration(RUNNING)))], [Iteration(single)], NOW)
    cells = [[c.strip() for c in line.split("   ") if c.strip()] for line in lines]
    assert cells == [
        ["NAME", "STATE", "PROGRESS", "GENERATOR", "VERSION", "SCORE", "GPU-H", "AGE"],
        ["evolve", "Running", "iteration 2 of 3", "5", "55.6", "3d"],
        ["├─ evolve-1", "Promoted", "5", "80.3 % (+8.4)", "2h"],
        ["└─ evolve-2", "Running", "412/512 synthesize-captions, 12 min left", "5", "16.0", "2h"],
        ["alone", "Held", "evaluate: PromotionHeld", "2h"],
    ]
    starts = [lines[0].index(name) for name in ("STATE", "GENERATOR", "AGE")]
    assert [lines[3][i:].split("  ")[0] for i in starts] == ["Running", "5", "2h"]
    assert table([], [Iteration(single)], NOW, namespaces=True)[1].startswith("ns          alone")


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-11-20T11:59:19Z", "41s"),
        ("2026-11-20T11:58:00Z", "2m"),
        ("2026-11-20T10:00:00Z", "2h"),
        ("2026-11-18T12:00:00Z", "2d"),
        ("2026-11-20T12:00:09Z", "0s"),
    ],
)
def test_age_is_written_as_kubectl_writes_it(created: str, expected: str) -> None:
    assert age({"metadata": {"creationTimestamp": created}}, NOW) == expected


def test_iterations_of_a_loop_are_ordered_by_number() -> None:
    names = [i.name for i in ordered(Iteration(iteration(f"l-{n}", "Running")) for n in (10, 2, 1))]
    assert names == ["l-1", "l-2", "l-10"]


def test_plain_data_has_the_status_and_the_troubles() -> None:
    data = iteration_data(Iteration(RUNNING, {"synthesize-captions": ["x"]}))
    assert data["state"] == "Running"
    assert data["status"]["stages"][2]["items"]["etaSeconds"] == 714.0
    assert data["problems"] == {"synthesize-captions": ["x"]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"state": "Succeeded", "seconds": 15.6, "activeSeconds": 75, "headline": "24 steps"},
            "✔ train-captions         Succeeded     1 min 15 s                24 steps; 15.6 s of that in the work "
            "itself",
        ),
        (
            {"state": "Succeeded", "seconds": 70.0, "activeSeconds": 75, "headline": "24 steps",
             "startedAt": "2026-11-20T09:00:00Z", "finishedAt": "2026-11-20T11:00:00Z"},
            "✔ train-captions         Succeeded     1 min 15 s                24 steps",
        ),
        (
            {"state": "Running", "startedAt": "2026-11-20T09:00:00Z", "activeSince": "2026-11-20T11:59:30Z",
             "activeSeconds": 100,
             "items": {"done": 3, "total": 24, "phase": "train", "waiting": "starting the trainer"}},
            "▶ train-captions         Running       2 min 10 s                train 3/24, starting the trainer",
        ),
        (
            {"state": "Running", "startedAt": "2026-11-20T11:59:30Z", "activeSeconds": 0,
             "activeSince": "2026-11-20T11:59:40Z",
             "items": {"done": 0, "total": 320, "phase": "critique", "step": 3, "steps": 3}},
            "▶ train-captions         Running           20.0 s                critique (3 of 3) 0/320",
        ),
        (
            {"state": "Suspended", "startedAt": "2026-11-20T09:00:00Z", "activeSeconds": 100},
            "‖ train-captions         Suspended     1 min 40 s",
        ),
        (
            {"state": "Running", "startedAt": "2026-11-20T11:59:30Z"},
            "▶ train-captions         Running           30.0 s",
        ),
        (
            {"state": "Failed", "message": "it broke\n  → mend it", "activeSeconds": 5},
            "✘ train-captions         Failed             5.0 s                it broke → mend it",
        ),
    ],
    ids=["work", "suspended-for-long", "resumed", "phase", "suspended", "operator-of-before", "one-line"],
)  # fmt: skip
def test_a_stage_is_told_without_its_suspensions_and_with_what_it_does(
    fields: dict[str, object], expected: str
) -> None:
    body = iteration(
        "it", "Running", {"name": "train-captions", "reason": "", "message": "", "gpuSeconds": 0.0, **fields}
    )
    assert lines_of(Iteration(body))[1] == f"└─ {expected}"
