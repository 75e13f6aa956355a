"""Builds complete iterations in a store: real frozen iterations, manifests and Parquet through `StageContext`.

The figures are made up by a seeded generator; pictures and sentences are the small world's. Nothing imports torch.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report.evaluations import benchmarks, evaluation
from report.rows import counters_of, digest, mistaken, png, schema_of
from viper.methods.stages import making, stage_graph
from viper.smallworld import language
from viper.smallworld.drawing import render
from viper.smallworld.scenes import Scene, scene_from_seed
from viper.spec import ViperIteration, parse_resource
from viper.spec.recipe import CATEGORIES
from viper.stage import FrozenIteration, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import DirectoryStore

SPLIT = 0.15


@dataclass(frozen=True)
class Plan:
    """What the built iteration looks like. `until`: the last stage that gets done (None: all of them)."""

    name: str = "demo-1"
    number: int = 1
    seed: int = 0
    images: int = 48
    decision: str = "promoted"
    until: str | None = None
    running: str | None = None
    accept: bool = True
    evaluate: bool = True
    gain: float = 0.03
    caption: str | None = None
    instruction: str | None = None
    steps: int = 24
    stages: str = "both"
    questions: bool = True
    benchmarks: bool = False


def resource(plan: Plan) -> ViperIteration:
    """The iteration's resource, with small-world engines."""
    loaded = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": plan.name},
            "spec": {
                "model": "viper-small",
                "images": {"uri": f"smallworld:scenes?count={plan.images}&seed=1"},
                "engines": {
                    "reconstructor": "smallworld",
                    "editor": "smallworld",
                    "similarity": "smallworld",
                    "imageSimilarity": "smallworld",
                },
                "evaluation": {"questions": "smallworld:questions"},
                "recipe": {
                    "prompts": "smallworld",
                    "seed": plan.seed,
                    "partSize": 16,
                    "stages": plan.stages,
                    "captions": {"samples": 40, "training": {"steps": plan.steps, "learningRate": 2e-5}},
                },
            },
        }
    )
    assert isinstance(loaded, ViperIteration)
    return loaded


def model(name: str, version: int | None = None) -> ResolvedModel:
    """A pinned model directory."""
    uri = f"file:///models/{name}"
    return ResolvedModel(uri=uri, digest=digest(name), model="viper-small", version=version)


def frozen_iteration(plan: Plan) -> FrozenIteration:
    """What `iteration.json` says."""
    base, generator = model("v1", 1), model(f"v{plan.number}", plan.number)
    return FrozenIteration(
        iteration=resource(plan),
        generator=generator,
        base=base,
        critic=generator,
        judge=base,
        alias_version=plan.number,
        tracking=Tracking(uri="sqlite:////runs/mlflow.db", parent_run=digest("run", plan.name)[:32]),
        versions={"torch": "2.15.0", "transformers": "5.23.0", "trl": "1.16.0"},
    )


def freeze(store: DirectoryStore, plan: Plan) -> FrozenIteration:
    """Writes `iteration.json`."""
    frozen = frozen_iteration(plan)
    store.put(f"{frozen.prefix}/iteration.json", json.dumps(frozen.dump()).encode())
    return frozen


def build_iteration(store: DirectoryStore, work: Path, plan: Plan | None = None) -> FrozenIteration:
    """Builds one iteration as `plan` says, stage by stage in the order of its graph."""
    p = plan or Plan()
    frozen = freeze(store, p)
    rng = random.Random(f"{p.name}-{p.seed}")
    builder = _Builder(store, work, p, frozen, rng)
    for node in stage_graph(frozen.iteration.spec.recipe):
        if p.running == node.name:
            progress = {"phase": "caption", "done": 10, "total": 64, "rate": 2.0, "updated": 0.0}
            key = f"{frozen.prefix}/stages/{node.name}/progress/0-of-1.json"
            store.put(key, json.dumps(progress).encode())
        if p.running == node.name:
            break
        builder.stage(node.name)
        if p.until == node.name:
            break
    return frozen


def build_loop(store: DirectoryStore, work: Path, iterations: int = 3, **changes: Any) -> list[str]:
    """Several promoted iterations; returns their names."""
    names = []
    for number in range(1, iterations + 1):
        plan = Plan(name=f"demo-{number}", number=number, seed=number, **changes)
        build_iteration(store, work, plan)
        names.append(plan.name)
    return names


