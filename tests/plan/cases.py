"""The table of cases of `plan`: what is observed, and what follows (read by test_iteration.py)."""

from __future__ import annotations

from dataclasses import dataclass, field

from plan.builders import NOW, done, ended, observed, running, spec, upto
from viper.methods.stages import THETA0, StageNode
from viper.methods.stages import Stage as Toy
from viper.plan import (
    Action,
    Exit,
    Fail,
    Hold,
    Observed,
    ObservedStage,
    RetryAt,
    Shard,
    StartStage,
    State,
    StopStage,
)
from viper.spec import IterationSpec


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    seen: Observed
    actions: list[Action]
    outcome: str = "running"
    reason: str = ""
    message: str = ""
    states: dict[str, State] = field(default_factory=dict)
    wake_at: float | None = None
    spec: IterationSpec = field(default_factory=spec)


CAPTIONS, OPERATIONS, VALIDATE = "synthesize-captions", "synthesize-operations", "validate-captions"
PROMOTED = upto("promote")
#: A graph of stages that viper never heard of; what is decided is not its last stage.
GATHER, ASK, SIFT = Toy("gather", "images", ""), Toy("ask", "rows", "", task="q"), Toy("sift", "samples", "", task="q")
OTHER = (
    StageNode(GATHER),
    StageNode(ASK, ("gather",)),
    StageNode(SIFT, ("ask",)),
    StageNode(Toy("teach", "model", ""), ("sift",), THETA0, ("sift",)),
    StageNode(Toy("appoint", "decision", ""), ("teach",), "teach"),
    StageNode(Toy("draw", "maps", ""), ("teach", "appoint"), "teach"),
)
TAUGHT = {"gather": done(), "ask": done(), "sift": done(), "teach": done()}


def start(stage: str, shard: int = 0, shards: int = 1, attempt: int = 1) -> StartStage:
    return StartStage(stage, shard, shards, attempt)


