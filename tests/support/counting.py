"""The real transformers engine, which also logs every batch: kept apart because it imports torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.transformers_vlm import TransformersVlm


class CountingTransformersVlm(TransformersVlm):
    """Appends [first word of the prompt, requests, seed] to $FAKE_LOG for every batch."""

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        outputs = super().generate(requests, sampling)
        with Path(os.environ["FAKE_LOG"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([requests[0].prompt.split()[0], len(requests), sampling.seed]) + "\n")
        return outputs
