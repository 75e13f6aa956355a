"""`viper-job` in verl's environment on a machine without a GPU, and what the tests need around it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training_fakes import open_stage, png, validated

import viper.smallworld
from support.verl_environment import ROOT, verl_python, without_gpu
from viper.registry import Registry, sqlite_uri
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import open_store
from viper.store.transfer import directory_digest
from viper.training.verl import process

STARTER = Path(viper.smallworld.__file__).parent / "assets" / "starter"
STEPS = 4
ENGINES: dict[str, Any] = {
    "reconstructor": "smallworld",
    "editor": "smallworld",
    "imageSimilarity": "smallworld",
    "similarity": "smallworld",
    "trainer": "verl",
    "training": {"rollout": "hf_cpu", "attention": "eager", "dtype": "float32", "workers": 1, "stallSeconds": 300},
}
TRAINING = {
    "batchPrompts": 4,
    "miniBatchPrompts": 2,
    "groupSize": 3,
    "microBatch": 6,
    "maxPromptTokens": 512,
    "maxResponseTokens": 40,
    "saveEvery": 1,
    "steps": STEPS,
    "learningRate": 1e-3,
}


def command(*arguments: str) -> list[str]:
    """`viper-job` in verl's environment."""
    return [verl_python(), "-m", "viper_jobs.main", *arguments]


def environment() -> dict[str, str]:
    """What `command` needs around it."""
    found = without_gpu()
    return {**found, "PYTHONPATH": os.pathsep.join([found["PYTHONPATH"], str(ROOT / "jobs")])}


class Job:
    """`viper-job STAGE` in verl's environment; iterating over it gives what it prints, line by line.

    `within` is a command that runs it, `variables` come over its environment.
    """

    def __init__(self, ctx: StageContext, within: Sequence[str] = (), **variables: str) -> None:
        self.work_dir = ctx.work_dir / "grpo"
        uri = f"{ctx.store.uri}/{ctx.frozen.prefix}"
        self._child = subprocess.Popen(
            [*within, *command(ctx.stage, "--iteration", uri, "--work-dir", str(ctx.work_dir))],
            env={**environment(), **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.printed: list[str] = []

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def __iter__(self) -> Iterator[str]:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self.printed.append(line)
            yield line

    def until(self, text: str) -> None:
        """Reads on until a line has `text`."""
        assert any(text in line for line in self), f"it ended before it said {text!r}: {self.said()}"

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def finish(self) -> int:
        for _ in self:
            pass
        return self._child.wait()

    def said(self) -> str:
        return "".join(self.printed[-60:])


def varied(number: int) -> dict[str, Any]:
    """A sample whose prompt is as long as no other's of its batch."""
    side = 56 + 28 * (number % 5)
    return validated(
        number,
        image=png(number, side),
        edited=png(1000 + number, side),
        caption=" ".join(["At top is a small plain red ring."] * (1 + number % 7)),
        refinement=["The background is smooth gray.", "At right is a small plain pink ring."],
        instruction="Change the background from smooth white to lined navy.",
    )


def stage(folder: Path, name: str, recipe: dict[str, Any]) -> StageContext:
    store, work = open_store(folder / "store"), folder / "work"
    theta0 = ResolvedModel(uri=STARTER.as_uri(), digest=directory_digest(STARTER))
    ctx = open_stage(store, work, name, theta0, recipe=recipe, make=varied, engines=ENGINES)
    registry = Registry(sqlite_uri(folder / "mlflow"))
    run = registry.iteration_run("small", "it", folder.name)
    frozen = ctx.frozen.model_copy(update={"tracking": Tracking(uri=registry.uri, parent_run=run)})
    store.put(f"{frozen.prefix}/iteration.json", json.dumps(frozen.dump()).encode())
    return StageContext(frozen, store, name, work)


def completed(ctx: StageContext, job: Job) -> Manifest:
    assert job.finish() == 0, job.said()
    manifest = ctx.done()
    assert manifest is not None
    assert process.marked(process.mark_of(job.work_dir)) == []
    assert not job.work_dir.exists()
    return manifest


def lines(ctx: StageContext, key: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ctx.store.get(f"{ctx.prefix}/{key}").splitlines()]


def points(ctx: StageContext) -> list[int]:
    """Steps of the reward in the stage's one run in MLflow."""
    registry = Registry(ctx.frozen.tracking.uri)
    run = registry.find_stage_run(ctx.frozen.tracking.parent_run, ctx.stage)
    assert run is not None
    return sorted(p.step for p in registry.connection.call("get_metric_history", run, "reward/mean"))


def pids(text: str, mark: str | None = None, parent: int | None = None) -> list[int]:
    """Processes whose command line has `text`, those that carry a mark or those of a parent."""
    found = []
    for pid in process.marked(mark) if mark else [int(p.name) for p in Path("/proc").glob("[0-9]*")]:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text("utf-8")
            owner = int(Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if text in command and parent in (None, owner):
            found.append(pid)
    return found
