"""Writes down what a cluster does and what is said of it, from outside: watches, polls, two commands of a person."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from viper.errors import StoreError, ViperError
from viper.iteration.observe import read_progress
from viper.methods.stages import FREEZE
from viper.stage import load_manifest
from viper.stage.frozen import load_frozen
from viper.store import ObjectStore
from viper_operator.names import ITERATION, STAGE
from viper_operator.plugin.api import EVENTS, ITERATIONS, JOBS, LOOPS, PODS, Resource, connect
from viper_operator.plugin.errors import ClusterError
from watcher.timeline import Object, Timeline

#: Seconds between two looks at the registry and the store.
PAUSE = 1.0
#: Seconds in which watches bring what has happened before the end.
LAST = 0.3
ROOT = Path(__file__).parents[2]


class Recorder:
    """Records one namespace into a timeline from `start` until `stop`.

    Args:
        kubeconfig, namespace: where.
        aliases: asks the registry: versions by `<model>@<alias>`.
        store: where stages write.
    """

    def __init__(
        self,
        timeline: Timeline,
        kubeconfig: Path,
        namespace: str,
        *,
        store: ObjectStore,
        aliases: Callable[[], dict[str, int | None]] = dict,
    ) -> None:
        self.timeline, self._kubeconfig = timeline, kubeconfig
        self._cluster = connect(argparse.Namespace(kubeconfig=str(kubeconfig), context=None, namespace=namespace))
        self._store, self._aliases = store, aliases
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._commands: list[subprocess.Popen[str]] = []
        self._jobs: dict[tuple[str, str], int] = {}  # shards of the stages that may be at work
        self._said: dict[str, Object] = {}

    def __enter__(self) -> Self:
        for resource in (LOOPS, ITERATIONS, JOBS, PODS, EVENTS):
            self._begin(lambda r=resource: self._watch(r))  # type: ignore[misc]
        self._begin(self._poll)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Looks for the last time, and ends."""
        self._over.wait(LAST)
        self._over.set()
        for command in self._commands:
            command.terminate()
        for command in self._commands:
            command.wait()
        with suppress(ViperError, ClusterError, OSError):
            self._look()
        self.timeline.close()

    def follow(self, loop: str, *, logs: bool = True) -> None:
        """What a person sees who watches a loop: `kubectl viper status LOOP --watch`, `kubectl viper logs LOOP -f`."""
        self.timeline.add("followed", loop=loop, logs=logs)
        status = self._command("status", loop, "--watch")
        self._begin(lambda: self._pictures(status))
        if logs:
            self._follow_logs(loop)

    def wait(self, seconds: float = 30.0) -> None:
        """Returns when both commands have seen the end, at the latest after so many seconds."""
        for command in self._commands:
            with suppress(subprocess.TimeoutExpired):
                command.wait(seconds)

    def _follow_logs(self, loop: str) -> None:
        command = self._command("logs", loop, "-f")
        for stream, pipe in (("out", command.stdout), ("err", command.stderr)):
            self._begin(lambda s=stream, p=pipe: self._lines(s, p))  # type: ignore[misc]

    def _begin(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    # ---- objects -----------------------------------------------------------------------------------------------------

    def _watch(self, resource: Resource) -> None:
        known: dict[str, Object] = {}
        while not self._over.is_set():
            try:
                found = self._cluster.collection(resource)
                there = {i["metadata"]["name"]: i for i in found["items"]}
                for name in known.keys() - there.keys():
                    self._object(resource, known.pop(name), gone=True)
                for name, body in there.items():
                    if known.get(name, {}).get("metadata", {}).get("resourceVersion") != _version(body):
                        self._object(resource, body)
                    known[name] = body
                version = _version(found)
                for kind, body in self._cluster.watch(resource, version, seconds=300):
                    if self._over.is_set():
                        return
                    name = body["metadata"]["name"]
                    self._object(resource, body, gone=kind == "DELETED")
                    known[name] = body
                    if kind == "DELETED":
                        del known[name]
            except ClusterError:
                self._over.wait(1.0)

    def _object(self, resource: Resource, body: Object, *, gone: bool = False) -> None:
        meta = {k: v for k, v in body["metadata"].items() if k != "managedFields"}
        slim = {**body, "kind": resource.kind, "metadata": meta}
        labels = meta.get("labels", {})
        if resource is JOBS and {ITERATION, STAGE} <= labels.keys():
            self._jobs[labels[ITERATION], labels[STAGE]] = body["spec"].get("completions") or 1
        self.timeline.add("object", object=slim, gone=gone)

    # ---- registry and store ------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        while not self._over.wait(PAUSE):
            with suppress(ViperError, OSError):
                self._look()

    def _look(self) -> None:
        with suppress(ViperError):
            self._say("registry", {"aliases": self._aliases()})
        for (iteration, stage), shards in list(self._jobs.items()):
            of = f"{iteration}/{stage}"
            if self._said.get(of, {}).get("manifest") is not None:
                continue
            manifest: Any = None
            progress = None
            frozen = load_frozen(self._store, iteration)
            if stage == FREEZE:
                manifest = {} if frozen is not None else None
            elif frozen is not None:
                prefix = frozen.prefix
                with suppress(StoreError):
                    progress, _ = read_progress(self._store, prefix, stage, shards)
                made = load_manifest(self._store, prefix, stage)
                if made is not None:
                    manifest = {k: made.outputs.get(k) for k in ("decision", "version")}
            fields = {
                "of": of,
                "manifest": manifest,
                "progress": None if progress is None else progress.model_dump(mode="json", by_alias=True),
            }
            self._say("store", fields, of)

    def _say(self, kind: str, fields: Object, key: str = "") -> None:
        if self._said.get(key) != fields:
            self._said[key] = fields
            self.timeline.add(kind, **fields)

    # ---- commands ----------------------------------------------------------------------------------------------------

    def _command(self, *arguments: str) -> subprocess.Popen[str]:
        where = ["--kubeconfig", str(self._kubeconfig), "-n", self._cluster.namespace]
        command = [sys.executable, "-m", "viper_operator.plugin.main", *where, *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        self._commands.append(process)
        return process

    def _lines(self, stream: str, pipe: Any) -> None:
        for line in pipe:
            self.timeline.add("line", stream=stream, text=line.rstrip("\n"))

    def _pictures(self, process: subprocess.Popen[str]) -> None:
        """Pictures come as a whole, each but the first after an empty line."""
        assert process.stdout is not None
        descriptor, rest = process.stdout.fileno(), b""
        while piece := os.read(descriptor, 1 << 16):
            rest += piece
            if rest.endswith(b"\n"):
                for text in rest.decode().strip("\n").split("\n\n"):
                    self.timeline.add("picture", text=text)
                rest = b""


def _version(body: Object) -> str:
    return str(body["metadata"]["resourceVersion"])
