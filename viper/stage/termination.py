"""How a program of a pod ends: in order when it is told to, with a message when it fails.

Kubernetes shows the message, and the operator reads it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from viper.text import clean

#: What a shell reports for a process that ended by SIGTERM.
STOPPED = 128 + signal.SIGTERM
#: Exit status of a node of several that ends because another one went (sysexits.h EX_TEMPFAIL): no failure of its own.
OTHER_NODE_WENT = 75
#: In the environment of such a node, the uid of its Job, which nobody can guess: the nodes' token is made from it.
JOB_UID = "VIPER_JOB_UID"

#: Kubernetes reads at most this much of a termination message.
TERMINATION_BYTES = 4096


def leave_message(path: Path | None, reason: str, message: str) -> None:
    """Writes reason and message as JSON, shortened to what is read; nothing without a path."""
    if path is None:
        return
    limit = TERMINATION_BYTES // 4  # characters; four bytes of UTF-8 or a JSON escape each
    message = clean(message)
    text = message if len(message) <= limit else message[: limit - 1] + "…"
    with suppress(OSError):  # it is in the log as well
        path.write_text(json.dumps({"reason": reason, "message": text}, ensure_ascii=False), "utf-8")


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM raises `SystemExit` with the status `STOPPED`: what is open is closed on the way out.

    Without a handler the first process of a container never ends by SIGTERM: the kernel spares process 1 the default
    action, and the container keeps its GPUs until it is killed. Outside the main thread: nothing.
    """
    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(number: int, _frame: FrameType | None) -> None:
    """A handler of signals: the process leaves as asked, undisturbed by a second signal of the kind."""
    signal.signal(number, _leaving)  # a handler, not SIG_IGN, which programs started on the way out would inherit
    raise SystemExit(128 + number)


def _leaving(_number: int, _frame: FrameType | None) -> None:
    return
