"""`viper reward calibrate`: whether a similarity model can carry the reward, before GPU-hours are spent on it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from viper.cli.options import SHARE, device, whole
from viper.engines import factory
from viper.extensions import extensions, load
from viper.reward.calibration import Calibration, CalibrationLimits, calibrate, read_pairs
from viper.reward.equations import RewardParameters
from viper.terminal import columns

_EXAMPLE = """\
examples:
  viper reward calibrate
  viper reward calibrate --similarity bge-m3:/models/bge-m3 --device cuda
  viper reward calibrate --similarity bge-m3:/models/bge-m3 --pairs pairs.jsonl
rows of pairs.jsonl:
  {"truth": "The cup is left of the plate.", "said": "Left of the plate is the cup.", "kind": "paraphrase"}
  {"truth": "The cup is left of the plate.", "said": "The cup is right of the plate.", "kind": "relation"}
"""


#: The extension whose similarity model and pairs are taken where none are named.
_WORLD = "smallworld"


def add_action(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `calibrate` to the actions of `reward`."""
    parser = actions.add_parser(
        "calibrate",
        help="measure how well a similarity model tells wrong details from other words, at τ",
        description="Compares ground truths with paraphrases and with sentences in which one thing is wrong. Returns 1 "
        "when it warns.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    limits = CalibrationLimits()
    parser.add_argument("--similarity", default=_WORLD, metavar="ENGINE", help="similarity engine (%(default)s)")
    parser.add_argument("--device", type=device, default="cpu", help="torch device (%(default)s)")
    parser.add_argument("--tau", type=SHARE, default=RewardParameters().tau, help="τ of the reward (%(default)s)")
    parser.add_argument(
        "--pairs", type=Path, metavar="FILE", help="pairs of one's own as JSONL; else the small world's"
    )
    parser.add_argument(
        "--count",
        type=whole(1, 100_000, "number of pairs"),
        default=300,
        metavar="N",
        help="small world: pairs of each kind (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**31 - 1, "seed"), default=0, help="small world: which pairs (%(default)s)"
    )
    parser.add_argument(
        "--least-paraphrases",
        type=SHARE,
        default=limits.paraphrases,
        metavar="SHARE",
        help="warn when fewer of them hit (%(default)s)",
    )
    parser.add_argument(
        "--most-counterfactuals",
        type=SHARE,
        default=limits.counterfactuals,
        metavar="SHARE",
        help="warn when more of a kind hit (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Prints the table and the warnings; 1 when there are any."""
    pairs = read_pairs(args.pairs) if args.pairs else load(extensions()[_WORLD].pairs)(args.count, args.seed)
    model = factory.similarity(args.similarity, args.device)
    limits = CalibrationLimits(args.least_paraphrases, args.most_counterfactuals)
    found = calibrate(model, pairs, args.tau, limits)
    if args.json:
        print(json.dumps({"similarity": model.engine_id, **asdict(found)}, ensure_ascii=False, indent=2))
    else:
        print(table(found, model.engine_id))
    return 1 if found.warnings else 0


def table(found: Calibration, similarity: str) -> str:
    """A row per kind, the threshold that would separate best, and the warnings."""
    rows: list[tuple[str, ...]] = [("", "pairs", "≥ τ", "cosine 5 %", "median", "95 %", "separation")]
    for k in found.kinds:
        separation = "" if k.separation is None else f"{k.separation:.3f}"
        figures = (f"{figure:.3f}" for figure in (k.low, k.median, k.high))
        rows.append((k.kind, str(k.pairs), f"{k.hits:.1%}", *figures, separation))
    lines = [
        f"similarity {similarity}, τ = {found.tau:g}",
        "",
        *map(str, columns(rows, right=range(1, 7), least={0: 12, 2: 7, 5: 6})),
        "",
        f"best separated at τ = {found.best_tau:.3f}: {found.best_paraphrases:.1%} of the paraphrases, at most "
        f"{found.best_counterfactuals:.1%} of a kind that is wrong",
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in found.warnings)])
