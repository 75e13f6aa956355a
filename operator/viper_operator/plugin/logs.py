"""`kubectl viper logs NAME [STAGE]`: the logs of a stage's pods, with `-f` on to the stages after it."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TextIO

from viper.cli.options import whole
from viper.spec.status import IterationStatus, read_status
from viper_operator.job_specs import CONTAINER
from viper_operator.names import ITERATION, STAGE
from viper_operator.plugin.api import ITERATIONS, PATIENCE, PAUSE, PODS, Cluster, Object, connect, patiently
from viper_operator.plugin.errors import ClusterError, MissingObjectError, UnavailableError
from viper_operator.plugin.find import iteration as find_iteration
from viper_operator.plugin.find import named
from viper_operator.plugin.options import connection
from viper_operator.plugin.problems import problem
from viper_operator.plugin.view import Iteration

INDEX = "batch.kubernetes.io/job-completion-index"
#: States in which a stage writes no more.
OVER = ("Succeeded", "Held", "Failed")
#: Seconds after which `-f` looks again when nothing has changed.
LOOK_AGAIN = 10


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `logs`."""
    parser = subparsers.add_parser(
        "logs",
        help="print the log of a stage",
        description="Prints what the pods of a stage wrote, by default of the stage that the iteration is at; several "
        "shards with their number in front. With -f and without STAGE it goes on to the stages after it.",
    )
    parser.add_argument("name", type=named, metavar="NAME", help="an iteration, or a loop for its current one")
    parser.add_argument("stage", nargs="?", default="", metavar="STAGE", help="e.g. synthesize-captions")
    parser.add_argument("--shard", type=whole(0, 10**6, "shard"), metavar="I", help="only this one, from 0")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the stage (or the iteration) ends")
    parser.add_argument("-p", "--previous", action="store_true", help="of the attempt before the last")
    parser.add_argument("--tail", type=whole(0, 10**9, "number of lines"), metavar="N", help="only the last N lines")
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Prints them."""
    cluster = connect(args)
    body = find_iteration(cluster, args.name)
    show = Output(sys.stdout, sys.stderr)
    if args.follow and not args.previous:
        Follower(cluster, body["metadata"]["name"], args, show).run()
        return 0
    stage = chosen(body, args.stage)
    attempts = select(pods_of(cluster, body, stage), args.shard, previous=args.previous)
    if not attempts:
        raise nothing(body, stage, args.shard, previous=args.previous)
    if not any(begun(p) for p in attempts):
        raise _not_begun(stage, attempts)
    for pod in attempts:
        if begun(pod):
            lines = cluster.log(pod["metadata"]["name"], container=container(pod), tail=args.tail)
            show.lines(prefix(pod, attempts), lines)
        else:
            show.note(f"shard {shard_of(pod)}: {problem(pod) or 'has not started'}")
    return 0


class Output:
    """Whole lines from several threads. `note`: about the log, not of it."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out, self._err, self._lock = out, err, threading.Lock()

    def lines(self, before: str, lines: Iterable[str]) -> None:
        """Writes each line with `before` in front."""
        for line in lines:
            with self._lock:
                self._out.write(f"{before}{line}\n")
                self._out.flush()

    def note(self, text: str) -> None:
        """Writes a line to the error output."""
        with self._lock:
            self._err.write(f"{text}\n")
            self._err.flush()


class Follower:
    """`-f`: one thread a pod, started when the pod has begun, until the stage or the iteration is over."""

    def __init__(self, cluster: Cluster, name: str, args: argparse.Namespace, show: Output) -> None:
        self._cluster, self._name, self._args, self._show = cluster, name, args, show
        self._threads: dict[str, threading.Thread] = {}
        self._waits = ""

    def run(self) -> None:
        """Returns when nothing more will be written."""
        while True:
            body = patiently(partial(self._cluster.get, ITERATIONS, self._name), self._show.note)
            stage = chosen(body, self._args.stage)
            labels = f"{ITERATION}={self._name},{STAGE}={stage}"
            found = patiently(partial(self._cluster.collection, PODS, labels=labels), self._show.note)
            attempts = select(found["items"], self._args.shard)
            for pod in attempts:
                self._start(pod, stage, attempts)
            if over(body, self._args.stage):
                break
            self._tell(stage, attempts)
            patiently(partial(self._change, found["metadata"]["resourceVersion"]), self._show.note)
        if not self._threads:
            raise nothing(body, stage, self._args.shard)
        for thread in self._threads.values():
            thread.join()

    def _change(self, version: str) -> None:
        """Waits for a change of the iteration's pods, or a while."""
        next(self._cluster.watch(PODS, version, labels=f"{ITERATION}={self._name}", seconds=LOOK_AGAIN), None)

    def _start(self, pod: Object, stage: str, attempts: Sequence[Object]) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._threads or not begun(pod):
            return
        self._show.note(f"==> {stage}, pod {pod['metadata']['name']}")
        # Not waited for when the person interrupts.
        thread = threading.Thread(target=self._follow, args=(pod, prefix(pod, attempts)), daemon=True)
        self._threads[uid] = thread
        thread.start()

    def _follow(self, pod: Object, before: str) -> None:
        try:
            self._show.lines(before, followed(self._cluster, pod, self._args.tail))
        except ClusterError as error:
            self._show.note(f"{before}{error}")

    def _tell(self, stage: str, attempts: Sequence[Object]) -> None:
        """Says once what is being waited for."""
        if all(begun(p) for p in attempts) and attempts:
            return
        trouble = next((t for p in attempts if (t := problem(p))), "its pods have not started")
        text = f"waiting for {stage or 'the first stage'}: {trouble}"
        if text != self._waits:
            self._waits = text
            self._show.note(text)


