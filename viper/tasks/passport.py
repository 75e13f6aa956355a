"""The sample passport: what a sample was made from and by whom, and the content-addressed id that follows from it.

The id travels inside the ground truth through training, so that each rollout's score can be traced to the checkpoint
that wrote its sample (architecture: "Sample passport").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Passport:
    """Everything that decides a sample.

    `inputs`: sha256 of further texts it was made from (the caption that an operation starts from). `prompts`: template
    digests by template name. `models`: digests of the checkpoints by role (generator, critic). `engines`: engine ids by
    interface. `seeds`: seeds by step; a batch shares its seed, so `part` and `position` (place of the sample in the
    part) belong to what decides it.
    """

    task: str
    image_id: str
    inputs: Mapping[str, str]
    prompts: Mapping[str, str]
    models: Mapping[str, str]
    engines: Mapping[str, str]
    seeds: Mapping[str, int]
    part: int
    position: int

    @property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def sample_id(self) -> str:
        """sha256 of `text`, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def text_digest(text: str) -> str:
    """sha256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
