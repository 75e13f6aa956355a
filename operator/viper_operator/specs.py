"""An iteration as it is written, with the profile that it names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from viper.errors import SpecError
from viper.spec import Profile, ViperIteration
from viper.spec.base import first_problem
from viper.spec.forms import STORED
from viper_operator.views import ProfileView

KIND = "ViperIteration"


class SpecProblemError(Exception):
    """The iteration cannot go on as it is written. `permanent`: whatever happens elsewhere."""

    def __init__(self, reason: str, message: str, *, permanent: bool) -> None:
        self.reason, self.permanent = reason, permanent
        super().__init__(message)


def iteration_of(body: Mapping[str, Any], profiles: Mapping[str, ProfileView], namespace: str) -> ViperIteration:
    """The resource with its profile inline. Raises `SpecProblemError`.

    Args:
        profiles: those of the namespace, by name.
    """
    meta = {"name": body["metadata"]["name"]}
    document = {"apiVersion": body["apiVersion"], "kind": KIND, "metadata": meta, "spec": body["spec"]}
    try:
        # What has been frozen was taken by the release that it began with.
        frozen = bool((body.get("status") or {}).get("generator"))
        one = ViperIteration.model_validate(document, context=STORED if frozen else None)
    except ValidationError as error:
        raise SpecProblemError("SpecInvalid", first_problem(error), permanent=True) from None
    name = one.spec.profile_ref
    if name is None:
        return one
    found = profiles.get(name)
    if found is None:
        message = f"spec.profileRef: there is no ViperProfile {name} in namespace {namespace}; create it"
        raise SpecProblemError("ProfileNotFound", message, permanent=False)
    try:
        profile = Profile.model_validate(found.spec)
    except ValidationError as error:
        message = f"ViperProfile {name}: {first_problem(error)}"
        raise SpecProblemError("ProfileInvalid", message, permanent=False) from None
    try:
        return one.model_copy(update={"spec": one.spec.with_profile(profile)})
    except SpecError as error:
        raise SpecProblemError("ProfileInvalid", str(error), permanent=False) from None
