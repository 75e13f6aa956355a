"""An iteration of another method: stages, tasks and models that this code has never heard of, and two trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report.evaluations import evaluation
from report.report_builders import Plan, frozen_iteration, model
from report.rows import digest, schema_of
from viper.methods.stages import THETA0, Stage, StageNode
from viper.stage import FrozenIteration, StageContext
from viper.store import DirectoryStore

NAME = "riddles-1"
GRAPH = (
    StageNode(Stage("gather", "images", "pictures")),
    StageNode(Stage("write-riddles", "rows", "riddles", task="riddles", title="Riddles", second="judge"), ("gather",)),
    StageNode(
        Stage("drop-easy", "samples", "riddles", texts=("riddle", "answer"), second="critic"), ("write-riddles",)
    ),
    StageNode(Stage("supply-jokes", "samples", "jokes", texts=("riddle",), images_beside=False)),
    StageNode(
        Stage("solve-riddles", "model", "steps", task="riddles", label="solver", score="solver"),
        ("drop-easy",),
        THETA0,
        ("drop-easy",),
    ),
    StageNode(
        Stage("tell-jokes", "model", "steps"), ("supply-jokes", "solve-riddles"), "solve-riddles", ("supply-jokes",)
    ),
    StageNode(Stage("ask", "scores", "answers"), ("solve-riddles", "tell-jokes"), "tell-jokes"),
    StageNode(Stage("choose", "decision", "decisions"), ("ask", "tell-jokes"), "tell-jokes"),
)


def build(store: DirectoryStore, work: Path) -> FrozenIteration:
    """Freezes it, and finishes every stage."""
    frozen = frozen_iteration(Plan(name=NAME)).model_copy(update={"graph": GRAPH})
    store.put(f"{frozen.prefix}/iteration.json", json.dumps(frozen.dump()).encode())
    passport = json.dumps({"models": {"generator": frozen.generator.digest, "critic": frozen.base.digest}})
    pool = [{"image_id": digest(i), "source": f"picture-{i}", "image": b"", "accepted": True} for i in range(4)]
    riddles = [
        {
            "sample_id": digest("riddle", row["image_id"]),
            "image_id": row["image_id"],
            "riddle": f"What is picture {i}?",
            "answer": "a <ball>",
            "split": "train",
            "passport": passport,
            "accepted": i > 0,
        }
        for i, row in enumerate(pool)
    ]
    jokes = [{**row, "sample_id": digest("joke", i), "accepted": True} for i, row in enumerate(riddles[:2])]
    rows: dict[str, list[dict[str, Any]]] = {
        "gather": pool,
        "write-riddles": [{**row, "accepted": True} for row in riddles],
        "drop-easy": riddles,
        "supply-jokes": jokes,
    }
    outputs: dict[str, dict[str, Any]] = {
        "solve-riddles": _trained(store, frozen, "solve-riddles", riddles[1]["sample_id"]),
        "tell-jokes": _trained(store, frozen, "tell-jokes", jokes[0]["sample_id"]),
        "ask": evaluation({"theta0": 0.3, "solver": 0.35, "tell-jokes": 0.4}, ("solver", "tell-jokes")),
        "choose": {"decision": "promoted", "reason": "it laughs", "version": 2, "alias": "generator"},
    }
    for node in GRAPH:
        ctx = StageContext(frozen, store, node.name, work / node.name, clock=lambda: 0.0)
        made = [{**row, "reason": "" if row["accepted"] else "too-easy"} for row in rows.get(node.name, [])]
        if made:
            ctx.write_part(0, made, schema_of(made[0]), counters={"riddle.requests": 4, "riddle.attempts": 5})
        ctx.finish(node.needs, parts=1 if made else 0, outputs=outputs.get(node.name, {}))
    return frozen


def _trained(store: DirectoryStore, frozen: FrozenIteration, stage: str, sample: str) -> dict[str, Any]:
    prefix = f"{frozen.prefix}/stages/{stage}"
    curves = [{"step": step, "reward/mean": 0.2 * step} for step in (1, 2)]
    store.put(f"{prefix}/curves.jsonl", b"\n".join(json.dumps(row).encode() for row in curves))
    rollout = {"step": 1, "sample_id": sample, "output": "a ball", "reward": 0.5, "recall": 1.0, "items": 1}
    store.put(f"{prefix}/rollouts/00000.jsonl", json.dumps(rollout).encode())
    made = model("v2")
    return {
        "model": {"uri": made.uri, "digest": made.digest if stage == "tell-jokes" else digest(stage)},
        "steps": 2,
        "best_step": 2,
        "curves": "curves.jsonl",
        "rollouts": "rollouts/",
    }
