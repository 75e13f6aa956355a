"""`viper doctor` on this machine, and the facts that it gathers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from servers.running import free_port
from viper.cli import main
from viper.doctor import gather, reach
from viper.doctor.facts import Gpu
from viper.engines.names import ENGINES
from viper.modelcache import ModelCache
from viper.spec.engines import DiffusionSettings
from viper.store import DirectoryStore

NO_SERVER = f"http://127.0.0.1:{free_port()}"


class Planning:
    """An engine that says what it will take."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def memory_needed(cls, directory: Path, settings: DiffusionSettings) -> int:
        return sum(f.stat().st_size for f in directory.iterdir()) * settings.batch


def file_of(tmp_path: Path, **spec: Any) -> Path:
    path = tmp_path / "it.yaml"
    path.write_text(json.dumps(world.iteration("it", **spec).dump()))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPER_MODEL_CACHE", str(tmp_path / "models"))


def test_it_runs_here_and_its_exit_status_says_whether_a_check_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(tmp_path, engines=dict.fromkeys(world.ENGINES, "smallworld"))
    status = main(["doctor", str(file), "--store", str(tmp_path / "store"), "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    by_name = {f["check"]: f for f in found}
    assert status == int(any(f["level"] == "fail" for f in found))
    assert by_name["CPU threads"]["found"] == str(gather.cpus())
    assert float(by_name["RAM"]["found"].split()[0]) > 0
    assert by_name["store"]["level"] == "ok"
    assert by_name["memory of editor"]["level"] == "ok"


def test_a_profile_with_more_gpus_than_there_can_be_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    spec = {"device": "cuda", "defaults": {"gpus": 64}}
    names = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperProfile", "metadata": {"name": "big"}}
    profile.write_text(json.dumps({**names, "spec": spec}))
    assert main(["doctor", "--profile", str(profile)]) == 1
    out = capsys.readouterr().out
    assert "64 GPUs" in out
    assert "→" in out


@pytest.mark.parametrize("arguments", [["--stage", "nothing"], ["--profile", "nothing"]])
def test_a_wrong_name_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [b"", b"torch\n", b"{}", b"[[[[", b"\xff\xfe\0t", b"a: 1\n", bytes(range(256)) * 100],
    ids=lambda c: repr(c[:6]),
)
def test_a_lock_that_pins_nothing_is_not_compared_with(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_bytes(content)
    assert main(["doctor", "--lock", str(lock)]) == 2
    assert f"--lock {lock}: pins no library" in capsys.readouterr().err


def test_servers_that_do_not_answer_and_models_that_are_missing_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = {
        **dict.fromkeys(world.ENGINES, "smallworld"),
        "vlm": f"openai:{NO_SERVER}/v1#model",
        "reconstructor": "smallworld:hf://org/name@main",
    }
    file = file_of(tmp_path, engines=engines, recipe={"models": {"judge": f"openai:{NO_SERVER}/v1#judge"}})
    assert main(["doctor", str(file), "--tracking-uri", NO_SERVER, "-o", "json"]) == 1
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert "does not answer" in found["MLflow"]["found"]
    assert found["endpoint of vlm"]["level"] == "fail"
    assert f"{NO_SERVER}/v1: does not answer" in found["endpoint of vlm"]["found"]
    assert found["endpoint of judge"]["level"] == "fail"
    assert found["spec.engines.reconstructor"]["fix"] == "viper models pull 'hf://org/name@main'"
    assert "not known before hf://org/name@main" in found["memory of reconstructor"]["found"]


def test_what_an_engine_plans_is_asked_with_its_models_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES["reconstructor"], "planning", f"{__name__}:Planning")
    folder = world.model(tmp_path / "model", b"w" * 1000)
    size = sum(f.stat().st_size for f in folder.iterdir())
    engines = {
        **world.ENGINES,
        "reconstructor": f"planning:{folder.as_uri()}",
        "reconstruction": {"batch": 3},
        "editor": "no.such:Engine",
    }
    spec = world.iteration("it", engines=engines).spec
    phases = {p.role: p for p in reach.planned(spec, ModelCache(tmp_path / "models"))}
    assert phases["reconstructor"].bytes == 3 * size
    assert "cannot be imported" in phases["editor"].problem


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"generator": {"uri": "hf://org/name@main"}}, {"vlm": "not known before hf://org/name@main is in the cache"}),
        ({"generator": {"alias": "best"}}, {"vlm": "not known here: m@best is looked up in the registry"}),
        ({"generator": {"version": 4}}, {"vlm": "not known here: m version 4 is looked up in the registry"}),
        (
            {"generator": {"uri": "smallworld:starter"}, "recipe": {"models": {"judge": "hf://org/judge@main"}}},
            {"judge": "not known before hf://org/judge@main is in the cache"},
        ),
        (
            {"generator": {"uri": "smallworld:starter"}, "recipe": {"models": {"critic": "openai:http://h/v1#m"}}},
            {},
        ),
        ({"engines": {**world.ENGINES, "vlm": "openai:http://h/v1"}}, {"vlm": ""}),
    ],
    ids=["hub", "alias", "version", "judge", "critic-behind-an-endpoint", "endpoint"],
)
def test_sizes_that_are_not_known_yet_are_said(tmp_path: Path, spec: dict[str, Any], found: dict[str, str]) -> None:
    phases = reach.planned(world.iteration("it", **spec).spec, ModelCache(tmp_path / "models"))
    policies = {p.role: p for p in phases if p.role in ("vlm", "critic", "judge")}
    assert policies.keys() == found.keys()
    for role, words in found.items():
        assert policies[role].problem.startswith(words)
        assert bool(policies[role].problem) == bool(words)


