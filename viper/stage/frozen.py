"""`iteration.json`: everything a stage may depend on, resolved once when the iteration starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator

from viper.digests import digest_of
from viper.spec.base import SpecModel, setting
from viper.spec.iteration import ViperIteration


class ResolvedModel(SpecModel):
    """A model directory pinned by content, or a model behind an endpoint pinned by address."""

    uri: str = setting(description="Where its files are: file:// or s3://; or openai:URL#name.")
    digest: str = setting(description="`viper.store.directory_digest` of its files; of an endpoint: over URL and name.")
    model: str | None = setting(None, description="Registered model name; null when outside the registry.")
    version: int | None = setting(None, description="Registry version; null when outside the registry.")


class PinnedWeights(SpecModel):
    """What the URI of an engine's weights meant when the iteration started."""

    uri: str = setting(description="The URI with everything movable resolved: a commit of the hub, a store's prefix.")
    digest: str | None = setting(None, description="Digest of the directory; null where only the commit is known yet.")
    model: str | None = setting(None, description="Registered model name; null when outside the registry.")
    version: int | None = setting(None, description="Registry version; null when outside the registry.")


class Tracking(SpecModel):
    """The MLflow side of the iteration."""

    uri: str = setting(description="Tracking URI.")
    parent_run: str = setting(description="Run id of the iteration; stages are nested below it.")


class FrozenIteration(SpecModel):
    """The only input of a stage beside the manifests of the stages before it."""

    iteration: ViperIteration = setting(description="The resource with every default written out.")
    generator: ResolvedModel = setting(description="θ0.")
    base: ResolvedModel = setting(description="First version of θ0's lineage.")
    critic: ResolvedModel = setting(description="Writes critiques.")
    judge: ResolvedModel = setting(description="Judges edits.")
    alias_version: int | None = setting(
        None, description="Version behind the promotion alias at the start: what promotion compares before it sets."
    )
    tracking: Tracking = setting(description="MLflow.")
    weights: dict[str, PinnedWeights] = setting(dict, description="URIs in `spec.engines` and what they meant.")
    versions: dict[str, str] = setting(dict, description="Versions of the libraries that produce data and weights.")

    _identity: str = PrivateAttr("")

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Takes the identity from what was stored: a later version of the models adds fields when it reads it."""
        made = handler(data)
        stored = isinstance(data, dict) and isinstance(data.get("iteration"), dict)
        made._identity = _identity(data if stored else made.dump())
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; a copy with other content is another iteration."""
        made = super().model_copy(update=update, deep=deep)
        if update:
            made._identity = _identity(made.dump())
        return made

    @property
    def name(self) -> str:
        """The iteration's name."""
        return self.iteration.metadata.name

    @property
    def prefix(self) -> str:
        """Its key prefix in the object store, without a slash at the end."""
        return f"iterations/{self.name}"

    @property
    def identity(self) -> str:
        """sha256 over what decides the data: spec, models, versions; not where runs are tracked."""
        return self._identity


def _identity(content: Mapping[str, Any]) -> str:
    return digest_of({key: value for key, value in content.items() if key != "tracking"})
