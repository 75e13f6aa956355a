"""JSON as the API server and other servers send it, however deep it is nested. Pure.

A resource may hold free-form parts (`podTemplate`), which the API server takes 10,000 levels deep. No decoder of Python
follows it there, and an operator whose watch ends at one object does nothing for all the others.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

#: Mappings and lists inside each other that are read; our resources may have 100, and what is around them.
DEEPEST = 200
#: Strings, whole, and brackets.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


def loads(data: bytes) -> Any:
    """The JSON value, null where it is nested more than `DEEPEST` deep. Raises `ValueError`."""
    try:
        return from_json(data)  # quick, and has a limit of its own
    except ValueError:
        return json.loads(_cut(data))


def shallow(data: bytes) -> bytes:
    """JSON with null in the place of what is nested more than `DEEPEST` deep."""
    if data.count(b"{") + data.count(b"[") <= DEEPEST:
        return data
    try:
        from_json(data)
    except ValueError:
        return _cut(data)
    return data


def _cut(data: bytes) -> bytes:
    kept, depth, since = [], 0, 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == DEEPEST + 1:
                kept += [data[since : token.start()], b"null"]
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == DEEPEST:
                since = token.end()
    return b"".join([*kept, data[since:] if depth <= DEEPEST else b""])
