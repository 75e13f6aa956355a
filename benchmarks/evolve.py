"""Does it evolve? Several seeds of `examples/evolve.yaml`, compared with the starter on the same held-out questions.

    python benchmarks/evolve.py --dir runs/evolve

Resumable: run again, it goes on where it was, and only the analysis is repeated when all is done. The goal is the
paper's figure: at least 6 points of fine-grained accuracy after three iterations, p < 0.01 in every seed.

Statistics: per seed the exact McNemar test of `viper.evaluation.statistics`; over seeds a bootstrap that resamples
*questions* (the same ones are asked in every seed, so that answers of different seeds are not independent).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from viper.evaluation.statistics import OVERALL, Comparison, Score, Verdicts, comparisons, scores
from viper.methods.stages import EVALUATE
from viper.smallworld.supply import scenes
from viper.spec import ViperLoop, parse_resource
from viper.stage import FrozenIteration, StageContext, load_manifest
from viper.store import open_store

FINE = "fine-grained perception"
GOAL_POINTS, GOAL_P = 6.0, 0.01


@dataclass(frozen=True)
class Seed:
    """What one seed came to: verdicts of the starter and of every iteration's checkpoints."""

    seed: int
    starter: Verdicts
    checkpoints: dict[str, Verdicts]
    condition: str

    @property
    def last(self) -> Verdicts:
        """The checkpoint after the last finished iteration."""
        return list(self.checkpoints.values())[-1]


def resource(template: Path, seed: int) -> dict[str, Any]:
    """The loop of one seed: its own images, sampling and training order; the same starter and questions."""
    data: dict[str, Any] = yaml.safe_load(template.read_text("utf-8"))
    data["metadata"]["name"] = f"{data['metadata']['name']}-s{seed}"
    spec = data["spec"]["template"]
    spec.setdefault("recipe", {})["seed"] = 1000 * seed
    spec["images"]["uri"] = replace(scenes(spec["images"]["uri"]), seed=seed).uri
    return data


def run_seed(template: Path, seed: int, root: Path) -> Path:
    """Runs or resumes one seed; raises `SystemExit` when the run cannot go on."""
    directory = root / f"seed-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "loop.yaml"
    file.write_text(yaml.safe_dump(resource(template, seed), sort_keys=False, allow_unicode=True), "utf-8")
    command = [sys.executable, "-m", "viper", "run", str(file), "--dir", str(directory)]
    with (directory / "run.log").open("a") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    print(f"seed {seed}: exit {code}, log in {directory / 'run.log'}", flush=True)
    return directory


def read_seed(directory: Path, seed: int) -> Seed | None:
    """Verdicts from the object store; None when no iteration was evaluated."""
    store = open_store(str(directory / "store"))
    loop = parse_resource(yaml.safe_load((directory / "loop.yaml").read_text("utf-8")))
    assert isinstance(loop, ViperLoop)
    starter: Verdicts = {}
    found: dict[str, Verdicts] = {}
    for number in range(1, loop.spec.iterations + 1):
        prefix = f"iterations/{loop.metadata.name}-{number}"
        if (manifest := load_manifest(store, prefix, EVALUATE)) is None:
            break
        frozen = FrozenIteration.read(store.get(f"{prefix}/iteration.json"))
        verdicts: dict[str, dict[str, tuple[str, bool]]] = {}
        for row in StageContext(frozen, store, "promote", directory / "work").rows(manifest.stage):
            verdicts.setdefault(row["model"], {})[row["question_id"]] = (row["domain"], row["correct"])
        if number == 1:
            starter = verdicts["theta0"]
        for name in ("theta1", "theta2"):
            if name in verdicts:
                found[f"{number} {name}"] = verdicts[name]
    if not found:
        return None
    return Seed(seed, starter, found, "finished" if len(found) == 2 * loop.spec.iterations else "stopped early")


def pooled(seeds: list[Seed], domain: str, draws: int = 10_000) -> tuple[float, float, float]:
    """Mean difference to the starter over seeds and its 95 % interval, by bootstrap over questions."""
    ids = sorted(q for q, (d, _) in seeds[0].starter.items() if domain in (OVERALL, d))
    gain = np.array([[s.last[q][1] - s.starter[q][1] for q in ids] for s in seeds], float).mean(0)
    index = np.random.default_rng(0).integers(len(ids), size=(draws, len(ids)))
    low, high = np.quantile(gain[index].mean(1), [0.025, 0.975])
    return float(gain.mean()), float(low), float(high)


def analyse(seeds: list[Seed]) -> dict[str, Any]:
    """Everything the page in `docs/` quotes, as plain values."""
    result: dict[str, Any] = {"seeds": {}, "pooled": {}}
    for s in seeds:
        paths = {name: {d: v["accuracy"] for d, v in scores(c).items()} for name, c in s.checkpoints.items()}
        result["seeds"][s.seed] = {
            "condition": s.condition,
            "starter": scores(s.starter),
            "last": scores(s.last),
            "accuracy": {"0 starter": {d: v["accuracy"] for d, v in scores(s.starter).items()}, **paths},
            "difference": comparisons(s.starter, s.last),
        }
    for domain in [*dict.fromkeys(d for d, _ in seeds[0].starter.values()), OVERALL]:
        mean, low, high = pooled(seeds, domain)
        result["pooled"][domain] = {"difference": mean, "low": low, "high": high}
    fine = [Comparison(**result["seeds"][s.seed]["difference"][FINE]) for s in seeds]
    result["goal"] = {
        "points": GOAL_POINTS,
        "p": GOAL_P,
        "reached": all(c.difference * 100 >= GOAL_POINTS and c.p_two_sided < GOAL_P for c in fine),
    }
    return result


def show(result: dict[str, Any]) -> None:
    for seed, r in result["seeds"].items():
        print(f"\nseed {seed} ({r['condition']})")
        for domain, d in r["difference"].items():
            c, a, b = Comparison(**d), Score(**r["starter"][domain]), Score(**r["last"][domain])
            print(
                f"  {domain:24} {a.accuracy:6.1%} → {b.accuracy:6.1%}  {100 * c.difference:+5.1f} points "
                f"[{100 * c.low:+.1f}, {100 * c.high:+.1f}]  +{c.wins} −{c.losses}  p = {c.p_two_sided:.2g}"
            )
        path = " → ".join(f"{a[FINE]:.3f}" for a in r["accuracy"].values())
        print(f"  {FINE} by checkpoint: {path}")
    print("\nall seeds, difference to the starter (bootstrap over questions)")
    for domain, d in result["pooled"].items():
        print(f"  {domain:24} {100 * d['difference']:+5.1f} points [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]")
    goal = result["goal"]
    word = "reached" if goal["reached"] else "NOT reached"
    print(f"\ngoal (≥ {goal['points']:g} points of {FINE}, p < {goal['p']:g}, in every seed): {word}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/evolve"))
    parser.add_argument("--file", type=Path, default=Path("examples/evolve.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="seeds side by side (one thread each)")
    parser.add_argument("--analyse-only", action="store_true", help="run nothing, read what is there")
    args = parser.parse_args()
    if not args.analyse_only:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda s: run_seed(args.file, s, args.dir), args.seeds))
    seeds = [s for n in args.seeds if (s := read_seed(args.dir / f"seed-{n}", n)) is not None]
    if not seeds:
        print("no iteration was evaluated; see the logs", file=sys.stderr)
        return 1
    result = analyse(seeds)
    show(result)
    (args.dir / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0 if len(seeds) == len(args.seeds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