def test_a_store_that_cannot_be_listed_is_a_problem(tmp_path: Path) -> None:
    assert reach.store_answers(DirectoryStore(tmp_path).uri).problem == ""
    assert reach.store_answers("ftp://x").problem


@pytest.mark.parametrize(
    ("text", "gpus", "driver", "problem"),
    [
        (
            "NVIDIA A100-SXM4-80GB, 81920, 81038, 580.65.06\n" * 2,
            (Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20, 81038 * 2**20),) * 2,
            "580.65.06",
            "",
        ),
        ("Some, GPU, [N/A], [N/A], 1.2\n", (Gpu("Some, GPU", 0, 0),), "1.2", ""),
        ("", (), "", "nvidia-smi sees no GPU"),
    ],
)
def test_the_answer_of_nvidia_smi_is_read(text: str, gpus: tuple[Gpu, ...], driver: str, problem: str) -> None:
    assert gather.read_nvidia(text) == (gpus, driver, problem)


@pytest.mark.parametrize(
    ("script", "problem"),
    [("echo 'No devices were found'; exit 6", "nvidia-smi fails: No devices were found"), ("exit 0", "sees no GPU")],
)
def test_a_broken_nvidia_smi_is_told(
    script: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    gpus, _, why = gather.nvidia()
    assert gpus == ()
    assert problem in why


def test_the_limits_of_a_container_count_where_they_are_less() -> None:
    files = {"/proc/meminfo": "MemTotal:       1048576 kB\n", "/sys/fs/cgroup/memory.max": "536870912\n"}
    assert gather.memory(files.get) == 2**29
    assert gather.memory({**files, "/sys/fs/cgroup/memory.max": "max\n"}.get) == 2**30
    assert gather.cpus({"/sys/fs/cgroup/cpu.max": "100000 100000"}.get) == 1
    assert gather.cpus({"/sys/fs/cgroup/cpu.max": "max 100000"}.get) == len(os.sched_getaffinity(0))


@pytest.mark.torch
def test_versions_are_read_from_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "torch==2.15.0 \\\n    --hash=sha256:aa\n    # via viper\nOpen_CLIP.torch==3.3.0 ; python_version<'3'\n"
        "open-clip-torch==3.4 ; python_version>'3'\n"
    )
    assert gather.locked(lock) == ({"torch": ("2.15.0",), "open-clip-torch": ("3.3.0", "3.4")}, str(lock))
    assert gather.locked(tmp_path / "none")[0] == {}
    assert gather.installed()["torch"] in gather.locked()[0]["torch"]


@pytest.mark.process
def test_neither_torch_nor_mlflow_is_imported_for_it() -> None:
    code = (
        "import sys; from viper.cli import main; main(['doctor', '-o', 'json']); "
        "sys.exit(bool({'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
