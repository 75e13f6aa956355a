"""Parts of a kit that do not end well, and one that does."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

RATE = {"work": "answer", "engine": "transformers"}


def work() -> int:
    """Some milliseconds."""
    return sum(range(200_000))


def attend(*arguments: Any, **how: Any) -> Any:
    """An attention function of one's own."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(*arguments, **how)


def raises(kit: Any) -> None:
    kit.measure("before it raises", "", work, rate=RATE)
    raise ValueError("as it were")


def killed(kit: Any) -> None:
    kit.measure("before it is killed", "", work, rate=RATE)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(kit: Any) -> None:
    while True:
        time.sleep(60)


def well(kit: Any) -> None:
    kit.measure("an error", "", lambda: 1 // 0, rate=RATE)
    kit.measure("after all that", "", work, rate=RATE)
