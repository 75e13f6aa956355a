"""A real HTTP server with the API of vLLM-Omni's image edits before a fake of OmniGen2, and faults on demand.

As a program it takes vLLM-Omni's command line: `python edits_server.py serve DIRECTORY --omni --port 8000 …`.
The fake changes pixels by all it is told, and makes what OmniGen2 makes of sizes: at most 1024 a side, whole multiples
of 16.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

MODEL = "OmniGen2/OmniGen2"
TOLD = (
    *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "guidance_scale_2", "seed"),
    *("n", "size", "response_format", "output_format"),
)


#: The form fields of the endpoint (vLLM-Omni 0.30.0). The real one ignores others in silence; this one refuses them.
KNOWN = {
    *TOLD,
    *("image", "image[]", "url", "url[]", "model", "background", "output_compression", "stream", "user", "mask_image"),
    *("reference_image", "strength", "true_cfg_scale", "generator_device", "lora", "layers", "resolution", "bot_task"),
    *("sys_type", "system_prompt", "return_stage_metrics"),
}


def fake_omnigen2(image: Image.Image, told: dict[str, str]) -> Image.Image:
    """A tint that depends on each word of the request, in the size that the model would make."""
    scale = min(1.0, 1024 / max(image.size))
    size = [max(16, int(side * scale) // 16 * 16) for side in image.size]
    seed = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()
    tint = np.frombuffer(seed[:3], np.uint8).astype(np.int16) - 128
    pixels = np.asarray(image.convert("RGB").resize((size[0], size[1])), np.int16) + tint
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class EditsServer(ThreadingHTTPServer):
    """Faults in `faults` are called with the handler instead of an answer, one for each edit that is asked for."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults: list[Fault] = []
        self.forms: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def place(self) -> str:
        """As an engine's name has it after `omnigen2:`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1#{MODEL}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EditsServer

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

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, b"")
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        form = _multipart(self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.forms.append(form)
            self.server.keys.append(self.headers["Authorization"])
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is not None:
            fault(self)
        elif self.path != "/v1/images/edits":
            self.reply(404, {"detail": "Not Found"})
        elif form.get("model", MODEL) != MODEL:
            self.reply(400, {"detail": f"Model mismatch: request specifies {form['model']!r}"})
        elif unknown := sorted(set(form) - KNOWN):
            self.reply(422, {"detail": f"no such fields: {unknown}"})
        elif missing := [name for name in ("prompt", "image") if name not in form]:
            self.reply(422, {"detail": f"Field {missing[0]!r} is required"})
        else:
            original = Image.open(io.BytesIO(form["image"]))
            self.reply(200, answer(fake_omnigen2(original, {name: form[name] for name in TOLD})))


Fault = Callable[[_Handler], None]


def answer(image: Image.Image) -> dict[str, Any]:
    """The body of an edit."""
    file = io.BytesIO()
    image.save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    item = {"b64_json": encoded, "url": None, "revised_prompt": None}
    return {"created": 1, "data": [item], "output_format": "png", "size": f"{image.width}x{image.height}"}


def says(status: int, content: Any, **headers: str) -> Fault:
    """A fault: this answer."""
    return lambda handler: handler.reply(status, content, **headers)


def _multipart(kind: str, body: bytes) -> dict[str, Any]:
    """Fields by name: text, or bytes where a file was sent."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    form: dict[str, Any] = {}
    for part in message.iter_parts():
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        name = str(part.get_param("name", header="content-disposition"))
        form[name] = data if part.get_filename() else data.decode()
    return form


@contextmanager
def serving() -> Iterator[EditsServer]:
    """A server on a free port of this machine, ended at the end."""
    with EditsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    print("\n".join(sys.argv[1:]), flush=True)
    if "broken" in sys.argv[2]:
        sys.exit("ValueError: no weights here")
    EditsServer(int(sys.argv[sys.argv.index("--port") + 1])).serve_forever()
