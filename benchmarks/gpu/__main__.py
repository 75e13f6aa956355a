"""The command: see `benchmarks.gpu`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.gpu import bundle
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.results import table
from benchmarks.gpu.runner import Options, run

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 when every part is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="fetch what the other machine lacks, as wheels (needs a network)")
    prepare.add_argument("--to", type=Path, default=bundle.FOLDER, help="default: %(default)s")
    prepare.add_argument("--python", default="3.12", help="Python of the other machine; default: %(default)s")
    measure = commands.add_parser("run", help="measure")
    measure.add_argument("--out", type=Path, default=RESULTS / "latest", help="folder; default: %(default)s")
    measure.add_argument("--bundle", type=Path, default=bundle.FOLDER, help="default: %(default)s, where it is there")
    measure.add_argument("--tiny", action="store_true", help="tiny shapes: a trial, the figures mean nothing")
    measure.add_argument("--device", default="", help="torch device; default: cuda where there is one")
    measure.add_argument("--budget", type=float, default=600.0, help="seconds for everything; default: %(default)s")
    measure.add_argument("--only", default="", help=f"parts, with commas: {','.join(p.name for p in PARTS)}")
    measure.add_argument("--attention", default="", help="attention function beside sdpa: module:function, or a name")
    show = commands.add_parser("table", help="the table of a report")
    show.add_argument("report", type=Path)
    args = parser.parse_args(arguments)
    if args.command == "prepare":
        return bundle.prepare(args.to, args.python)
    if args.command == "table":
        return _show(args.report)
    chosen = [name for name in args.only.split(",") if name]
    if unknown := sorted(set(chosen) - {p.name for p in PARTS}):
        parser.error(f"there is no part {unknown[0]!r}")
    if args.bundle.is_dir():
        for line in bundle.activate(args.bundle):
            print(line)
    options = Options(args.out.resolve(), args.tiny, args.device, args.budget, args.attention)
    results = run([p for p in PARTS if not chosen or p.name in chosen], options)
    _show(results.path)
    print(f"\n{results.path}")
    return int(any(part["state"] != "done" for part in results.parts))


def _show(report: Path) -> int:
    try:
        lines = list(table(json.loads(report.read_text("utf-8"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{report}: no report of the kit: {error!r}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
