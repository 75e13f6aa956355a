"""The part of a kubelet that serves logs, behind a Node object; pods on it are as a test says."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class LogServer:
    """Serves `/containerLogs/<namespace>/<pod>/<container>`.

    `pieces[pod]`: what each connection that follows is sent before it is cut; the last one again and again. `queries`:
    what was asked.
    """

    def __init__(self, folder: Path) -> None:
        self.pieces: dict[str, Sequence[Sequence[str]]] = {}
        self.queries: list[dict[str, str]] = []
        self._served: dict[str, int] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                pod = address.path.split("/")[3]
                query = {k: v[0] for k, v in parse_qs(address.query).items()}
                outer.queries.append({"pod": pod, **query})
                lines = outer._next(pod)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                for line in lines:
                    text = line if "timestamps" in query else line.partition(" ")[2]
                    self.wfile.write(f"{text}\n".encode())

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Ends."""
        self._server.shutdown()
        self._server.server_close()

    def _next(self, pod: str) -> Sequence[str]:
        number = self._served.get(pod, 0)
        self._served[pod] = number + 1
        pieces = self.pieces[pod]
        return pieces[min(number, len(pieces) - 1)]


def _certificate(folder: Path) -> Path:
    """A self-signed certificate with its key; the API server does not check a kubelet's unless told to."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubelet")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "kubelet.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file
