"""`viper models pull|list|convert`: the model cache by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.modelcache import ModelCache


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `models`."""
    parser = subparsers.add_parser(
        "models",
        help="the model cache: fill it, see what is there",
        description="The model cache: $VIPER_MODEL_CACHE, else $VIPER_CACHE, else ~/.cache/viper.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    pull = actions.add_parser(
        "pull",
        help="fetch models into the cache",
        description="Fetches what is not in the cache, and repairs what is damaged. Broken off, it goes on with the "
        "files that are complete. Any number may run at once.",
    )
    pull.add_argument(
        "what",
        nargs="*",
        metavar="FILE|URI",
        help="YAML of an iteration or a loop: all its models; or hf://org/name@revision, s3://…, models:/name@alias",
    )
    pull.add_argument("--update", action="store_true", help="ask the hub again what a branch means")
    pull.add_argument("--tracking-uri", metavar="URI", help="MLflow of models:/ (default: $MLFLOW_TRACKING_URI)")
    pull.add_argument("--iteration", metavar="URI", help="a frozen iteration: <store URI>/iterations/<name>")
    pull.add_argument("--stage", metavar="STAGE", help="the stage of --iteration whose models are meant")
    pull.add_argument("--termination-log", type=Path, metavar="FILE", help="receives the last error as JSON")
    listing = actions.add_parser("list", help="what is in the cache", description="Lists the cache.")
    listing.add_argument("--verify", action="store_true", help="read every byte and compare digests")
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table", help="form of the output")
    conversion = actions.add_parser(
        "convert",
        help="make safetensors of a model that is published as a pickle",
        description="Writes TARGET with the weights of SOURCE/pytorch_model.bin as safetensors and the files beside "
        "it. The pickle is read by torch's restricted reader; other pickles and code are left out.",
    )
    conversion.add_argument("source", type=Path, metavar="SOURCE", help="directory with pytorch_model.bin")
    conversion.add_argument("target", type=Path, metavar="TARGET", help="directory to make")
    for action in (pull, listing):
        action.add_argument("--cache", type=Path, metavar="DIR", help="another cache")


def run(args: argparse.Namespace) -> int:
    """Does it; `list` returns 1 when something is damaged."""
    from viper.cli.options import folder
    from viper.errors import InputError, ViperError
    from viper.modelcache import ModelCache, model_cache
    from viper.modelcache.convert import PICKLE, WEIGHTS, convert
    from viper.stage.termination import leave_message, stoppable

    if args.action == "convert":
        digest = convert(args.source, args.target)
        print(f"{args.source / PICKLE}\n  has the SHA-256 {digest}\n  is now {args.target / WEIGHTS}")
        return 0
    cache = ModelCache(folder(args.cache, "--cache")) if args.cache is not None else model_cache()
    if args.action == "list":
        if args.cache is not None and not args.cache.is_dir():
            raise InputError("there is no such folder", where=f"--cache {args.cache}")
        folder(cache.root, "VIPER_MODEL_CACHE")
        return _list(args, cache)
    try:
        with stoppable():  # it fills a pod's cache as the first process of its container
            return _pull(args, cache)
    except ViperError as error:
        leave_message(args.termination_log, type(error).__name__, str(error))
        raise


def _pull(args: argparse.Namespace, cache: ModelCache) -> int:
    from urllib.parse import unquote, urlsplit

    from viper.errors import InputError, SpecError
    from viper.modelcache import fetch
    from viper.modelcache.pull import of_stage, wanted
    from viper.modelcache.reporting import FetchProgress

    if bool(args.iteration) != bool(args.stage) or bool(args.what) == bool(args.iteration):
        raise SpecError("name files or URIs, or a frozen iteration and a stage", fix="viper models pull FILE|URI…")
    registry = None
    if args.tracking_uri is not None:
        from viper.registry import existing_registry

        registry = existing_registry(args.tracking_uri)
    if args.iteration:
        models = of_stage(args.iteration, args.stage)
    else:
        models = [(uri, "") for what in args.what for uri in wanted(what)]
    report = FetchProgress()
    for uri, digest in models:
        if uri.startswith("file://"):
            if not Path(unquote(urlsplit(uri).path)).is_dir():
                raise InputError("there is no such directory", where=uri, fix="correct the path, or mount its volume")
            print(f"{uri} is local: nothing to fetch")
            continue
        entry = fetch(uri, cache, registry=registry, update=args.update, report=report)
        if digest not in ("", entry.digest):
            raise InputError(
                f"its digest is {entry.digest}, the iteration was frozen with {digest}",
                where=uri,
                fix="restore the model, or start a new iteration",
            )
        print(f"{uri}\n  is {entry.pinned} ({entry.digest}, {entry.size / 1e9:.2f} GB)\n  in {entry.path}")
    if not models:
        print("it needs no model from elsewhere")
    return 0


def _list(args: argparse.Namespace, cache: ModelCache) -> int:
    from viper.terminal import columns

    rows = []
    for entry in cache.entries():
        wrong = cache.damaged(entry, thorough=args.verify)
        state = "missing" if wrong is None else f"damaged: {', '.join(wrong)}" if wrong else "ok"
        rows.append(
            {
                "uri": entry.uri,
                "pinned": entry.pinned,
                "digest": entry.digest,
                "bytes": entry.size,
                "path": str(entry.path),
                "state": state,
            }
        )
    if args.output == "json":
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"nothing in {cache.root}")
    else:
        cells = (
            (entry.uri, f"{entry.size / 1e9:.2f} GB", entry.digest[:23], str(row["state"]))
            for row, entry in zip(rows, cache.entries(), strict=True)
        )
        print(*columns(cells, right=(1,), least={1: 11}), sep="\n")
        total = sum({e.digest: e.size for e in cache.entries()}.values())
        print(f"{total / 1e9:.2f} GB in {cache.root}")
    return 0 if all(row["state"] == "ok" for row in rows) else 1