class _Builder:
    def __init__(
        self, store: DirectoryStore, work: Path, plan: Plan, frozen: FrozenIteration, rng: random.Random
    ) -> None:
        self.store, self.work, self.plan, self.frozen, self.rng = store, work, plan, frozen, rng
        self.scenes = [scene_from_seed(1000 * plan.number + i) for i in range(plan.images)]
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def stage(self, name: str) -> None:
        ticks = iter(range(0, 10_000, 7))
        context = StageContext(
            self.frozen, self.store, name, self.work / name, clock=lambda: float(next(ticks) + self.plan.number)
        )
        make = getattr(self, name.replace("-", "_"))
        rows, outputs, needs = make()
        size, written = 16, 0
        for index, start in enumerate(range(0, len(rows), size)):
            chunk = rows[start : start + size]
            context.write_part(index, chunk, schema_of(chunk[0]), seconds=3.5, counters=counters_of(chunk))
            written = index + 1
        self.rows[name] = rows
        context.finish(needs, parts=written, outputs=outputs)

    def _accept(self, share: float, *reasons: str) -> dict[str, Any]:
        ok = self.rng.random() < share
        return {"accepted": ok, "reason": "" if ok else self.rng.choice(reasons)}

    def ingest_images(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        rows = []
        for i, scene in enumerate(self.scenes):
            image = png(render(scene, i))
            rows.append(
                {
                    "image_id": digest(self.plan.name, i),
                    "image": image,
                    "width": 96,
                    "height": 96,
                    "source": f"scene-{i}",
                    "phash": digest(i)[:16],
                    "bytes": len(image),
                    **self._accept(0.95, "near-duplicate", "too-small"),
                }
            )
        return rows, {}, []

    def synthesize_captions(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        rows = []
        for image, scene in self._pool():
            seen = mistaken(scene, self.rng)
            flaws = [language.flaw_sentence(f) for f in language.flaws(seen, scene)]
            verdict = self._accept(0.9, "invalid-json")
            rows.append(
                {
                    "sample_id": digest("caption", image["image_id"]),
                    "image_id": image["image_id"],
                    "caption": self.plan.caption or language.caption(seen),
                    "reconstruction": png(render(seen, 5)),
                    "refinement": flaws,
                    "refined_caption": language.caption(scene),
                    "attempts": 1,
                    "passport": self._passport("captions", self.frozen.generator.digest),
                    **verdict,
                }
            )
        return rows, {}, ["ingest-images"]

    def validate_captions(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        images = {r["image_id"]: r["image"] for r in self.rows["ingest-images"]}
        rows = []
        for made in self.rows["synthesize-captions"]:
            if not made["accepted"]:
                continue
            verdict = self._accept(0.85, "near-duplicate", "over-quota")
            if not made["refinement"]:
                verdict = {"accepted": False, "reason": "perfect-caption"}
            if not self.plan.accept:
                verdict = {"accepted": False, "reason": "perfect-caption"}
            rows.append(
                {
                    "sample_id": made["sample_id"],
                    "image_id": made["image_id"],
                    "image": images[made["image_id"]] if verdict["accepted"] else b"",
                    "caption": made["caption"],
                    "refinement": made["refinement"],
                    "refined_caption": made["refined_caption"],
                    "split": "held_out" if self.rng.random() < SPLIT else "train",
                    "passport": made["passport"],
                    **verdict,
                }
            )
        return rows, {}, ["synthesize-captions"]

    def synthesize_operations(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        rows = []
        for image, scene in self._pool():
            operation = language.random_operation(self.rng, scene)
            after = language.apply(scene, operation)
            chosen = language.category(operation)
            verdict = self._accept(0.85, "editor-refused", "invalid-json")
            rows.append(
                {
                    "sample_id": digest("operation", image["image_id"]),
                    "image_id": image["image_id"],
                    "category": chosen,
                    "chosen_category": self.rng.choice(CATEGORIES),
                    "steered": self.rng.random() < 0.2,
                    "entity": "the object",
                    "instruction": self.plan.instruction or language.operation_sentence(operation),
                    "edited": png(render(after or scene, 5)),
                    "editor_note": "" if verdict["accepted"] else "there is nothing at that place",
                    "attempts": 1,
                    "passport": self._passport("operations", self._author),
                    **verdict,
                }
            )
        return rows, {}, ["ingest-images"]

    def validate_operations(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        images = {r["image_id"]: r["image"] for r in self.rows["ingest-images"]}
        rows = []
        for made in self.rows["synthesize-operations"]:
            if not made["accepted"]:
                continue
            verdict = self._accept(0.75, "clip-drift", "clip-unchanged", "judge-rejected")
            if not self.plan.accept:
                verdict = {"accepted": False, "reason": "judge-rejected"}
            rows.append(
                {
                    "sample_id": made["sample_id"],
                    "image_id": made["image_id"],
                    "image": images[made["image_id"]] if verdict["accepted"] else b"",
                    "edited": made["edited"] if verdict["accepted"] else b"",
                    "category": made["category"],
                    "instruction": made["instruction"],
                    "clip_score": round(self.rng.uniform(0.7, 0.99), 3),
                    "judge_reason": "" if verdict["accepted"] else "the colour did not change",
                    "split": "held_out" if self.rng.random() < SPLIT else "train",
                    "passport": made["passport"],
                    **verdict,
                }
            )
        return rows, {}, ["synthesize-operations"]

    def train_captions(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        return self._train("train-captions", ["validate-captions"])

    def train_operations(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        needs = ["validate-operations"]
        return self._train("train-operations", [*needs, "train-captions"] if self.plan.stages == "both" else needs)

    def train_mixed(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        return self._train("train-mixed", ["validate-captions", "validate-operations"])

    def _train(self, stage: str, needs: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        start = 0.25 + 0.06 * self.plan.number
        lines = []
        for step in range(1, self.plan.steps + 1):
            rise = 0.22 * (1 - math.exp(-step / 10))
            noise = self.rng.gauss(0, 0.015)
            row = {
                "step": step,
                "reward/mean": start + rise + noise,
                "reward/std": 0.3,
                "groups/signal": 0.9 - rise,
                "shadow/recall": 0.3 + rise * 0.5 + noise,
                "shadow/items": 2.2 - rise,
                "shadow/duplicates": 0.04 + 0.02 * rise,
                "shadow/distinct": 0.8 - rise,
                "output/tokens": 41 - 10 * rise + 20 * noise,
                "output/entropy": 0.6 - rise,
                "loss": noise,
            }
            if step % 6 == 0 or step == self.plan.steps:
                row["held_out/reward"] = start + 0.8 * rise + 0.5 * noise
            lines.append(json.dumps(row))
        self.store.put(f"{self.frozen.prefix}/stages/{stage}/curves.jsonl", ("\n".join(lines) + "\n").encode())
        learnt = [
            r["sample_id"] for need in needs for r in self.rows[need] if r.get("split") == "train" and r["accepted"]
        ]
        rollouts = [json.dumps(row) for step in (1, self.plan.steps) for row in self._rollouts(step, learnt[:3])]
        key = f"{self.frozen.prefix}/stages/{stage}/rollouts/00000.jsonl"
        self.store.put(key, ("\n".join(rollouts) + "\n").encode())
        splits = [r["split"] for need in needs for r in self.rows[need] if r.get("split") and r["accepted"]]
        last = stage_graph(self.frozen.iteration.spec.recipe)[-1].model
        outputs = {
            "model": {
                "uri": f"file:///models/{self.plan.name}-{stage}",
                # The next iteration's generator, as `freeze` pins it.
                "digest": model(f"v{self.plan.number + 1}").digest if stage == last else digest(self.plan.name, stage),
            },
            "steps": self.plan.steps,
            "best_step": self.plan.steps,
            "curves": "curves.jsonl",
            "rollouts": "rollouts/",
            "samples": {"train": splits.count("train"), "held_out": splits.count("held_out")},
        }
        return [], outputs, needs

    @property
    def _author(self) -> str:
        """Digest of the checkpoint that writes operations."""
        both = self.plan.stages == "both"
        return digest(self.plan.name, "train-captions") if both else self.frozen.generator.digest

    def _passport(self, task: str, author: str) -> str:
        models = {"generator": author, **({"critic": self.frozen.critic.digest} if task == "captions" else {})}
        return json.dumps({"task": task, "models": models, "seeds": {"caption": self.plan.seed}})

    def _rollouts(self, step: int, samples: list[str]) -> list[dict[str, Any]]:
        words = self.plan.caption or "The ball is red."
        return [
            {
                "step": step,
                "sample_id": sample,
                "output": f"<think>{'Look at' if step == 1 else 'Zoom in on'} step {step}</think>{words} {k}",
                "ground_truth": ["The ball is blue."],
                "reward": 0.1 * k * prompt,
                "recall": 0.5,
                "items": 2,
            }
            for prompt, sample in enumerate(samples)
            for k in range(5)
        ]

    def evaluate(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        needs = [s for s in ("train-captions", "train-operations", "train-mixed") if s in self.rows]
        if not self.plan.evaluate:
            return [], evaluation({}), needs
        level = 0.32 + self.plan.gain * (self.plan.number - 1)
        trained = [node.score for node in making(self.frozen.nodes, "model")]
        rises = {name: level + self.plan.gain * (k + 1) / len(trained) for k, name in enumerate(trained)}
        shares = {"theta0": level, **rises}
        if self.plan.number > 1:
            shares = {"base": 0.32, **shares}
        outputs = evaluation(shares if self.plan.questions else {})
        if self.plan.benchmarks:
            outputs |= {"benchmarks": benchmarks(shares), "final": trained[-1]}
        return [], outputs, needs

    def promote(self) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
        promoted = self.plan.decision == "promoted"
        outputs = {
            "decision": self.plan.decision,
            "reason": "θ2 is not significantly worse than θ0" if promoted else "θ2 is significantly worse than θ0",
            "version": self.plan.number + 1,
            "alias": "generator",
            "previous_version": self.plan.number,
        }
        return [], outputs, ["evaluate"]

    def _pool(self) -> list[tuple[dict[str, Any], Scene]]:
        pairs = zip(self.rows["ingest-images"], self.scenes, strict=True)
        return [(row, scene) for row, scene in pairs if row["accepted"]]
