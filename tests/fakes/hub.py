"""A fake of the Hugging Face hub: the calls of its HTTP API that huggingface_hub makes to read a model.

`GET /api/models/<repo>/revision/<revision>?blobs=true` and `HEAD|GET /<repo>/resolve/<commit>/<path>`. Files over 1 KiB
are "LFS" files, known by SHA-256; smaller ones by git's blob id.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1024


class FakeHub:
    """Models by name: revision → commit → files. `requests` are what was asked.

    `forged`: other content for a path. `held`: paths whose content is not sent until `released`; `all_but_held` is set
    when `expected` files went out.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.requests: list[str] = []
        self.held: set[str] = set()
        self.released, self.all_but_held = threading.Event(), threading.Event()
        self.forged: dict[str, bytes] = {}
        self.expected, self._went_out = 0, list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds a commit and moves the branch to it; returns the commit."""
        commit = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()  # noqa: S324 (as git's)
        self.commits.setdefault(repo, {})[commit] = files
        self.branches[repo, branch] = commit
        return commit

    @property
    def downloads(self) -> list[str]:
        """Paths of files that were sent."""
        return [r.split("/resolve/")[1].partition("/")[2] for r in self.requests if r.startswith("GET") and "/res" in r]

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        if path.startswith("/api/models/"):
            return self._info(request, path.removeprefix("/api/models/"))
        repo, _, rest = path.strip("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        content = self.commits.get(repo, {}).get(self.branches.get((repo, commit), commit), {}).get(name)
        if content is None:
            return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_sha256(content) if len(content) > LARGE else _blob(content)}"',
            "Accept-Ranges": "bytes",
        }
        content = self.forged.get(name, content)
        if name in self.held and body:
            self.released.wait(60)
        self._send(request, 200, content, headers, body)
        if body:
            self._went_out.append(name)
            if len(self._went_out) == self.expected:
                self.all_but_held.set()
        return None

    def _info(self, request: BaseHTTPRequestHandler, rest: str) -> None:
        repo, _, revision = rest.partition("/revision/")
        if repo not in self.commits:
            return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, True)
        commit = self.branches.get((repo, revision or "main"), revision)
        files = self.commits[repo].get(commit)
        if files is None:
            return self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, True)
        siblings = [_sibling(name, content) for name, content in sorted(files.items())]
        data = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        return self._send(request, 200, json.dumps(data).encode(), {"Content-Type": "application/json"}, True)

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str], body: bool
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(content)


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    lfs = {"sha256": _sha256(content), "size": len(content), "pointerSize": 130}
    known = {"rfilename": name, "size": len(content), "blobId": _blob(content)}
    return {**known, "lfs": lfs} if len(content) > LARGE else known


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324 (git's object id)
