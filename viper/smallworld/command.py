"""`viper smallworld`: pictures of the small world, and the training of the models that belong to it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from viper.cli.options import folder, whole
from viper.errors import InputError
from viper.words import plural

_EXAMPLE = """\
examples:
  viper smallworld draw --out pictures --count 12
  viper smallworld draw --out ring.png --caption 'At top left is a small striped red ring.'
  viper smallworld train-similarity --out /tmp/similarity
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `smallworld` with its actions."""
    parser = subparsers.add_parser(
        "smallworld",
        help="the CPU-sized world: its pictures and its models",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    draw = actions.add_parser("draw", help="draw scenes with their true captions, or what a caption says")
    draw.add_argument("--out", type=Path, required=True, metavar="PATH", help="folder; with --caption a PNG file")
    draw.add_argument(
        "--count",
        type=whole(1, 1_000_000, "number of scenes"),
        default=9,
        metavar="N",
        help="number of scenes (default %(default)s)",
    )
    draw.add_argument(
        "--seed", type=whole(0, 2**31 - 1, "seed"), default=0, metavar="N", help="first scene (default %(default)s)"
    )
    draw.add_argument("--caption", metavar="TEXT", help="draw this caption, as the reconstructor does")
    for name, steps, text in (
        ("train-starter", None, "train the starter model that a first iteration begins from (about 25 minutes)"),
        ("train-similarity", 6000, "train the sentence similarity of the reward (about five minutes)"),
        ("train-clip", 600, "train the CLIP model of the edit filter (about three minutes)"),
    ):
        train = actions.add_parser(name, help=text)
        train.add_argument("--out", type=Path, required=True, metavar="DIRECTORY", help="model directory to write")
        train.add_argument(
            "--seed",
            type=whole(0, 2**31 - 1, "seed"),
            default=0,
            metavar="N",
            help="seed of weights and data (default 0)",
        )
        if steps is not None:
            train.add_argument(
                "--steps",
                type=whole(1, 10**7, "number of steps"),
                default=steps,
                metavar="N",
                help="optimiser steps (default %(default)s)",
            )
        train.add_argument(
            "--threads",
            type=whole(1, 4096, "number of threads"),
            default=1,
            metavar="N",
            help="CPU threads (default %(default)s)",
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does the chosen action; returns the exit status."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "draw": _draw,
        "train-starter": _train_starter,
        "train-similarity": _train_similarity,
        "train-clip": _train_clip,
    }
    if args.action != "draw":
        folder(args.out, "--out")
        import torch

        torch.set_num_threads(args.threads)
    actions[args.action](args)
    return 0


def _draw(args: argparse.Namespace) -> None:
    """Writes `scene-<seed>.png` files and `truth.jsonl` (file, caption), or one picture of a caption."""
    from viper.smallworld.drawing import render
    from viper.smallworld.language import caption
    from viper.smallworld.reconstructor import imagined
    from viper.smallworld.scenes import scene_from_seed

    if args.caption is not None:
        if args.out.suffix.lower() != ".png":
            raise InputError("a caption is drawn into one PNG file", where="--out", fix="name a file that ends in .png")
        folder(args.out.parent, "--out").mkdir(parents=True, exist_ok=True)
        render(imagined(args.caption, args.seed), args.seed).save(args.out)
        print(args.out)
        return
    folder(args.out, "--out").mkdir(parents=True, exist_ok=True)
    with (args.out / "truth.jsonl").open("w", encoding="utf-8") as truth:
        for seed in range(args.seed, args.seed + args.count):
            scene = scene_from_seed(seed)
            name = f"scene-{seed}.png"
            render(scene, seed).save(args.out / name)
            truth.write(json.dumps({"file": name, "caption": caption(scene)}) + "\n")
    print(f"{plural(args.count, 'scene')} and the captions (truth.jsonl) in {args.out}")


def _train_starter(args: argparse.Namespace) -> None:
    from viper.smallworld.making.starter import main

    main(["--out", str(args.out), "--seed", str(args.seed), "--threads", str(args.threads)])
    print(f"starter model written to {args.out}")


def _train_similarity(args: argparse.Namespace) -> None:
    from viper.smallworld.making.similarity_training import discrimination, train_similarity
    from viper.smallworld.similarity import SmallWorldSimilarity

    train_similarity(args.out, args.seed, args.steps, log=_timed())
    shares = discrimination(SmallWorldSimilarity(args.out))
    print(f"similarity model written to {args.out}; share of fresh pairs at or above 0.85:")
    _figures(shares)


def _train_clip(args: argparse.Namespace) -> None:
    from viper.smallworld.making.clip_training import train_clip

    measured = train_clip(args.out, args.seed, args.steps, log=_timed())
    print(f"CLIP model written to {args.out}:")
    _figures(measured)


def _figures(measured: Mapping[str, float]) -> None:
    from viper.terminal import columns

    print(*columns(((name, f"{value:.4f}") for name, value in measured.items()), indent=2), sep="\n")


def _timed() -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: print(f"{text}  {time.monotonic() - started:.0f} s", flush=True)
