"""verl's own reward loop, in its environment, with the reward function and the service it asks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.verl_environment import ROOT, verl_python, without_gpu
from viper.reward.equations import score_batch
from viper.smallworld.similarity import SmallWorldSimilarity

pytestmark = [pytest.mark.torch, pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `verl_loop_check.py` prints."""
    work = tmp_path_factory.mktemp("loop")
    done = subprocess.run(
        [verl_python(), Path(__file__).with_name("verl_loop_check.py"), work],
        env=without_gpu()
        | {"VERL_USE_EXTERNAL_MODULES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_64_concurrent_calls_through_verl_get_the_scores_of_one_batch(result: dict[str, Any]) -> None:
    expected = score_batch(result["outputs"], result["truths"], SmallWorldSimilarity(), finished=result["ended"])
    assert [f["reward_score"] for f in result["found"]] == [e.reward for e in expected]
    measures = [f["reward_extra_info"] for f in result["found"]]
    assert [m["recall"] for m in measures] == [e.recall for e in expected]
    assert {e.reward for e in expected} > {0.0, 1.0}


def test_verls_outputs_that_were_cut_off_lose_their_format(result: dict[str, Any]) -> None:
    measures = [f["reward_extra_info"] for f in result["found"]]
    assert [bool(m["finished"]) for m in measures] == result["ended"]
    cut = [m["format"] for m, ended in zip(measures, result["ended"], strict=True) if not ended]
    assert cut
    assert not any(cut)
    assert sum(m["format"] for m in measures) > 400


def test_a_service_that_is_gone_is_an_error_in_verls_loop_and_no_score(result: dict[str, Any]) -> None:
    assert result["gone"].startswith("EngineError")
    assert "cannot be reached" in result["gone"]
