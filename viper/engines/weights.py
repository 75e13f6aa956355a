"""Which weights an engine runs: a digest that need not read 40 GB again each time a pod starts."""

from __future__ import annotations

from pathlib import Path

from viper.store.places import cache_dir
from viper.store.transfer import directory_digest

#: Hexadecimal digits of a digest that an engine id shows.
DIGITS = 16


def weights_id(directory: Path) -> str:
    """The first 16 hexadecimal digits of the digest over all files of a model directory.

    Digests are remembered by path, time and size of each file (`cache_dir()/digests.json`).
    """
    return directory_digest(directory, cache=cache_dir() / "digests.json").rpartition(":")[2][:DIGITS]


def weights_size(directory: Path) -> int:
    """Bytes of all safetensors files in a directory and below it: what loading them takes in the type they have."""
    return sum(file.stat().st_size for file in directory.rglob("*.safetensors"))
