"""The kit for a GPU, tried with tiny shapes on the CPU: every part runs, and every figure lands where it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.results import table
from viper.cli import main
from viper.costs.device import load_report
from viper.costs.table import Rate, load_table
from viper.engines.names import ENGINES

pytestmark = pytest.mark.torch

OURS = tuple(part.name for part in PARTS)


@pytest.fixture(scope="module")
def data(report: Path) -> Any:
    return json.loads(report.read_text("utf-8"))


@pytest.fixture(scope="module")
def parts(data: Any) -> Any:
    return {part["name"]: part for part in data["parts"]}


@pytest.mark.parametrize("name", OURS)
def test_a_part_runs_at_tiny_size(parts: Any, name: str) -> None:
    assert parts[name]["state"] == "done", parts[name]["problem"]
    assert parts[name]["leftOut"] == []


@pytest.mark.parametrize("name", [n for n in OURS if n != "start"])
def test_a_part_has_figures_of_time_and_of_memory(data: Any, name: str) -> None:
    assert {f["unit"] for f in data["figures"] if f["part"] == name} == {"s", "B"}


@pytest.mark.parametrize(
    ("name", "state", "problem"),
    [
        ("raises", "failed", "ValueError: as it were"),
        ("killed", "killed", "killed by SIGKILL"),
        ("hangs", "killed", "took longer than"),
        ("late", "left out", "left of the budget"),
    ],
)
def test_a_part_that_does_not_end_well_costs_only_itself(
    data: Any, parts: Any, name: str, state: str, problem: str
) -> None:
    assert (parts[name]["state"], problem in parts[name]["problem"]) == (state, True), parts[name]
    assert [f["name"] for f in data["figures"] if f["part"] == name] == {
        "raises": ["before it raises"],
        "killed": ["before it is killed"],
        "hangs": [],
        "late": [],
    }[name]
    assert parts["well"]["state"] == "done"


def test_what_cannot_be_measured_is_said_beside_what_can(parts: Any) -> None:
    assert parts["well"]["leftOut"] == ["an error: ZeroDivisionError: integer division or modulo by zero"]


def test_another_attention_function_is_measured_beside_sdpa(data: Any) -> None:
    names = [f["name"] for f in data["figures"] if "forward and backward" in f["name"] and f["unit"] == "s"]
    ours = [name for name in names if name.endswith("broken_parts:attend")]
    assert [name.rpartition(", ")[0] for name in ours] == [n.rpartition(", ")[0] for n in names if n.endswith("sdpa")]


def test_the_report_says_what_it_ran_on_and_is_read_as_it_is_written(data: Any, report: Path) -> None:
    assert data["finished"]
    assert data["versions"]["torch"]
    read = load_report(report)
    assert (read.device.backend, read.tiny, len(read.figures)) == ("cpu", True, len(data["figures"]))
    assert "TINY SHAPES" in next(table(data))


def test_every_figure_of_time_is_a_rate_that_was_measured(data: Any, report: Path) -> None:
    rates = [r for r in load_table(report).rates if r.kind == "measured"]
    times = [f for f in data["figures"] if f["unit"] == "s"]
    assert [r.seconds for r in rates] == [(f["low"], f["high"]) for f in times]


def iteration(rate: Rate) -> dict[str, Any]:
    """A file with the settings that a rate was measured with."""
    diffusion = {
        **{"steps": rate.steps or 50, "guidance": 4.0 if rate.passes == 2 else 1.0},
        **{"cache": "firstBlock" if "cache" in rate.factors else "none", "compile": "compile" in rate.factors},
    }
    side = round((rate.megapixels or 1) ** 0.5 * 1000)
    engines = {
        **{"vlm": "transformers", "trainer": "trl", "similarity": "bge-m3:/m", "imageSimilarity": "open-clip:/m"},
        **{
            "reconstructor": "qwen-image:/m",
            "editor": "qwen-image-edit:/m",
            "generation": {"batch": rate.batch or 256},
        },
        **{"reconstruction": diffusion, "editing": diffusion | {"maxPixels": side * side}},
    }
    role = {"reconstruct": "reconstructor", "edit": "editor"}.get(rate.work)
    if role and rate.engine:  # else of any
        known = rate.engine in ENGINES[role]  # or the module of an engine of one's own
        engines[role] = f"{rate.engine}:{'/m' if known else 'Engine'}"
    return {
        **{"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "metadata": {"name": "it"}},
        "spec": {
            "model": "m",
            "generator": {"uri": f"hf://Qwen/Qwen2.5-VL-{rate.billions or 7:g}B-Instruct"},
            "images": {"uri": "s3://photographs", "limit": 1000},
            "engines": engines,
            "recipe": {
                "captions": {"samples": 100, "reconstructionSize": side},
                "operations": {"samples": 100},
                "coldStart": {"samplesUri": "s3://samples/cold.jsonl"},
            },
            "evaluation": {"questions": "s3://questions/held-out.jsonl"},
            "profile": {"device": "cpu"},
        },
    }


def test_every_figure_of_time_lands_in_a_plan(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load_table(report)
    file = tmp_path / "it.json"
    for rate in (r for r in table.rates if r.kind == "measured"):
        file.write_text(json.dumps(iteration(rate)))
        assert main(["plan", str(file), "--rates", str(report), "--questions", "10", "-o", "json"]) == 0
        plan = json.loads(capsys.readouterr().out)["iteration"]
        said = [
            text
            for stage in plan["stages"]
            if stage["secondsPerItem"][1] > 0
            for text in (*stage["sources"], *stage["notes"])
            if f"measured: {rate.source}" in text
        ]
        assert said, f"{rate.source} is in no plan of its own settings"
        assert "tiny shapes" in plan["assumptions"][-1]


def test_every_figure_of_memory_lands_in_doctor(data: Any, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--measured", str(report), "-o", "json"])
    found = {f["check"]: f["found"] for f in json.loads(capsys.readouterr().out)}
    memory = [f for f in data["figures"] if f["unit"] == "B"]
    assert len({f["name"] for f in memory}) == len(memory)
    for figure in memory:
        assert f"{figure['value'] / 2**20:.1f} MiB" in found[f"measured: {figure['name']}"]
