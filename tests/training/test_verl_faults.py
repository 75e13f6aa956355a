"""The real trainer on a full disk, with a loss that is not finite, and killed when only the model is missing."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from verl_jobs import STEPS, TRAINING, Job, completed, lines, pids, points, stage

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(1200)]

from servers.kube import eventually  # noqa: E402
from servers.running import UNSHARE  # noqa: E402
from support.mounts import need_private_mounts  # noqa: E402
from support.verl_environment import without_gpu  # noqa: E402
from viper.errors import StageError, StoreError  # noqa: E402
from viper.methods.stages import TRAIN_CAPTIONS  # noqa: E402

SIZE = "256m"


class SmallDisk:
    """A file system of its own below a folder, for the programs that run `within` it; gone with its process."""

    def __init__(self, folder: Path) -> None:
        mount = f'mount -t tmpfs -o size={SIZE} tmpfs "$0" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            [*UNSHARE, "sh", "-c", mount, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"
        pid = str(self._holder.pid)
        self.within = ["nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials"]
        #: The same files for a process outside.
        self.seen = Path(f"/proc/{pid}/root", *folder.parts[1:])

    def fill(self) -> None:
        """Leaves room for a line in a log, not for a checkpoint."""
        file = self.seen / "ballast"
        free = os.statvfs(self.seen).f_bavail * os.statvfs(self.seen).f_frsize
        with file.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free - (1 << 20))

    def clear(self) -> None:
        (self.seen / "ballast").unlink()

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    need_private_mounts()
    (tmp_path / "work").mkdir()
    made = SmallDisk(tmp_path / "work")
    try:
        yield made
    finally:
        made.close()


def test_a_full_disk_a_lost_loss_and_a_kill_at_the_end_cost_a_step_at_most(tmp_path: Path, disk: SmallDisk) -> None:
    ctx = stage(tmp_path, TRAIN_CAPTIONS, {"captions": {"training": TRAINING}})

    # The checkpoint of the second step finds no room.
    job = Job(ctx, disk.within)
    job.until("step:1 -")
    disk.fill()
    assert job.finish() == StoreError.exit_code, job.said()
    assert "the disk is full" in job.said()
    assert ctx.done() is None

    # It goes on from the first one; then the loss of a step is not a number.
    disk.clear()
    modules = without_gpu()["VERL_USE_EXTERNAL_MODULES"]
    job = Job(ctx, disk.within, VERL_USE_EXTERNAL_MODULES=f"{modules},verl_cpu_nan")
    job.until("global_step_1")
    assert job.finish() == StageError.exit_code, job.said()
    assert "step 2: the policy diverged (loss nan, grad_norm nan)" in job.said()
    assert ctx.done() is None

    # It goes on from the first one again, and is killed between the last step and the model.
    job = Job(ctx, disk.within)
    job.until(f"step:{STEPS} -")
    assert any("step:2 -" in line for line in job.printed)
    assert not any("step:1 -" in line for line in job.printed)
    threading.Thread(target=job.finish, daemon=True).start()  # what it prints is still taken from it
    eventually(lambda: pids("verl.model_merger") or not job.running, patience_s=600)
    assert job.running, job.said()
    job.kill()

    # There is no step left to take, and none is taken.
    job = Job(ctx, disk.within)
    manifest = completed(ctx, job)
    assert not any("step:" in line for line in job.printed)
    assert manifest.outputs["steps"] == STEPS
    assert manifest.outputs["samples"] == {"train": 14, "held_out": 4}
    curves = lines(ctx, manifest.outputs["curves"])
    assert [row["step"] for row in curves] == [1, 2, 3, 4]
    assert all("held_out/reward" in row for row in curves)
    assert points(ctx) == [1, 2, 3, 4]
