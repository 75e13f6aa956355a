"""A fake engine for stages in a process of their own: `spec.engines.vlm: scripted_vlm:ScriptedVlm`.

The model directory holds `answers.json`: part of a prompt → what is said to it. Environment: VIPER_TEST_LOG is a file
that receives every prompt that is asked; VIPER_TEST_KILL the number of batches after which the process is killed while
it answers the next one.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from viper.engines.base import Sampling, VlmOutput, VlmRequest

_batches = 0


class ScriptedVlm:
    """Says what its directory has, after a block of reasoning with a blank line in it."""

    def __init__(self, model_dir: Path) -> None:
        self._answers: dict[str, str] = json.loads((model_dir / "answers.json").read_text("utf-8"))

    @property
    def engine_id(self) -> str:
        return "scripted"

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        global _batches  # noqa: PLW0603 - of the process, whatever number of models it opens
        if (limit := os.environ.get("VIPER_TEST_KILL")) and _batches == int(limit):
            os.kill(os.getpid(), signal.SIGKILL)
        _batches += 1
        assert sampling.temperature == 0
        with Path(os.environ["VIPER_TEST_LOG"]).open("a", encoding="utf-8") as log:
            log.writelines(json.dumps([len(r.images), sampling.max_tokens, r.prompt]) + "\n" for r in requests)
        return [self._said(r.prompt) for r in requests]

    def _said(self, prompt: str) -> VlmOutput:
        text = next((a for q, a in self._answers.items() if q in prompt), "")
        if "Final Answer:" in prompt:
            text = f"It is plain to see.\nFinal Answer: {text}"
        return VlmOutput(f"<think>First A.\n\nThen B or C.</think>\n{text}", bool(text), 9)
