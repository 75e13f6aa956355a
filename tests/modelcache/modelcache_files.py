"""What a directory of the cache holds."""

from __future__ import annotations

from pathlib import Path


def names(place: Path) -> list[str]:
    """Relative paths of the model's own files."""
    files = (p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    return sorted(f for f in files if f != "digests.json" and not f.startswith(".viper-"))
