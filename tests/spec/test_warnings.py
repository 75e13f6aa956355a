"""What is allowed and seldom meant is said before anything is paid for, by every command line that reads the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from viper.cli import main

BENCHMARKS = {"tasks": {"blink": {}}, "datasets": "/data"}


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"promotion": {}}, True),
        ({"promotion": {"gate": {"unmeasured": "Hold"}}}, True),
        ({"promotion": {}, "evaluation": {"limit": 5}}, True),
        ({"promotion": {"gate": {"unmeasured": "Promote"}}}, False),
        ({"promotion": {"policy": "Manual"}}, False),
        ({"promotion": {"policy": "Never"}}, False),
        ({"promotion": {}, "evaluation": {"questions": "smallworld:questions"}}, False),
        ({"promotion": {}, "evaluation": {"benchmarks": BENCHMARKS}}, False),
    ],
)
def test_an_iteration_that_asks_nothing(fields: dict[str, Any], warned: bool) -> None:
    assert bool(world.iteration(**fields).spec.warnings()) == warned


def test_it_is_said_by_render_and_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one = world.iteration(promotion={})
    (tmp_path / "it.json").write_text(json.dumps(one.dump()))
    monkeypatch.chdir(tmp_path)
    for command in (["render", "it.json"], ["plan", "it.json"]):
        assert main(command) == 0
        assert "ask nothing: the promotion will be held" in "".join(capfd.readouterr()), command