def followed(
    cluster: Cluster, pod: Object, tail: int | None = None, pause: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The lines of a pod until it ends. Connections that are cut (kubelets do so after hours) are made again.

    Raises `UnavailableError` when the API server or the kubelet does not answer for `PATIENCE` attempts.
    """
    name, last, over, failures = pod["metadata"]["name"], "", False, 0
    while True:
        seen = last
        try:
            for line in cluster.log(
                name, container=container(pod), follow=True, tail=tail, timestamps=True, since=seen
            ):
                stamp, _, text = line.partition(" ")
                if not seen or moment(stamp) > moment(seen):
                    last, tail, failures = stamp, None, 0
                    yield text
            if over:  # it had ended before this connection was made: that was all
                return
            now = cluster.get(PODS, name)
            over = now["status"].get("phase") in ("Succeeded", "Failed")
            if now["metadata"]["uid"] != pod["metadata"]["uid"]:
                return
            if not over:
                version = now["metadata"]["resourceVersion"]
                next(cluster.watch(PODS, version, fields=f"metadata.name={name}", seconds=5), None)
        except MissingObjectError:
            return
        except UnavailableError:
            failures += 1
            if failures > PATIENCE:
                raise
            pause(PAUSE)


def moment(stamp: str) -> tuple[str, str]:
    """A timestamp of a log, comparable: the kubelet leaves out zeros at the end of the fraction."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


# ---- choice, pure ----------------------------------------------------------------------------------------------------


def chosen(body: Object, stage: str) -> str:
    """The stage that is meant: by default the one the iteration is at. Raises `ClusterError` for one it has not."""
    status = _status(body)
    known = [s.name for s in status.stages]
    if not stage:
        return status.stage or (known[-1] if known else "")
    if known and stage not in known:
        raise ClusterError(
            f"{body['metadata']['name']} has no stage {stage}", where="STAGE", fix=f"its stages are {', '.join(known)}"
        )
    return stage


def over(body: Object, stage: str) -> bool:
    """Whether nothing more will be written: by the stage, or by the iteration when no stage is asked for."""
    seen = Iteration(body)
    return seen.finished or (not seen.unseen and any(s.name == stage and s.state in OVER for s in seen.status.stages))


def select(pods: Iterable[Object], shard: int | None, *, previous: bool = False) -> list[Object]:
    """By shard, the pod of the last attempt (`previous`: of the one before)."""
    shards: dict[int, list[Object]] = {}
    for pod in pods:
        shards.setdefault(shard_of(pod), []).append(pod)
    attempts = []
    for index, found in sorted(shards.items()):
        in_order = sorted(found, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))
        wanted = in_order[:-1] if previous else in_order
        if wanted and shard in (None, index):
            attempts.append(wanted[-1])
    return attempts


def shard_of(pod: Object) -> int:
    """The index of a pod in its Job."""
    meta = pod["metadata"]
    return int(meta.get("labels", {}).get(INDEX) or meta.get("annotations", {}).get(INDEX) or 0)


def container(pod: Object) -> str:
    """The container with the stage program; a pod template override may have added others."""
    names = [c["name"] for c in pod["spec"]["containers"]]
    return CONTAINER if CONTAINER in names else str(names[0])


def begun(pod: Object) -> bool:
    """Whether the stage's container has a log."""
    name = container(pod)
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return any(c["name"] == name and ("running" in c["state"] or "terminated" in c["state"]) for c in statuses)


def prefix(pod: Object, attempts: Sequence[Object]) -> str:
    """What stands before every line: the shard, where there are several."""
    return f"[{shard_of(pod)}] " if len(attempts) > 1 else ""


def nothing(body: Object, stage: str, shard: int | None, *, previous: bool = False) -> ClusterError:
    """Why there is no log to print, and where else to look."""
    name = body["metadata"]["name"]
    what = stage + ("" if shard is None else f" shard {shard}") + (" (previous attempt)" if previous else "")
    state = next((s.state for s in _status(body).stages if s.name == stage), "")
    if not stage or state in ("", "Waiting", "Pending"):
        return ClusterError(
            f"{stage} has not started" if stage else "no stage has started",
            where=name,
            fix=f"`kubectl viper status {name}` says what it waits for",
        )
    return ClusterError(
        f"there is no pod of {what}",
        where=name,
        fix="logs go with their pods (profile ttlSecondsAfterFinished); what the stage did is in its MLflow run"
        if not previous
        else "it has had one attempt, or the pods before it are gone",
    )


def pods_of(cluster: Cluster, body: Object, stage: str) -> list[Object]:
    """The pods of a stage, all attempts."""
    return cluster.items(PODS, labels=f"{ITERATION}={body['metadata']['name']},{STAGE}={stage}")


def _not_begun(stage: str, attempts: Sequence[Object]) -> ClusterError:
    trouble = next((t for p in attempts if (t := problem(p))), "its container is being created")
    return ClusterError(f"{stage} has written nothing yet: {trouble}", fix="-f waits for it")


def _status(body: Object) -> IterationStatus:
    return read_status(IterationStatus, body.get("status"))
