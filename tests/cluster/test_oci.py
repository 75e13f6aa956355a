"""An image of one program, made without a container engine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "oci.py"


def archive(folder: Path, name: str) -> Path:
    program, made = folder / "tool", folder / name
    program.write_bytes(b"\x7fELF")
    subprocess.run([sys.executable, SCRIPT, "viper.local/tool:1", program, made], check=True)
    return made


@pytest.mark.process
def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    assert archive(tmp_path, "a.tar").read_bytes() == archive(tmp_path, "b.tar").read_bytes()


@pytest.mark.process
def test_every_part_is_there_under_its_digest_and_the_image_has_its_name(tmp_path: Path) -> None:
    with tarfile.open(archive(tmp_path, "a.tar")) as tar:
        parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    entry = json.loads(parts["index.json"])["manifests"][0]
    manifest = json.loads(parts[f"blobs/{entry['digest'].replace(':', '/')}"])
    assert entry["annotations"]["io.containerd.image.name"] == "viper.local/tool:1"
    for part in (entry, manifest["config"], *manifest["layers"]):
        content = parts[f"blobs/{part['digest'].replace(':', '/')}"]
        assert (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)) == (part["digest"], part["size"])
