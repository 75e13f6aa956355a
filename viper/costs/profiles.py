"""Profiles by name or from a file, without a cluster."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from viper.errors import SpecError
from viper.spec import Profile, ViperProfile, load_resource
from viper.spec.documents import documents, shown


def shipped_profiles() -> dict[str, Profile]:
    """The profiles that the chart installs, by name."""
    data: dict[str, Any]
    (data,) = documents((files("viper.costs") / "profiles.yaml").read_bytes(), "profiles.yaml")
    return {name: Profile.model_validate(spec) for name, spec in data.items()}


def find_profile(name: str, where: str = "--profile") -> Profile:
    """The shipped profile of that name, or the ViperProfile in a file; raises `SpecError`."""
    shipped = shipped_profiles()
    if name in shipped:
        return shipped[name]
    try:
        there = Path(name).is_file()
    except OSError:  # too long for a name
        there = False
    if not there:
        raise SpecError(
            f"{shown(name)!r} is neither a profile that comes with ViPER ({', '.join(shipped)}) nor a file",
            where=where,
            fix="give --profile FILE with the ViperProfile, e.g. from `kubectl get viperprofile NAME -o yaml`",
        )
    resource = load_resource(Path(name))
    if not isinstance(resource, ViperProfile):
        raise SpecError(f"is a {resource.kind}, not a ViperProfile", where=name)
    return resource.spec
