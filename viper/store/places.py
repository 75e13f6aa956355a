"""Places on this machine that survive a process."""

from __future__ import annotations

import os
from pathlib import Path

from viper.errors import InputError


def cache_dir() -> Path:
    """Where downloaded models are kept: $VIPER_CACHE, else ~/.cache/viper; raises `InputError`."""
    return Path(os.environ.get("VIPER_CACHE") or expanded("~/.cache/viper"))


def expanded(path: str) -> Path:
    """A path with `~` and `~person` written out; raises `InputError` where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a uid without an entry, as in containers, or nobody of that name
        raise InputError(
            "its home directory is not known", where=path, fix="set HOME, or write the path without ~"
        ) from None
