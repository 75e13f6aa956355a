"""`kubectl viper status [NAME]`: loops, iterations, stages, and what keeps their pods from working."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TextIO

from viper.terminal import console, printed
from viper_operator.names import ITERATION, LOOP
from viper_operator.observed import JOB_OF_POD
from viper_operator.plugin.api import EVENTS, ITERATIONS, JOBS, LOOPS, PODS, Cluster, Object, connect, patiently
from viper_operator.plugin.errors import ForbiddenError
from viper_operator.plugin.find import find, named
from viper_operator.plugin.options import connection, output, written
from viper_operator.plugin.presence import nobody_watches
from viper_operator.plugin.problems import problems, silent
from viper_operator.plugin.view import (
    Iteration,
    Loop,
    iteration_data,
    iteration_node,
    loop_data,
    loop_node,
    ordered,
    table,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Seconds between two pictures of `--watch`, however much happens.
PAUSE = 0.5
#: Seconds after which it looks again, for the times and for what changes without the iterations.
LOOK_AGAIN = 10
#: Pods and Jobs that say nothing themselves whose Events are read for one picture.
EVENTS_OF = 10
#: States of a stage whose Job should have pods.
WORKING = ("Pending", "Running", "Retrying")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `status`."""
    parser = subparsers.add_parser(
        "status",
        help="loops, iterations and stages: what is done, what runs, what is wrong",
        description="With NAME: its stages with state, time, GPU time, progress, rate and time left, and what keeps "
        "their pods from working. Without: a table of everything in the namespace.",
        epilog="marks: ✔ done, ▶ running, ↻ tried again, ‖ suspended, ■ held for a person, ✘ failed, ! trouble",
    )
    parser.add_argument(
        "name", type=named, nargs="?", default="", metavar="NAME", help="NAME, iteration/NAME or loop/NAME"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="again on every change, until nothing more happens")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="the table over all namespaces")
    output(parser, "json", "yaml", "wide")
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Prints it once, or on every change."""
    cluster, told = connect(args), [""]

    def look() -> tuple[str, bool, str]:
        shown = picture(cluster, args)
        nobody = "" if shown[1] or args.all_namespaces else nobody_watches(cluster, datetime.now(UTC))
        if nobody and not told[0]:
            print(f"note: {nobody}", file=sys.stderr, flush=True)
        told[0] = nobody
        return shown

    if not args.watch:
        print(look()[0], end="")
        return 0
    return watch(look, lambda version: changes(cluster, args, version), sys.stdout)


def picture(cluster: Cluster, args: argparse.Namespace) -> tuple[str, bool, str]:
    """What to print, whether nothing more will happen, and the version of the list to watch from."""
    now = datetime.now(UTC)
    if not args.name:
        return overview(cluster, args, now)
    version = cluster.collection(ITERATIONS, fields="metadata.name=-")["metadata"]["resourceVersion"]
    resource, body = find(cluster, args.name)
    if resource is LOOPS:
        members = cluster.items(ITERATIONS, labels=f"{LOOP}={body['metadata']['name']}")
        loop = Loop(body, tuple(ordered(with_problems(cluster, m) for m in members)))
        text = _shown(args, loop_data(loop), loop_node(loop, now, wide=args.output == "wide"))
        return text, loop.finished, version
    iteration = with_problems(cluster, body)
    return _shown(args, iteration_data(iteration), iteration_node(iteration, now)), iteration.finished, version


def overview(cluster: Cluster, args: argparse.Namespace, now: datetime) -> tuple[str, bool, str]:
    """The table of a namespace or of all."""
    everywhere = args.all_namespaces
    found = cluster.collection(ITERATIONS, everywhere=everywhere)
    iterations = [Iteration(body) for body in found["items"]]
    loops, members = [], set()
    for body in cluster.collection(LOOPS, everywhere=everywhere)["items"]:
        meta = body["metadata"]
        mine = [
            i for i in iterations if i.loop == meta["name"] and i.body["metadata"]["namespace"] == meta["namespace"]
        ]
        loops.append(Loop(body, tuple(ordered(mine))))
        members |= {id(i) for i in mine}
    single = [i for i in iterations if id(i) not in members]
    done = all(x.finished for x in loops) and all(x.finished for x in single)
    version = found["metadata"]["resourceVersion"]
    if args.output in ("json", "yaml"):
        data = {"items": [*map(loop_data, loops), *map(iteration_data, single)]}
        return written(data, args.output), done, version
    if not loops and not single:
        place = "this cluster" if everywhere else f"namespace {cluster.namespace}"
        text = f"there is no iteration and no loop in {place}; `kubectl apply -f` one (docs/quickstart.md)\n"
        return text, False, version
    return "\n".join(table(loops, single, now, namespaces=everywhere)) + "\n", done, version


def with_problems(cluster: Cluster, body: Object) -> Iteration:
    """The iteration with what is wrong with its pods, as far as the person may see them."""
    iteration = Iteration(body)
    if iteration.finished:
        return iteration
    working = {s.job: s.name for s in iteration.status.stages if s.job and s.state in WORKING}
    try:
        pods = cluster.items(PODS, labels=f"{ITERATION}={iteration.name}")
        working_pods = {p["metadata"].get("labels", {}).get(JOB_OF_POD) for p in pods}
        jobs = cluster.items(JOBS, labels=f"{ITERATION}={iteration.name}") if working.keys() - working_pods else []
        uids = {j["metadata"]["name"]: j["metadata"]["uid"] for j in jobs if j["metadata"]["name"] in working}
        asked = silent(pods, uids)[:EVENTS_OF]
        events = [e for uid in asked for e in cluster.items(EVENTS, fields=f"involvedObject.uid={uid}")]
    except ForbiddenError as error:
        return Iteration(body, {"": [f"troubles of pods are not shown: {error.what}"]})
    return Iteration(body, problems(pods, events, working, uids))


def changes(cluster: Cluster, args: argparse.Namespace, version: str) -> Iterator[object]:
    """Something for every change of the iterations (and so of whatever is shown)."""
    yield from cluster.watch(ITERATIONS, version, seconds=LOOK_AGAIN)


def watch(
    look: Callable[[], tuple[str, bool, str]],
    happen: Callable[[str], Iterator[object]],
    out: TextIO,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Prints a picture on every change: on a terminal over the last one, elsewhere below, and only if it differs."""
    before = ""

    def tell(note: str) -> None:
        print(note, file=sys.stderr, flush=True)

    while True:
        text, finished, version = patiently(look, tell, pause)
        if text != before:
            console(out).clear()
            out.write(text if out.isatty() or not before else f"\n{text}")
            out.flush()
            before = text
        if finished:
            return 0
        patiently(partial(_next, happen, version), tell, pause)
        pause(PAUSE)


def _next(happen: Callable[[str], Iterator[object]], version: str) -> None:
    next(happen(version), None)


def _shown(args: argparse.Namespace, data: Object, node: RenderableType) -> str:
    if args.output in ("json", "yaml"):
        return written(data, args.output)
    return printed(node, sys.stdout) + "\n"
