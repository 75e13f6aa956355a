"""What cannot fit is said before anything is started: bounds from the number of weights, never guesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from viper.errors import InputError
from viper.spec.engines import VerlSettings
from viper.training.verl.config import VerlHardware
from viper.training.verl.preflight import UNKNOWN, Machine, check, host_memory, needs, weights_of

GIB = 2**30
SEVEN_BILLION = 8_292_166_656  # Qwen2.5-VL-7B
EIGHT = VerlHardware(nodes=1, gpus_per_node=8)
A100 = Machine(gpu=80 * GIB, host=1000 * GIB, disk=1000 * GIB)


def test_the_papers_machine_is_enough_for_the_papers_model() -> None:
    found = needs(SEVEN_BILLION, EIGHT, VerlSettings(), candidates=True)
    check(found, A100, share=0.5)
    assert found.updating == 16 * SEVEN_BILLION // 8
    assert found.host == 6 * SEVEN_BILLION


def test_offloading_moves_bytes_from_the_gpu_to_the_host() -> None:
    plain = needs(SEVEN_BILLION, EIGHT, VerlSettings(), candidates=False)
    moved = needs(SEVEN_BILLION, EIGHT, VerlSettings(param_offload=True, optimizer_offload=True), candidates=False)
    assert (plain.resident - moved.resident) * 8 == moved.host - plain.host == 12 * SEVEN_BILLION
    assert moved.updating == plain.updating // 2


@pytest.mark.parametrize(
    ("hardware", "machine", "share", "what"),
    [
        (VerlHardware(gpus_per_node=1), A100, 0.5, "while weights are updated"),
        (EIGHT, A100, 0.1, "rollout engine's share"),
        (EIGHT, A100, 0.9, "while outputs are sampled"),
        (EIGHT, Machine(80 * GIB, 32 * GIB, None), 0.5, "a node's memory"),
        (EIGHT, Machine(80 * GIB, None, 100 * GIB), 0.5, "work directory's disk"),
    ],
)
def test_the_bound_that_is_not_met_is_named(hardware: VerlHardware, machine: Machine, share: float, what: str) -> None:
    with pytest.raises(InputError, match=what):
        check(needs(SEVEN_BILLION, hardware, VerlSettings(), candidates=False), machine, share)


def test_what_is_not_known_is_not_judged() -> None:
    check(needs(SEVEN_BILLION, VerlHardware(), VerlSettings(), candidates=True), UNKNOWN, 0.5)


def test_weights_are_counted_from_headers(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "one.safetensors")
    save_file({"c": np.ones((), np.float32)}, tmp_path / "two.safetensors")
    assert weights_of(tmp_path) == 18


def test_the_limit_of_the_container_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n", "utf-8")
    assert host_memory(tmp_path) == 2048 * 1024
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1048576\n", "utf-8")
    assert host_memory(tmp_path) == 1048576
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n", "utf-8")
    assert host_memory(tmp_path) == 2048 * 1024
    assert host_memory(tmp_path / "nothing") is None
