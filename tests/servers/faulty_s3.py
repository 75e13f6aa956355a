"""A fake S3 server: the real one behind a proxy that carries out requests otherwise than S3 should."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


@dataclass
class Asked:
    """A request; what is changed in it is passed on. The condition of a create is in no signature."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def conditional(self) -> bool:
        return "If-None-Match" in self.headers


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


#: Passes a request on, and gives the real server's answer.
Pass = Callable[[Asked], Answer]
#: What the server makes of a request.
Manner = Callable[[Asked, Pass], Answer]


def refusal(status: int, code: str) -> Answer:
    """An error as S3 sends it."""
    text = f"<Error><Code>{code}</Code><Message>so says the fake</Message></Error>"
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


class FaultyS3:
    """An S3 server at `url` with the data of the real one at `upstream`; as a context it runs for the block."""

    def __init__(self, upstream: str, manner: Manner) -> None:
        place = urlsplit(upstream).netloc

        def passed_on(asked: Asked) -> Answer:
            connection = http.client.HTTPConnection(place, timeout=60)
            try:
                connection.request(asked.method, asked.path, asked.body, asked.headers)
                real = connection.getresponse()
                return Answer(real.status, real.read(), dict(real.getheaders()))
            finally:
                connection.close()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = manner(Asked(self.command, self.path, dict(self.headers.items()), body), passed_on)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _OF_THE_CONNECTION:
                        self.send_header(name, value)
                length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(answer.body))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else answer.body)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def ignores_conditions(asked: Asked, passed_on: Pass) -> Answer:
    """As servers and gateways do that do not know `If-None-Match` on writes."""
    asked.headers.pop("If-None-Match", None)
    return passed_on(asked)


def ignores_conditions_of_parts(asked: Asked, passed_on: Pass) -> Answer:
    """Small objects are created once, large ones are not."""
    return ignores_conditions(asked, passed_on) if asked.method == "POST" else passed_on(asked)


class Conflicts:
    """Answers 409 to the first conditional writes; `after`: having carried them out."""

    def __init__(self, times: int, code: str = "ConditionalRequestConflict", *, status: int = 409) -> None:
        self.left, self._code, self._status = times, code, status
        self.after = False
        self._lock = threading.Lock()

    def __call__(self, asked: Asked, passed_on: Pass) -> Answer:
        with self._lock:
            now = asked.conditional and self.left > 0
            self.left -= now
        if not now:
            return passed_on(asked)
        if self.after:
            passed_on(asked)
        return refusal(self._status, self._code)
