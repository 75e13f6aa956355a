"""A loop on the one-node cluster, watched from outside until it has ended."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from released import MODEL, ROOT, forwarded, loop, store_credentials

from servers.node import OneNode
from viper.registry import Registry
from viper.store import open_store
from watcher.recorder import Recorder
from watcher.timeline import Object, Timeline, read

#: Where timelines are kept.
TIMELINES = Path(os.environ.get("VIPER_TIMELINES", ROOT / "runs" / "timelines"))


def run_watched(cluster: OneNode, namespace: str, iterations: int, minutes: int) -> list[Object]:
    """Applies a loop of small iterations; what was done and said until it had succeeded."""
    TIMELINES.mkdir(parents=True, exist_ok=True)
    file = TIMELINES / f"loop-{iterations}.jsonl"
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in store_credentials(cluster, namespace).items():
            environment.setenv(name, value)
        minio = stack.enter_context(forwarded(cluster, namespace, "viper-minio", 9000))
        mlflow = stack.enter_context(forwarded(cluster, namespace, "viper-mlflow", 5000))
        store = open_store(f"s3://viper?endpoint=http://127.0.0.1:{minio}")
        registry = Registry(f"http://127.0.0.1:{mlflow}")
        recorder = Recorder(
            Timeline(file),
            cluster.kubeconfig,
            namespace,
            store=store,
            aliases=lambda: {f"{MODEL}@generator": registry.get_alias(MODEL, "generator")},
        )
        stack.enter_context(recorder)
        cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(loop(iterations)))
        recorder.follow("evolve")
        try:
            cluster.kubectl(
                *("-n", namespace, "wait", "viperloop/evolve", "--for=condition=Succeeded", f"--timeout={minutes}m")
            )
            recorder.wait()
        except subprocess.CalledProcessError as error:
            error.add_note(
                cluster.kubectl("-n", namespace, "get", "viperloops,viperiterations,jobs,pods", "-o", "wide")
            )
            raise
    return read(file)
