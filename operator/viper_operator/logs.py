"""Structured logs: one JSON object a line, with the iteration and the stage that a line is about."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

#: Fields of a record that are said when they are there (`extra=`).
FIELDS = ("kind", "iteration", "loop", "stage", "job", "reason", "outcome", "seconds", "retry_in")


class JsonFormatter(logging.Formatter):
    """A record as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{f: getattr(record, f) for f in FIELDS if hasattr(record, f)},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str = "INFO") -> None:
    """Everything goes to standard error; kopf's own lines from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("kopf", "aiohttp", "kubernetes"):
        logging.getLogger(name).setLevel(logging.WARNING)
