"""A real HTTP server with OpenAI's chat-completions API before any `VisionLanguageModel`, and faults on demand."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest

MODEL = "tiny"
KEY = "secret-of-the-test"


class ChatServer(ThreadingHTTPServer):
    """Answers with `model`; the next requests in line get the faults that were put into `faults` instead.

    A fault is called with the handler and does all that is sent. `bodies` are the chat requests in order of arrival.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.lock = model, threading.Lock()
        self.faults: list[Fault] = []
        self.bodies: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.released = threading.Event()
        self.key = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def place(self) -> str:
        """As an engine's name has it after `openai:`."""
        return f"{self.url}#{MODEL}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def reply(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        if not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        self.reply(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
        return False

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self.reply(404, {"error": {"message": f"no {self.path}"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.faults.pop(0) if server.faults else None
        try:
            if fault is not None:
                fault(self)
            elif self.path == "/v1/chat/completions":
                self.reply(200, self._completion(body))
            else:
                self.reply(404, {"error": {"message": f"no {self.path}"}})
        finally:
            with server.lock:
                server.at_once -= 1

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        (message,) = body["messages"]
        images = tuple(_image(p["image_url"]["url"]) for p in message["content"] if p["type"] == "image_url")
        prompt = "".join(part["text"] for part in message["content"] if part["type"] == "text")
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], body["seed"])
        with self.server.lock:
            (output,) = self.server.model.generate([VlmRequest(images, prompt)], sampling)
        return completion(output.text, "stop" if output.finished else "length", output.tokens)


Fault = Callable[[_Handler], None]


def completion(text: str | None, reason: str = "stop", tokens: int | None = 1, **message: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], **usage}


def says(status: int, content: Any, **headers: str) -> Fault:
    """A fault: this answer."""
    return lambda handler: handler.reply(status, content, **headers)


def answers(text: str | None, reason: str = "stop", tokens: int | None = 1, **message: Any) -> Fault:
    """A fault of the model: this text."""
    return says(200, completion(text, reason, tokens, **message))


def hangs(handler: _Handler) -> None:
    """No answer until the server is shut down."""
    handler.server.released.wait()
    handler.close_connection = True


def hangs_up(handler: _Handler) -> None:
    """Ends the connection in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def _image(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


@contextmanager
def serving(model: VisionLanguageModel) -> Iterator[ChatServer]:
    """A server on a free port of this machine, ended at the end."""
    with ChatServer(model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
