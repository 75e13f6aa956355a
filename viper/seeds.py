"""Seeds derived from the recipe's root seed by name: independent of process, order and shard."""

from __future__ import annotations

import hashlib
import json


def derive(root: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on `root` and on every name: sha256 of their JSON list, first 63 bits."""
    digest = hashlib.sha256(json.dumps([root, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
