"""File systems that only some processes see."""

from __future__ import annotations

import subprocess

import pytest

from servers.running import UNSHARE


def need_private_mounts() -> None:
    """Skips the test where the machine allows none."""
    if subprocess.run([*UNSHARE, "true"], check=False).returncode:
        pytest.skip("this machine allows no private mounts")
