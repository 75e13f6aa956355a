"""Checks of `viper doctor`, fed with facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from viper.costs.profiles import find_profile
from viper.doctor import EngineMemory, Facts, Finding, Gpu, MeasuredMemory, Place, Volume, Wanted, examine, wanted_by
from viper.doctor.facts import GB, GIB
from viper.methods.stages import SYNTHESIZE_CAPTIONS, TRAIN_CAPTIONS
from viper.spec import Profile

A100 = Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20, 81000 * 2**20)
NODE = Facts(
    cpus=96,
    memory=1024 * GIB,
    shm=Volume("/dev/shm", 512 * GIB, 512 * GIB),
    work=Volume("/work", 2000 * GB, 1000 * GB),
    cache=Volume("/models", 2000 * GB, 1000 * GB),
    driver="580.65.06",
    gpus=(A100,) * 8,
    torch_cuda="13.0",
    libraries={"torch": "2.15.0"},
    locked={"torch": ("2.14.1", "2.15.0"), "trl": ("1.16.0",)},
    lock="the.lock",
)
PROFILE = wanted_by(find_profile("a100-8x"))


def finding(check: str, wanted: Wanted = PROFILE, **facts: Any) -> Finding:
    """The one finding of that name on a node with other facts."""
    (found,) = [f for f in examine(replace(NODE, **facts), wanted) if f.check == check]
    return found


def test_a_node_that_has_everything_passes_every_check() -> None:
    assert {f.level for f in examine(NODE, PROFILE)} == {"ok"}


def test_what_a_profile_wants_is_what_its_largest_pod_gets() -> None:
    assert (PROFILE.gpus, PROFILE.cpus, PROFILE.memory, PROFILE.shm) == (8, 80, 640 * GIB, 256 * GIB)
    shard = wanted_by(find_profile("a100-8x"), SYNTHESIZE_CAPTIONS)
    assert (shard.gpus, shard.cpus, shard.memory, shard.shm) == (1, 10, 80 * GIB, 16 * GIB)
    assert wanted_by(find_profile("cpu-small"), TRAIN_CAPTIONS).device == "cpu"
    cache = {"claimName": "models"}
    read_only = Profile.model_validate({"defaults": {"modelCache": cache, "gpuMemory": "40Gi"}})
    assert (wanted_by(read_only).cache_read_only, wanted_by(read_only).gpu_memory) == (True, 40 * GIB)


@pytest.mark.parametrize(
    ("check", "facts", "level", "says"),
    [
        ("GPUs", {"gpus": (), "nvidia_smi": "no nvidia-smi"}, "fail", "where the GPUs are"),
        ("GPUs", {"gpus": (A100,) * 4}, "fail", "larger nodes"),
        ("GPU kind", {"gpus": (Gpu("NVIDIA H200", 140 * GIB, 140 * GIB),) * 8}, "warn", "another GPU"),
        ("GPU memory", {"gpus": (Gpu("NVIDIA A100-SXM4-40GB", 40 * GIB, 40 * GIB),) * 8}, "fail", "gpuMemory"),
        ("GPU memory", {"gpus": (replace(A100, free=10 * GIB),) * 8}, "warn", "nvidia-smi"),
        ("driver", {"driver": "550.1"}, "fail", "update NVIDIA's driver"),
        ("driver", {"torch_cuda": ""}, "fail", "image"),
        ("CPU threads", {"cpus": 8}, "warn", "requests.cpu"),
        ("RAM", {"memory": 64 * GIB}, "fail", "requests.memory"),
        ("/dev/shm", {"shm": Volume("/dev/shm", 64 * 2**20, 64 * 2**20)}, "fail", "shmSize"),
        ("/dev/shm", {"shm": Volume("/dev/shm", problem="No such file")}, "fail", "tmpfs"),
        ("work directory", {"work": Volume("/work", GB, GB)}, "warn", "workSize"),
        ("work directory", {"work": Volume("/work", GB, GB, writable=False)}, "fail", "--work-dir"),
        ("model cache", {"cache": Volume("/models", GB, 1)}, "warn", "modelCache"),
        ("model cache", {"cache": Volume("/models", GB, GB, writable=False)}, "warn", ""),
        ("model cache", {"cache": Volume("/models", problem="Stale file handle")}, "fail", "VIPER_MODEL_CACHE"),
        ("libraries", {"libraries": {"torch": "2.14.0"}}, "warn", "the.lock"),
        ("libraries", {"locked": {}}, "warn", "--lock"),
        ("store", {"servers": (Place("store", "s3://b", "is down", "start it"),)}, "fail", "start it"),
        ("model", {"models": (Place("model", "hf://a/b", "is not in the cache", "pull it"),)}, "fail", "pull it"),
        ("memory of editor", {"phases": (EngineMemory("editor", "x", "spec.e", 90 * GIB),)}, "fail", "spec.e.offload"),
        (
            "memory of editor",
            {"phases": (EngineMemory("editor", "x", "spec.e", problem="unknown", fix="pull"),)},
            "warn",
            "pull",
        ),
    ],
)
def test_what_is_wrong_is_found_with_what_to_change(check: str, facts: dict[str, Any], level: str, says: str) -> None:
    found = finding(check, **facts)
    assert found.level == level
    assert says in found.fix


def test_planned_memory_is_held_against_what_the_profile_says_where_that_is_less() -> None:
    phases = (EngineMemory("editor", "x", "spec.e", 50 * GIB),)
    assert finding("memory of editor", phases=phases).level == "ok"
    assert finding("memory of editor", replace(PROFILE, gpu_memory=40 * GIB), phases=phases).level == "fail"
    assert finding("memory of editor", replace(PROFILE, gpu_memory=40 * GIB), phases=phases, gpus=()).level == "fail"


def test_without_a_profile_a_machine_without_gpus_is_fine() -> None:
    small = replace(NODE, gpus=(), driver="", nvidia_smi="no nvidia-smi")
    assert {f.level for f in examine(small, Wanted())} == {"ok"}


def test_a_cache_that_the_profile_mounts_read_only_need_not_be_writable() -> None:
    wanted = replace(PROFILE, cache_read_only=True)
    found = finding("model cache", wanted, cache=Volume("/models", GB, 0, writable=False))
    assert (found.level, "nothing is downloaded" in found.found) == ("ok", True)


def test_every_finding_that_is_not_ok_says_what_to_change_except_a_cache_nobody_asked_for() -> None:
    bad = replace(
        NODE,
        gpus=(),
        cpus=1,
        memory=GIB,
        shm=Volume("/dev/shm", 1, 1),
        work=Volume("/work", 1, 1),
        libraries={"torch": "1"},
    )
    assert all(f.fix for f in examine(bad, PROFILE) if f.level != "ok")


DRAWN = MeasuredMemory("drawing", "an H200", "reconstructor", "qwen-image", 57 * GIB, 58 * GIB, 55 * GIB, 59 * GIB)
PLANNED = EngineMemory("reconstructor", "qwen-image", "spec.x", 70 * GIB, interface="reconstructor", weights=62 * GIB)


@pytest.mark.parametrize(
    ("phase", "measured", "needed", "how"),
    [
        (PLANNED, (), 70, "planned"),
        (
            PLANNED,
            (DRAWN,),
            66,
            "by what was measured on an H200, 70.0 GiB planned",
        ),  # half of the work that was planned
        (PLANNED, (replace(DRAWN, bytes=63 * GIB),), 78, "by what was measured"),  # twice
        (PLANNED, (replace(DRAWN, planned=9999 * GIB), DRAWN), 66, "by what was measured"),  # the one of like size
        (PLANNED, (replace(DRAWN, engine="other"),), 70, "planned"),
        (PLANNED, (replace(DRAWN, interface="editor"),), 70, "planned"),
        (PLANNED, (replace(DRAWN, tiny=True),), 70, "planned"),
        (PLANNED, (replace(DRAWN, planned=None),), 70, "planned"),
        (PLANNED, (replace(DRAWN, weights=59 * GIB),), 70, "planned"),  # its plan has no work in it
        (PLANNED, (replace(DRAWN, bytes=50 * GIB),), 62, "by what was measured"),  # never less than the weights
        (replace(PLANNED, weights=None), (DRAWN,), 70, "planned"),  # an engine that does not say what is weights
    ],
)
def test_what_was_measured_takes_the_place_of_the_estimate(
    phase: EngineMemory, measured: tuple[MeasuredMemory, ...], needed: int, how: str
) -> None:
    found = finding("memory of reconstructor", phases=(phase,), measured=measured)
    assert found.found.startswith(f"{needed}.0 GiB {how}")
    assert found.level == ("fail" if needed > A100.memory / GIB else "ok")


@pytest.mark.parametrize(
    ("figure", "level", "says"),
    [
        (DRAWN, "ok", ""),
        (replace(DRAWN, planned=None), "ok", ""),
        (replace(DRAWN, kept=90 * GIB), "warn", "more memory"),
        (replace(DRAWN, bytes=61 * GIB), "warn", "the plan of qwen-image is 2.0 GiB short"),
        (replace(DRAWN, bytes=61 * GIB, tiny=True), "ok", ""),
    ],
)
def test_a_measured_figure_is_held_against_the_gpu_and_the_plan(figure: MeasuredMemory, level: str, says: str) -> None:
    found = finding("measured: drawing", measured=(figure,))
    assert (found.level, says in found.fix) == (level, True)
    assert "on an H200" in found.found
    assert found.wanted.endswith("up to 80.0 GiB")
