"""Who gives a command."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """The person's name, as LOGNAME, USER or the system has it; `uid 12345` where it has none (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"
