"""What the OmniGen2 editor gives to vLLM-Omni, held against the installed vLLM-Omni's own parser and routes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from engines.edits_server import KNOWN
from support.environments import interpreter

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_installed_vllm_omni_takes_the_command_line_and_has_the_form_of_the_fake(tmp_path: Path) -> None:
    python = Path(interpreter("vllm")).parents[1] / "omni" / "bin" / "python"
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "weights.safetensors").touch()
    made = subprocess.run(
        [python, HERE / "omni_check.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    report = json.loads(made.stdout.splitlines()[-1])
    pinned = (HERE.parents[1] / "images/synthesis/omni.lock").read_text("utf-8")
    assert f"\nvllm-omni=={report['version']} " in pinned
    assert report["known"] == ["OmniGen2Pipeline"]
    plain = {
        **{"model": str(tmp_path), "host": "127.0.0.1", "port": 8123, "dtype": "bfloat16", "eager": True},
        **{"model_offload": False, "layer_offload": False, "tiling": False, "lora_path": None, "lora_scale": None},
    }
    assert report["plain"] == plain
    assert report["tuned"] == plain | {
        **{"eager": False, "layer_offload": True, "tiling": True},
        **{"lora_path": [str(tmp_path / "lora")], "lora_scale": 0.5},
    }
    assert report["offloaded"] == plain | {"model_offload": True, "dtype": "float16"}
    assert set(report["fields"]) == KNOWN
