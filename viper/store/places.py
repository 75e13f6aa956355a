"""Places on this machine that survive a process."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where downloaded models are kept: $VIPER_CACHE, else ~/.cache/viper."""
    return Path(os.environ.get("VIPER_CACHE") or Path.home() / ".cache" / "viper")
