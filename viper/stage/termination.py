"""The message that a container leaves when it fails; Kubernetes shows it, and the operator reads it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

#: Kubernetes reads at most this much of a termination message.
TERMINATION_BYTES = 4096


def leave_message(path: Path | None, reason: str, message: str) -> None:
    """Writes reason and message as JSON, shortened to what is read; nothing without a path."""
    if path is None:
        return
    limit = TERMINATION_BYTES // 4  # characters; four bytes of UTF-8 or a JSON escape each
    text = message if len(message) <= limit else message[: limit - 1] + "…"
    with suppress(OSError):  # it is in the log as well
        path.write_text(json.dumps({"reason": reason, "message": text}, ensure_ascii=False), "utf-8")
