"""Digests of JSON values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_of(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys), hexadecimal; raises `TypeError` for any other value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
