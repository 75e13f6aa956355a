"""One iteration on what our own stages wrote, both its trainings by verl, and everything it stands on taken from it.

Each stage program runs in the environment of its image; verl's processes, the reward service and MLflow's server are
the real ones. Whatever goes down, nobody does more than to start the same run again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from verl_jobs import ENGINES, STEPS, TRAINING, lines, pids, points

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(2400)]

from end_to_end.test_small_world import iteration  # noqa: E402
from servers.running import MlflowServer  # noqa: E402
from support.verl_environment import ROOT  # noqa: E402
from viper.cli import main  # noqa: E402
from viper.errors import RegistryError  # noqa: E402
from viper.local import RunDirectory  # noqa: E402
from viper.methods.stages import (  # noqa: E402
    SYNTHESIZE_CAPTIONS,
    TRAIN_CAPTIONS,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
)
from viper.registry import Registry  # noqa: E402
from viper.stage import (  # noqa: E402
    Manifest,
    StageContext,
    load_frozen,
    load_manifest,
)
from viper.store import open_store  # noqa: E402
from viper.training.verl import checkpoints, process  # noqa: E402

#: Of one step.
OUTPUTS = TRAINING["batchPrompts"] * TRAINING["groupSize"]


class Run:
    """`viper run` in a process of its own, with each stage in its image's environment."""

    def __init__(self, file: Path, folder: Path, tracking: str) -> None:
        self.file, self.folder, self.tracking = file, folder, tracking
        self.name = file.stem
        self._output = folder.with_suffix(".txt")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        paths = (ROOT / "tests", ROOT / "tests" / "training")
        # The client's patience with a server that is down is not what is tried here.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        }
        command = [sys.executable, "-m", "end_to_end.runner", "verl_program:program"]
        with self._output.open("ab") as output:
            arguments = [str(self.file), str(self.folder), self.tracking]
            self._child = subprocess.Popen([*command, *arguments], env=environment, stdout=output, stderr=output)
        # Who follows it looks for its process, which is there until somebody has waited for it.
        threading.Thread(target=self._child.wait, daemon=True).start()

    def work(self, stage: str) -> Path:
        return RunDirectory(self.folder).work(self.name, stage) / "grpo"

    def said(self, stage: str, attempt: int) -> Iterator[str]:
        """What an attempt of a stage says, line by line as it comes, until this run ends."""
        return self._follow(self.folder / "logs" / self.name / f"{stage}-{attempt}.log")

    def printed(self) -> Iterator[str]:
        return self._follow(self._output)

    def output(self) -> str:
        return self._output.read_text("utf-8")[-3000:]

    def finish(self) -> int:
        assert self._child is not None
        return self._child.wait()

    def kill(self) -> None:
        """SIGKILL; afterwards none of its stages is there any more."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        with RunDirectory(self.folder).lock():
            pass

    def _follow(self, file: Path) -> Iterator[str]:
        assert self._child is not None
        options = ["--retry", "--follow=name", "--lines=+1", "--sleep-interval=0.2", f"--pid={self._child.pid}"]
        command = ["tail", *options, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tail:
            assert tail.stdout is not None
            try:
                yield from tail.stdout
            finally:
                tail.kill()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server of this test's own: it goes down."""
    with MlflowServer(tmp_path / "mlflow") as server:
        yield server


@pytest.fixture
def runs(tmp_path: Path, mlflow: MlflowServer) -> Iterator[Callable[[str], Run]]:
    """Makes the run of an iteration with this name; none outlives the test."""
    made: list[Run] = []

    def make(name: str) -> Run:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(resource(name)), "utf-8")
        made.append(Run(file, tmp_path / name, mlflow.url))
        return made[-1]

    yield make
    for run in made:
        run.kill()


def until(said: Iterator[str], text: str, run: Run) -> str:
    """The first line with `text`."""
    found = next((line for line in said if text in line), None)
    assert found is not None, f"it ended before it said {text!r}: {run.output()}"
    return found


def resource(name: str) -> dict[str, Any]:
    made = iteration()
    spec, recipe = made["spec"], made["spec"]["recipe"]
    spec["engines"] = ENGINES
    spec["images"]["limit"] = 48
    spec["promotion"] = {"policy": "Manual"}
    spec["profile"]["defaults"]["retries"] = 1
    recipe["validation"]["heldOutShare"] = 0.2
    recipe["operations"]["editsPerImage"] = 4  # one in four is an edit that can be carried out
    quick = {**TRAINING, "learningRate": 1e-4}
    recipe["captions"]["training"] = {**quick, "maxResponseTokens": 90}
    recipe["operations"]["training"] = {**quick, "select": "heldOutReward"}
    return {**made, "metadata": {"name": name}}


