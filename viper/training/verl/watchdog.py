"""When a run of verl is stopped, and with which words. Pure: the run looks, this decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["wait", "ended", "stalled", "reward"]

#: Attempts in a row that may end without a new checkpoint before the stage fails.
FRUITLESS = 2
_FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos")
#: Less than this, in bytes, is no room for logs and samples either.
_ROOM = 4 << 20


@dataclass(frozen=True)
class Signs:
    """What the run sees of its child: seconds since the last sign of progress, its exit status (None: it runs), and
    whether the reward service lives."""

    idle_seconds: float
    status: int | None
    reward_alive: bool


def verdict(signs: Signs, stall_seconds: float) -> Verdict:
    """`ended` (on its own), `reward` (its reward service died), `stalled` (no progress for `stall_seconds`), `wait`."""
    if signs.status is not None:
        return "ended"
    if not signs.reward_alive:
        return "reward"
    return "stalled" if signs.idle_seconds >= stall_seconds else "wait"


def explain(verdict: Verdict, status: int | None, stall_seconds: float, went: str) -> str:
    """One sentence about an attempt; `went` says how far it came."""
    how = {
        "wait": "is running",
        "ended": f"ended with status {status}",
        "stalled": f"made no progress for {stall_seconds:g} s and was stopped",
        "reward": "lost its reward service and was stopped",
    }[verdict]
    return f"verl {how} {went}"


def disk_full(log: Sequence[str], free_bytes: int, checkpoint_bytes: int) -> bool:
    """Whether a run ended because nothing could be written any more.

    Where the log lies on the full disk, the error itself finds no room in it: no space for another checkpoint is then
    all there is to go by.

    Args:
        log: the last lines it printed.
        free_bytes: what is free where it writes.
        checkpoint_bytes: size of its last checkpoint; 0 before the first one.
    """
    if any(sign in line for line in log for sign in _FULL[:2]) or free_bytes < max(checkpoint_bytes, _ROOM):
        return True
    return any(sign in line for line in log for sign in _FULL) and free_bytes < 1 << 30


def last_error(log: Sequence[str]) -> str:
    """The last line that names an exception, without Ray's prefixes; empty when there is none."""
    for line in reversed(log):
        text = line.split(") ", 1)[1] if line.startswith("(") and ") " in line else line
        head = text.strip().split(":", 1)[0]
        if head.replace(".", "").replace("_", "").isalnum() and head.endswith(("Error", "Exception", "Killed", "Exit")):
            return text.strip()[:500]
    return ""
