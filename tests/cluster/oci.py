"""oci.py NAME PROGRAM ARCHIVE: an OCI archive of an image that is one static program, /<name of the program>."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def member(name: str, content: bytes, mode: int = 0o644) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """A file of a tar archive; the same bytes whenever it is made."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, io.BytesIO(content)


def write(name: str, program: Path, archive: Path) -> None:
    """Writes the archive, tagged `name`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(*member(program.name, program.read_bytes(), 0o755))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    blobs: dict[str, bytes] = {}

    def blob(media: str, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        kind = f"application/vnd.oci.image.{media}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content), **more}

    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [blob("layer.v1.tar+gzip", packed)],
    }
    tagged = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode(), annotations=tagged)
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    with tarfile.open(archive, "w") as tar:
        tar.addfile(*member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'))
        tar.addfile(*member("index.json", json.dumps(index).encode()))
        for path, content in sorted(blobs.items()):
            tar.addfile(*member(path, content))


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