def test_what_our_stages_wrote_is_trained_on_registered_and_writes_the_next_captions(
    tmp_path: Path, mlflow: MlflowServer, runs: Callable[[str], Run]
) -> None:
    run = runs("it")
    store = open_store(run.folder / "store")

    # Captions: killed in the middle, the newest checkpoint damaged, and MLflow down until all steps are taken.
    run.start()
    until(run.said(TRAIN_CAPTIONS, 1), "step:3 -", run)
    run.kill()
    root = run.work(TRAIN_CAPTIONS) / "checkpoints"
    good = checkpoints.declared(root)
    assert len(good) == 2
    (checkpoints.step_dir(root, good[-1]) / "actor" / "model_world_size_1_rank_0.pt").unlink()
    mlflow.kill()
    run.start()
    until(run.said(TRAIN_CAPTIONS, 2), f"Resuming from {checkpoints.step_dir(root, good[0])}", run)
    assert run.finish() == RegistryError.exit_code, run.output()
    assert load_manifest(store, "iterations/it", TRAIN_CAPTIONS) is None
    mlflow.start()
    run.start()

    # Operations: the reward service goes in the middle of a step, MLflow and one of Ray's workers with it.
    said = run.said(TRAIN_OPERATIONS, 1)
    until(said, "step:1 -", run)
    stage = pids(TRAIN_OPERATIONS)
    service = [pid for parent in stage for pid in pids("viper.reward.service", parent=parent)]
    assert len(service) == 1
    mlflow.kill()
    os.kill(service[0], signal.SIGKILL)
    until(said, "step:2 -", run)
    mark = process.mark_of(run.work(TRAIN_OPERATIONS))
    os.kill(pids("ray::WorkerDict", mark=mark)[0], signal.SIGKILL)
    until(said, "it goes on from step", run)
    mlflow.start()
    assert run.finish() == 0, run.output()

    # What was trained without MLflow is recorded, and not trained again.
    attempts = sorted((run.folder / "logs" / "it").glob(f"{TRAIN_CAPTIONS}-*.log"))
    assert ["step:" in log.read_text("utf-8") for log in attempts] == [True, True, False, False]

    frozen = load_frozen(store, "it")
    assert frozen is not None
    done = {
        stage: StageContext(frozen, store, stage, tmp_path)
        for stage in (VALIDATE_CAPTIONS, TRAIN_CAPTIONS, VALIDATE_OPERATIONS, TRAIN_OPERATIONS)
    }
    made: dict[str, Manifest] = {stage: ctx.manifest(stage) for stage, ctx in done.items()}
    theta1 = made[TRAIN_CAPTIONS].outputs["model"]["digest"]
    assert theta1 != frozen.generator.digest
    for stage, data, author in (
        (TRAIN_CAPTIONS, VALIDATE_CAPTIONS, frozen.generator.digest),
        (TRAIN_OPERATIONS, VALIDATE_OPERATIONS, theta1),
    ):
        outputs = made[stage].outputs
        curves = lines(done[stage], outputs["curves"])
        assert outputs["steps"] == STEPS
        assert [row["step"] for row in curves] == [1, 2, 3, 4]
        assert any(row["grad_norm"] > 0 for row in curves)
        assert points(done[stage]) == [1, 2, 3, 4]
        rollouts = lines(done[stage], outputs["rollouts"])
        assert len(rollouts) == STEPS * OUTPUTS
        assert {row["generator"] for row in rollouts} == {author}
        written = {row["sample_id"] for row in done[data].rows(data, ["sample_id"])}
        assert {row["sample_id"] for row in rollouts} <= written
        assert sum(outputs["samples"].values()) == len(written)
        assert process.marked(process.mark_of(run.work(stage))) == []
    curves = lines(done[TRAIN_OPERATIONS], made[TRAIN_OPERATIONS].outputs["curves"])
    scores = {row["step"]: row["held_out/reward"] for row in curves}
    best, theta2 = made[TRAIN_OPERATIONS].outputs["best_step"], made[TRAIN_OPERATIONS].outputs["model"]["digest"]
    assert best == 0 or scores[best] == max(scores.values())
    assert (theta2 == theta1) == (best == 0)

    # What came out is a version; promoted, it is θ0 of the next iteration and writes its captions.
    version = Registry(mlflow.url).versions("smallworld")[-1]
    assert version.digest == theta2
    assert main(["promote", str(run.folder), "--reason", "trained by verl"]) == 0
    second = runs("next")
    second.start()
    until(second.printed(), f"{SYNTHESIZE_CAPTIONS} done", second)
    second.kill()
    later = load_frozen(open_store(second.folder / "store"), "next")
    assert later is not None
    assert later.generator.digest == theta2
    ctx = StageContext(later, open_store(second.folder / "store"), SYNTHESIZE_CAPTIONS, tmp_path)
    captions = [row["caption"] for row in ctx.rows(SYNTHESIZE_CAPTIONS, ["caption"])]
    assert len(captions) >= 12
    assert len(set(captions)) > 1