CASES = [
    Case("nothing is there: the first stage starts", observed(), [start("ingest-images")], reason="Pending"),
    Case(
        "a cold start and the images are independent: both start",
        observed(),
        [start("ingest-images"), start("cold-start")],
        spec=spec(recipe={"coldStart": {"samplesUri": "file:///s.jsonl"}}),
    ),
    Case(
        "a stage that runs is left alone",
        observed({"ingest-images": running()}),
        [],
        reason="Running",
        states={"ingest-images": State.RUNNING, CAPTIONS: State.WAITING},
    ),
    Case(
        "a stage is done when its manifest says so, even while its process still ends",
        observed({"ingest-images": ObservedStage(shards={0: Shard(running_since=1.0)}, done=done().done)}),
        [start(CAPTIONS)],
    ),
    Case(
        "a done stage counts though its last process was killed",
        observed({"ingest-images": ObservedStage(shards={0: Shard(ended=1, last=Exit(1.0, -9))}, done=done().done)}),
        [start(CAPTIONS)],
    ),
    Case("data is there: training starts", observed(upto(VALIDATE)), [start("train-captions")]),
    Case("interleaved: operations wait for θ1", observed(upto(VALIDATE)), [start("train-captions")]),
    Case(
        "upfront: operations are written before training",
        observed(upto(VALIDATE)),
        [start(OPERATIONS), start("train-captions")],
        spec=spec(recipe={"schedule": "upfront"}),
    ),
    Case(
        "captions only: evaluation follows the first training",
        observed(upto("train-captions", spec(recipe={"stages": "captions"}))),
        [start("evaluate")],
        spec=spec(recipe={"stages": "captions"}),
    ),
    Case(
        "every shard is started",
        observed(upto("ingest-images")),
        [start(CAPTIONS, i, 3) for i in range(3)],
        spec=spec(stages={CAPTIONS: {"shards": 3}}),
    ),
    Case(
        "only the shards that are missing are started",
        observed(
            upto("ingest-images"),
            {CAPTIONS: ObservedStage(shards={0: Shard(ended=1, last=Exit(1.0, 0)), 1: Shard(running_since=1.0)})},
        ),
        [start(CAPTIONS, 2, 3)],
        spec=spec(stages={CAPTIONS: {"shards": 3}}),
        states={CAPTIONS: State.RUNNING},
    ),
    Case(
        "a shard that is through waits for the others",
        observed(
            upto("ingest-images"),
            {CAPTIONS: ObservedStage(shards={0: Shard(ended=1, last=Exit(1.0, 0)), 1: Shard(running_since=1.0)})},
        ),
        [],
        spec=spec(stages={CAPTIONS: {"shards": 2}}),
    ),
    # ---- failures
    Case(
        "after a failure nothing happens before the pause is over",
        observed({"ingest-images": ended(1, at=NOW - 1)}),
        [RetryAt("ingest-images", 0, NOW + 4)],
        reason="Retrying",
        wake_at=NOW + 4,
        states={"ingest-images": State.RETRYING},
    ),
    Case(
        "then it is tried again",
        observed({"ingest-images": ended(1, at=NOW - 5)}),
        [start("ingest-images", attempt=2)],
        reason="Retrying",
    ),
    Case(
        "the second pause is twice as long",
        observed({"ingest-images": ended(-9, times=2, at=NOW - 5)}),
        [RetryAt("ingest-images", 0, NOW + 5)],
        wake_at=NOW + 5,
    ),
    Case(
        "more failures than retries fail the iteration with the last error",
        observed({"ingest-images": ended(1, times=3, message="no space left")}),
        [Fail("ingest-images", "StageFailed", "no space left (after 3 attempts; the profile allows 2 retries)")],
        outcome="failed",
        reason="StageFailed",
        message="ingest-images: no space left (after 3 attempts; the profile allows 2 retries)",
        states={"ingest-images": State.FAILED, CAPTIONS: State.WAITING},
    ),
    Case(
        "without retries the first failure is the last",
        observed({"ingest-images": ended(1, message="boom")}),
        [Fail("ingest-images", "StageFailed", "boom (after 1 attempt; the profile allows 0 retries)")],
        outcome="failed",
        spec=spec(retries=0),
    ),
    *(
        Case(
            f"exit status {code} would be the same again: it is not tried again",
            observed({"ingest-images": ended(code, reason="InputError", message="row 7")}),
            [Fail("ingest-images", "InputError", "row 7")],
            outcome="failed",
            reason="InputError",
        )
        for code in (2, 3, 7, 9, 11)
    ),
    *(
        Case(
            f"exit status {code} (store, registry, engine, signal) is tried again",
            observed({"ingest-images": ended(code, at=0)}),
            [start("ingest-images", attempt=2)],
        )
        for code in (1, 4, 5, 8, -9, -15, 137)
    ),
    Case(
        "exit status 0 without a manifest is a failure",
        observed({"ingest-images": ended(0, at=NOW)}),
        [RetryAt("ingest-images", 0, NOW + 5)],
        reason="Retrying",
        wake_at=NOW + 5,
        message="0 of 9 stages done: ingest-images retrying (attempt 1 failed, the program exited with status 0 and "
        "left no manifest)",
    ),
    Case(
        "exit status 0 without a manifest fails the iteration in the end",
        observed({"ingest-images": ended(0, times=3)}),
        [
            Fail(
                "ingest-images",
                "ManifestMissing",
                "the program exited with status 0 and left no manifest "
                "(after 3 attempts; the profile allows 2 retries)",
            )
        ],
        outcome="failed",
        reason="ManifestMissing",
    ),
    Case(
        "all shards through without a manifest: all are tried again",
        observed(
            upto("ingest-images"),
            {CAPTIONS: ObservedStage(shards={i: Shard(ended=1, last=Exit(0.0, 0)) for i in range(2)})},
        ),
        [start(CAPTIONS, i, 2, attempt=2) for i in range(2)],
        spec=spec(stages={CAPTIONS: {"shards": 2}}),
    ),
    Case(
        "a shard's failure names the shard and stops the others",
        observed(
            upto("ingest-images"),
            {
                CAPTIONS: ObservedStage(
                    shards={0: Shard(running_since=1.0), 1: Shard(ended=1, last=Exit(0.0, 3, "E", "bad"))}
                )
            },
        ),
        [StopStage(CAPTIONS, 0, "E"), Fail(CAPTIONS, "E", "shard 1 of 2: bad")],
        outcome="failed",
        spec=spec(stages={CAPTIONS: {"shards": 2}}),
    ),
    Case(
        "a failed stage stops what runs beside it",
        observed({"ingest-images": ended(3, message="bad"), "cold-start": running()}),
        [StopStage("cold-start", 0, "StageFailed"), Fail("ingest-images", "StageFailed", "bad")],
        outcome="failed",
        spec=spec(recipe={"coldStart": {"samplesUri": "file:///s.jsonl"}}),
    ),
    Case(
        "a manifest that cannot be believed fails the iteration",
        observed({"ingest-images": ObservedStage(problem="it belongs to another iteration")}),
        [Fail("ingest-images", "ManifestInvalid", "it belongs to another iteration")],
        outcome="failed",
        reason="ManifestInvalid",
    ),
    # ---- deadlines
    Case(
        "a deadline wakes the planner",
        observed({"ingest-images": running(since=NOW - 10)}),
        [],
        wake_at=NOW + 20,
        spec=spec(deadlineSeconds=30),
    ),
    Case(
        "a stage is stopped at its deadline",
        observed({"ingest-images": running(since=NOW - 30)}),
        [StopStage("ingest-images", 0, "DeadlineExceeded")],
        spec=spec(deadlineSeconds=30),
    ),
    Case("without a deadline a stage may run for ever", observed({"ingest-images": running(since=0)}), []),
    # ---- suspension
    Case(
        "suspended: nothing starts",
        observed(suspend=True),
        [],
        outcome="suspended",
        reason="Suspended",
        states={"ingest-images": State.SUSPENDED},
    ),
    Case(
        "suspended: what runs is stopped",
        observed({"ingest-images": running()}, suspend=True),
        [StopStage("ingest-images", 0, "Suspended")],
        outcome="suspended",
    ),
    Case("suspended after the end: it stays promoted", observed(PROMOTED, suspend=True), [], outcome="promoted"),
    Case(
        "suspended: a failure stays a failure",
        observed({"ingest-images": ObservedStage(problem="bad")}, suspend=True),
        [Fail("ingest-images", "ManifestInvalid", "bad")],
        outcome="failed",
    ),
    # ---- holds
    Case(
        "no image was accepted: held, with the reasons",
        observed({"ingest-images": done(0, rejected={"too-small": 3, "unreadable-image": 5})}),
        [
            Hold(
                "ingest-images",
                "NoData",
                "nothing was accepted. Acceptance: ingest-images 0 of 8 (unreadable-image 5, too-small 3).",
            )
        ],
        outcome="held",
        reason="NoData",
        states={"ingest-images": State.HELD, CAPTIONS: State.WAITING},
    ),
    Case(
        "too few training samples: held, with the whole funnel",
        observed(
            {
                "ingest-images": done(40, rejected={"near-duplicate": 10}),
                CAPTIONS: done(12, rejected={"invalid-json": 28}),
                VALIDATE: done(3, rejected={"perfect-caption": 9}, train=2),
            }
        ),
        [
            Hold(
                VALIDATE,
                "TooFewSamples",
                "2 accepted training samples, recipe.validation.minimumSamples is 8. Acceptance: ingest-images 40 of "
                "50 (near-duplicate 10); synthesize-captions 12 of 40 (invalid-json 28); validate-captions 3 of 12 "
                "(perfect-caption 9).",
            )
        ],
        outcome="held",
        reason="TooFewSamples",
        spec=spec(recipe={"validation": {"minimumSamples": 8}}),
    ),
    Case(
        "held-out samples do not count as training samples",
        observed(upto(VALIDATE, validate_captions=done(8, train=0))),
        [
            Hold(
                VALIDATE,
                "TooFewSamples",
                "0 accepted training samples, recipe.validation.minimumSamples is 1. Acceptance: ingest-images 10 of "
                "10; synthesize-captions 10 of 10; validate-captions 8 of 8.",
            )
        ],
        outcome="held",
    ),
    Case(
        "exactly the minimum is enough",
        observed(upto(VALIDATE, validate_captions=done(8, train=8))),
        [start("train-captions")],
        spec=spec(recipe={"validation": {"minimumSamples": 8}}),
    ),
    Case(
        "the operations' funnel leaves the captions out",
        observed(upto("validate-operations", validate_operations=done(0, rejected={"judge-rejected": 10}))),
        [
            Hold(
                "validate-operations",
                "TooFewSamples",
                "0 accepted training samples, recipe.validation.minimumSamples is 1. Acceptance: ingest-images 10 of "
                "10; synthesize-operations 10 of 10; validate-operations 0 of 10 (judge-rejected 10).",
            )
        ],
        outcome="held",
    ),
    Case(
        "a hold stops what runs beside it",
        observed(upto("ingest-images", ingest_images=done(0)), {"cold-start": running()}),
        [
            StopStage("cold-start", 0, "NoData"),
            Hold("ingest-images", "NoData", "nothing was accepted. Acceptance: ingest-images 0 of 0."),
        ],
        outcome="held",
        spec=spec(recipe={"coldStart": {"samplesUri": "file:///s.jsonl"}}),
    ),
    Case(
        "the gate held the promotion",
        observed(upto("promote", promote=done(0, decision="held", reason="θ2 is worse, p = 0.01", version=2))),
        [Hold("promote", "PromotionHeld", "θ2 is worse, p = 0.01")],
        outcome="held",
        reason="PromotionHeld",
        message="promote: θ2 is worse, p = 0.01",
    ),
    # ---- the end
    Case(
        "promoted",
        observed(PROMOTED),
        [],
        outcome="promoted",
        reason="Promoted",
        message="version 2",
        states={"promote": State.SUCCEEDED},
    ),
    Case(
        "registered for a person to promote",
        observed(upto("promote", promote=done(0, decision="registered", version=3, reason="policy Manual"))),
        [],
        outcome="registered",
        reason="Registered",
        message="version 3, policy Manual",
    ),
    Case(
        "another method: its stages start in the order of its graph",
        observed({"gather": done()}, nodes=OTHER),
        [start("ask")],
        reason="Pending",
        states={"gather": State.SUCCEEDED, "sift": State.WAITING, "draw": State.WAITING},
    ),
    Case(
        "another method: what makes rows and accepted none holds",
        observed({"gather": done(), "ask": done(0, rejected={"odd": 3})}, nodes=OTHER),
        [Hold("ask", "NoData", "nothing was accepted. Acceptance: gather 10 of 10; ask 0 of 3 (odd 3).")],
        outcome="held",
        reason="NoData",
    ),
    Case(
        "another method: what makes samples holds with the funnel of what fed it",
        observed({"gather": done(), "ask": done(4), "sift": done(0)}, nodes=OTHER),
        [
            Hold(
                "sift",
                "TooFewSamples",
                "0 accepted training samples, recipe.validation.minimumSamples is 1. "
                "Acceptance: gather 10 of 10; ask 4 of 4; sift 0 of 0.",
            )
        ],
        outcome="held",
        reason="TooFewSamples",
    ),
    Case(
        "another method: what decides may hold",
        observed(TAUGHT, {"appoint": done(decision="held", reason="not yet")}, nodes=OTHER),
        [Hold("appoint", "PromotionHeld", "not yet")],
        outcome="held",
        reason="PromotionHeld",
    ),
    Case(
        "another method: what is decided need not be decided last",
        observed(TAUGHT, {"appoint": done(decision="promoted", version=7), "draw": done()}, nodes=OTHER),
        [],
        outcome="promoted",
        reason="Promoted",
        message="version 7",
    ),
]
