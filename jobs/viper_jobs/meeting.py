"""Where the nodes of a Ray cluster meet: one process per node says that it is there, again and again."""

from __future__ import annotations

import hmac
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds that one call may take.
CALL_SECONDS = 5.0
#: Bytes that a call may have.
LONGEST = 1000
WORDS = ("join", "beat", "leave")


@dataclass
class Meeting:
    """Who is there, as node 0 sees it. A node is known by its number and a token that is its process's own.

    `silence`: seconds after which nothing heard means lost.
    """

    nodes: int
    silence: float
    clock: Callable[[], float] = time.monotonic
    _heard: dict[int, tuple[str, float]] = field(default_factory=dict)
    _gone: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, word: str, node: int, token: str) -> bool:
        """Whether this node belongs to the meeting. One that comes again under another token has lost what it had."""
        with self._lock:
            known = self._heard.get(node)
            if word == "join" and 0 < node < self.nodes and known is None and self._gone is None:
                known = (token, self.clock())
            if known is None or known[0] != token:
                if word == "join" and known is not None:
                    self._gone = node
                return False
            self._heard[node] = (token, self.clock())
            if word == "leave":
                self._gone = node
            return True

    def missing(self) -> list[int]:
        """Nodes that have not come yet."""
        with self._lock:
            return [n for n in range(1, self.nodes) if n not in self._heard]

    def complete(self) -> bool:
        """Whether all are there."""
        return not self.missing()

    def gone(self) -> int | None:
        """A node that has left, or was replaced by another process."""
        with self._lock:
            return self._gone

    def silent(self) -> int | None:
        """A node that has said nothing for too long."""
        with self._lock:
            late = self.clock() - self.silence
            return next((n for n, (_, at) in sorted(self._heard.items()) if at < late), None)


@dataclass(frozen=True)
class MeetingAnswer:
    """What node 0 answers. `address`: Ray's, empty when there was no answer or a refusal; `unknown`: it does not know
    this process; `here`: the caller's own IP address as node 0's side of the network sees it."""

    address: str = ""
    unknown: bool = False
    here: str = ""


@dataclass(frozen=True)
class Caller:
    """A node that speaks to node 0 at `host`. `key`: what all nodes know; `token`: what this process is known by."""

    host: str
    port: int
    key: str
    node: int
    token: str

    def say(self, word: str) -> MeetingAnswer:
        """Says one of `WORDS`; no answer is an answer too."""
        body = json.dumps({"node": self.node, "token": self.token})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=CALL_SECONDS)
        try:
            connection.connect()
            here = connection.sock.getsockname()[0]
            connection.request("POST", f"/{word}", body, {"Authorization": f"Bearer {self.key}"})
            response = connection.getresponse()
            text = response.read(LONGEST).decode()
        except (OSError, http.client.HTTPException):
            return MeetingAnswer()
        finally:
            connection.close()
        if response.status == HTTPStatus.OK:
            return MeetingAnswer(address=text, here=here)
        return MeetingAnswer(unknown=response.status == HTTPStatus.CONFLICT)


@contextmanager
def serving(meeting: Meeting, host: str, port: int, address: str, key: str) -> Iterator[None]:
    """Answers the calls of those who know the key, with Ray's address, as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        timeout = CALL_SECONDS

        def do_POST(self) -> None:
            try:
                size = min(int(self.headers.get("Content-Length", 0)), LONGEST)
                said = json.loads(self.rfile.read(size))
                word, node, token = self.path.lstrip("/"), int(said["node"]), str(said["token"])
            except (ValueError, KeyError, TypeError):
                word = ""
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                self.send_error(HTTPStatus.UNAUTHORIZED)
                return
            if word not in WORDS:
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            fits = meeting.say(word, node, token)
            text = address.encode() if fits else b""
            self.send_response(HTTPStatus.OK if fits else HTTPStatus.CONFLICT)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Not a line each second."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET

    server = Server((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
