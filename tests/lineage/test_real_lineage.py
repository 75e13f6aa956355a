"""Two real iterations of the small world, walked back to the starter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.small_runs import loop, run_small, small_demo
from viper.cli import main


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_iterations_lead_back_to_the_starter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The gate would hold a model that six questions call worse.
    spec = small_demo(images=24) | {"promotion": {"gate": {"significance": 0.0001}}}
    directory = run_small(tmp_path, loop(spec, iterations=2))
    assert main(["lineage", "3", "--dir", str(directory), "--samples", "--json"]) == 0
    third = json.loads(capsys.readouterr().out)
    second = third["parent"]
    first = second["parent"]
    assert [v["problems"] for v in (third, second, first)] == [[], [], []]
    assert (first["version"], first["origin"], first["uri"]) == (1, "base", "smallworld:starter")

    recorded = {s["name"]: s for s in third["iteration"]["stages"]}
    assert {s["state"] for n, s in recorded.items() if n != "promote"} == {"as recorded"}
    # Captions are written by version 2, operations by what the first training made of it.
    assert recorded["synthesize-captions"]["author"]["version"] == 2
    assert recorded["synthesize-captions"]["author"]["digest"] == second["digest"]
    assert recorded["train-operations"]["made"]["digest"] == third["digest"]
    theta1 = recorded["train-captions"]["made"]["digest"]
    for sample in third["samples"]:
        expected = second["digest"] if sample["stage"] == "validate-captions" else theta1
        assert sample["author"]["digest"] == expected == sample["passport"]["models"]["generator"]
    rollouts = [r for s in third["samples"] for r in s["rollouts"]]
    # One step of at most four prompts with five outputs each, in both stages.
    assert {r["outputs"] for r in rollouts} == {5}
    assert {r["stage"] for r in rollouts} == {"train-captions", "train-operations"}
    given = sum(min(4, recorded[s]["samples"]["train"]) for s in ("train-captions", "train-operations"))
    assert len(rollouts) == given
