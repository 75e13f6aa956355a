"""`kubectl viper logs -f`: every pod of every stage, and what happens between them, until nothing more will."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TextIO

from viper.retries import API_SERVER_AWAY
from viper.words import duration, one_line
from viper_operator.names import ITERATION, LOOP
from viper_operator.plugin.api import ITERATIONS, LOOPS, PODS, Cluster, Object, patiently
from viper_operator.plugin.choose import (
    OVER,
    at_once,
    begun,
    chosen,
    container,
    ended,
    in_order,
    moment,
    nothing,
    over,
    prefix,
    select,
    stage_of,
)
from viper_operator.plugin.errors import ClusterError, MissingObjectError, UnavailableError
from viper_operator.plugin.news import iteration_news, loop_end, loop_news, next_iteration, standing, waits
from viper_operator.plugin.view import Iteration, Loop, ordered

#: Seconds after which it looks again when no pod has changed, and after which silence is explained.
LOOK_AGAIN, QUIET = 3, 30.0
#: Seconds for which the last lines of an ended pod are waited for before what came after it is told.
SETTLE = 10.0


class Output:
    """Whole lines from several threads. `note`: about the log, not of it."""

    def __init__(self, out: TextIO, err: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._out, self._err, self._clock, self._lock = out, err, clock, threading.Lock()
        self._last = clock()

    def lines(self, before: str, lines: Iterable[str]) -> None:
        """Writes each line with `before` in front."""
        for line in lines:
            with self._lock:
                self._last = self._clock()
                self._out.write(f"{before}{line}\n")
                self._out.flush()

    def note(self, text: str) -> None:
        """Writes a line to the error output, with the time in front as stages write it."""
        with self._lock:
            self._last = self._clock()
            stamp = datetime.fromtimestamp(self._last, UTC).strftime("%H:%M:%SZ")
            self._err.write(f"{stamp}  {text}\n")
            self._err.flush()

    @property
    def quiet(self) -> float:
        """Seconds since the last line."""
        return self._clock() - self._last


@dataclass
class Follower:
    """One thread a pod, started when the pod has begun; what changes between two looks is told in between."""

    cluster: Cluster
    args: argparse.Namespace
    show: Output
    _pods: dict[str, threading.Thread] = field(default_factory=dict)
    _passed: set[str] = field(default_factory=set)
    _together: set[str] = field(default_factory=set)
    _seen: dict[str, Iteration] = field(default_factory=dict)
    _loop: Loop | None = None
    _waits: str = ""
    _since: float = 0.0
    _unread: bool = False

    # ---- a loop ------------------------------------------------------------------------------------------------------

    def loop(self, name: str) -> None:
        """All iterations of a loop; returns when it has ended."""
        while True:
            version = self._version()
            body = patiently(partial(self.cluster.get, LOOPS, name), self.show.note)
            members = patiently(partial(self.cluster.items, ITERATIONS, labels=f"{LOOP}={name}"), self.show.note)
            loop, before = Loop(body, tuple(ordered(map(Iteration, members)))), self._loop
            if before is None:
                self._tell(loop_news(None, loop))
                # Of those that are over when it begins, the loop has said enough.
                self._seen |= {one.name: one for one in loop.iterations[:-1] if one.finished}
            waiting, otherwise = "", ""
            for one in loop.iterations:
                known = self._seen.get(one.name)
                if known is None or not (known.finished and one.finished):
                    waiting, otherwise = self._look(one, "", fresh=before is not None)
            if loop.finished:
                self._settle(self._pods, None)
            if before is not None:
                self._tell(loop_news(before, loop))
            elif loop.finished:
                self._tell([loop_end(loop)])
            self._loop = loop
            if loop.finished:
                return
            self._explain(waiting or next_iteration(loop), otherwise)
            self._change(version)

    # ---- an iteration ------------------------------------------------------------------------------------------------

    def iteration(self, name: str) -> None:
        """All stages of an iteration, or the one that is asked for; returns when nothing more will be written."""
        asked, first = self.args.stage, True
        while True:
            version = self._version()
            body = patiently(partial(self.cluster.get, ITERATIONS, name), self.show.note)
            waiting, otherwise = self._look(Iteration(body), asked)
            if over(body, asked):
                break
            first = False
            self._explain(waiting, otherwise)
            self._change(version)
        if first and not self._pods:
            raise nothing(body, chosen(body, asked), self.args.shard)
        self._settle(self._pods, None)

    def _look(self, one: Iteration, asked: str, *, fresh: bool = False) -> tuple[str, str]:
        """Follows what has begun and tells what has changed; returns what is waited for, and how far the stage is.

        `fresh`: nothing of it is passed over, it began while others were followed.
        """
        name, before = one.name, self._seen.get(one.name)
        stage = chosen(one.body, asked)
        found = patiently(partial(self.cluster.items, PODS, labels=f"{ITERATION}={name}"), self.show.note)
        attempts = select([p for p in found if stage_of(p) == stage], self.args.shard)
        news = [] if asked else iteration_news(before, one, datetime.now(UTC))
        through = [p["metadata"]["uid"] for p in found if ended(p)]
        if before is None:
            self._tell(news)
            # What is over when it begins is not told again: stages before, attempts before the last one.
            self._passed |= set() if fresh else set(through) - {p["metadata"]["uid"] for p in attempts}
        done = {s.name for s in one.status.stages if s.state in OVER}
        meant = [p for p in in_order(found) if not asked or stage_of(p) == stage]
        self._together |= at_once(meant)
        for pod in (p for p in meant if stage_of(p) in done):
            self._start(pod, name, found, through)
        if before is not None:  # what stages have said comes before that they are done, and that before what follows
            self._settle(through if news else ())
            self._tell(news)
        for pod in (p for p in meant if stage_of(p) not in done):
            self._start(pod, name, found, through)
        if one.finished:
            self._settle(through)
        self._seen[name] = one
        return ("", "") if over(one.body, asked) else (waits(one, attempts, stage), "" if asked else standing(one))

    def _version(self) -> str:
        found = patiently(partial(self.cluster.collection, PODS, fields="metadata.name=-"), self.show.note)
        return str(found["metadata"]["resourceVersion"])

    def _change(self, version: str) -> None:
        """Waits for a change of pods, or a moment."""
        self._settle(())
        patiently(partial(self._next, version), self.show.note)

    def _next(self, version: str) -> None:
        next(self.cluster.watch(PODS, version, labels=ITERATION, seconds=LOOK_AGAIN), None)

    # ---- what is told ------------------------------------------------------------------------------------------------

    def _tell(self, news: Iterable[str]) -> None:
        for text in news:
            self.show.note(text)

    def _explain(self, waiting: str, otherwise: str = "") -> None:
        """Says once what is being waited for, and again when nothing else is said; and how far a silent stage is."""
        now = time.monotonic()
        if waiting != self._waits:
            self._waits, self._since = waiting, now
            if waiting:
                self.show.note(waiting)
        elif self.show.quiet >= QUIET and (waiting or otherwise):
            self.show.note(f"{waiting}, for {duration(now - self._since)} now" if waiting else otherwise)

    # ---- pods --------------------------------------------------------------------------------------------------------

    def _start(self, pod: Object, name: str, found: Sequence[Object], through: Iterable[str]) -> None:
        uid, stage = pod["metadata"]["uid"], stage_of(pod)
        if uid in self._pods or uid in self._passed or not begun(pod):
            return
        if self.args.shard is not None and not select([pod], self.args.shard):
            return
        self._settle(through)  # first the last lines of what was before
        self.show.note(f"==> {stage} of {name}, pod {pod['metadata']['name']}")
        # Not waited for when the person interrupts.
        before = prefix(pod, select([p for p in found if stage_of(p) == stage], self.args.shard))
        self._pods[uid] = thread = threading.Thread(target=self._follow, args=(pod, before), daemon=True)
        thread.start()

    def _follow(self, pod: Object, before: str) -> None:
        uid, stage = pod["metadata"]["uid"], f"[{stage_of(pod)}] "
        lines = followed(self.cluster, pod, self.args.tail)
        try:
            self.show.lines(before, (f"{stage if uid in self._together else ''}{line}" for line in lines))
        except ClusterError as error:
            self.show.note(f"{before}{one_line(str(error))}")
        except BrokenPipeError:  # `… | head`
            self._unread = True

    def _settle(self, ended: Iterable[str], seconds: float | None = SETTLE) -> None:
        """Waits until all is written that these pods, which have ended, have said; for so long at most, None: however
        long it takes. Raises `BrokenPipeError` when nobody reads any more."""
        end = None if seconds is None else time.monotonic() + seconds
        for uid in ended:
            if uid in self._pods:
                self._pods[uid].join(None if end is None else max(end - time.monotonic(), 0.0))
        if self._unread:
            raise BrokenPipeError


def followed(
    cluster: Cluster, pod: Object, tail: int | None = None, pause: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The lines of a pod until it ends. Connections that are cut (kubelets do so after hours) are made again.

    Raises `UnavailableError` when the API server or the kubelet stays away longer than `API_SERVER_AWAY`.
    """
    name, last, over, failures = pod["metadata"]["name"], "", False, 0
    alike = 0  # lines of the last time: several may have one
    while True:
        seen, known = last, alike
        try:
            for line in cluster.log(
                name, container=container(pod), follow=True, tail=tail, timestamps=True, since=seen
            ):
                stamp, _, text = line.partition(" ")
                if seen and moment(stamp) <= moment(seen):  # the kubelet begins with the whole second
                    known -= moment(stamp) == moment(seen)
                    if known >= 0 or moment(stamp) < moment(seen):
                        continue
                alike = alike + 1 if last and moment(stamp) == moment(last) else 1
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
            if failures > (API_SERVER_AWAY.tries or 0):
                raise
            pause(API_SERVER_AWAY.wait(failures))
