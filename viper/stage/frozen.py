"""`iteration.json`: everything a stage may depend on, resolved once when the iteration starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import ClassVar, Self

from pydantic import model_validator

from viper.errors import NotFoundError, StageError, StoreError, ViperError
from viper.methods.stages import FREEZE, THETA0, Stage, StageNode, stage_graph
from viper.spec.base import setting
from viper.spec.forms import NAME, WORDS
from viper.spec.iteration import ViperIteration
from viper.store import ObjectStore, relative_database, relative_uri, resolve_database, resolve_uri
from viper.stored import StoredForm, StoredPart, content_digest

#: A status has room for as many, and for freezing.
MOST_STAGES = 31


class ResolvedModel(StoredPart):
    """A model directory pinned by content, or a model behind an endpoint pinned by address."""

    uri: str = setting(
        description="Where its files are: a key of the same store, file:// or s3://; or openai:URL#name."
    )
    digest: str = setting(description="`viper.store.directory_digest` of its files; of an endpoint: over URL and name.")
    model: str | None = setting(None, description="Registered model name; null when outside the registry.")
    version: int | None = setting(None, description="Registry version; null when outside the registry.")


class PinnedWeights(StoredPart):
    """What the URI of an engine's weights meant when the iteration started."""

    uri: str = setting(description="The URI with everything movable resolved: a commit of the hub, a store's prefix.")
    digest: str | None = setting(None, description="Digest of the directory; null where only the commit is known yet.")
    model: str | None = setting(None, description="Registered model name; null when outside the registry.")
    version: int | None = setting(None, description="Registry version; null when outside the registry.")


class Tracking(StoredPart):
    """The MLflow side of the iteration."""

    uri: str = setting(description="Tracking URI.")
    parent_run: str = setting(description="Run id of the iteration; stages are nested below it.")


class FrozenIteration(StoredForm):
    """The only input of a stage beside the manifests of the stages before it.

    `minVersion` is the least release that can carry it out.
    """

    WHAT: ClassVar[str] = "a frozen iteration"

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
    revision: int = setting(
        0, ge=0, le=10**6, description="How often the spec was corrected before there was data; each has its own place."
    )
    versions: dict[str, str] = setting(dict, description="Versions of the libraries that produce data and weights.")
    graph: tuple[StageNode, ...] = setting(
        (),
        max_length=MOST_STAGES,
        description="Its stages, in an order in which they can be run; none: frozen before they were stored.",
    )

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        """Each stage of the graph comes after what it needs, once, and can do what the profile asks of it."""
        before = {FREEZE}
        for node in self.graph:
            if re.fullmatch(NAME, node.name) is None:
                raise ValueError(f"graph: {node.name!r} cannot be the name of a stage; use {WORDS[NAME]}")
            if node.name in before:
                raise ValueError(f"graph: two stages are called {node.name}; give each a name of its own")
            if missing := sorted({*node.needs, *node.data, *_made_by(node)} - before):
                raise ValueError(f"graph: {node.name} needs {', '.join(missing)}, which must come before it")
            resources, where = self.iteration.spec.profile.of(node.name), f"profile.stages.{node.name}"
            if resources.shards > 1 and not node.stage.splittable:
                raise ValueError(f"{where}.shards must be 1: this stage cannot be split")
            if resources.nodes > 1 and not node.stage.distributed:
                raise ValueError(f"{where}.nodes must be 1: this stage cannot span several nodes")
            before.add(node.name)
        return self

    @property
    def name(self) -> str:
        """The iteration's name."""
        return self.iteration.metadata.name

    @property
    def prefix(self) -> str:
        """Its key prefix in the object store, without a slash at the end."""
        return prefix_of(self.name, self.revision)

    @property
    def nodes(self) -> tuple[StageNode, ...]:
        """Its stages, in an order in which they can be run."""
        return self.graph or stage_graph(self.iteration.spec.recipe)

    def node(self, stage: str) -> StageNode:
        """One of its stages; raises `StageError` when it has none of this name."""
        for node in self.nodes:
            if node.name == stage:
                return node
        raise StageError(f"this iteration has no stage {stage}", where=self.name, fix="`viper render` shows its stages")

    def second(self, stage: Stage) -> ResolvedModel | None:
        """The model that a stage asks beside its policy, if any; raises `StageError` for a role that there is not."""
        roles = {"": None, "critic": self.critic, "judge": self.judge}
        if stage.second not in roles:
            raise StageError(f"declares the role {stage.second!r}", where=stage.name, fix="use critic or judge")
        return roles[stage.second]

    @property
    def identity(self) -> str:
        """sha256 over what decides the data, as it was stored: spec, models, versions; not where runs are tracked."""
        return content_digest(self.content, "tracking")

    def at(self, store_uri: str) -> Self:
        """The same as a reader of the store at `store_uri` sees it: every URI in full."""
        return self.read_as(
            **_placed(self, lambda u: resolve_uri(store_uri, u), lambda u: resolve_database(store_uri, u))
        )

    def to_store(self, store_uri: str) -> Self:
        """The same as it is written there: what lies in that store by its key, so that both can move together."""
        placed = _placed(self, lambda u: relative_uri(store_uri, u), lambda u: relative_database(store_uri, u))
        return self.model_copy(update=placed)


def _made_by(node: StageNode) -> set[str]:
    """The stage before it whose model it loads, if any."""
    return set() if node.model in (None, THETA0) else {str(node.model)}


def _placed(frozen: FrozenIteration, uri: Callable[[str], str], tracking: Callable[[str], str]) -> dict[str, object]:
    roles = {role: getattr(frozen, role) for role in ("generator", "base", "critic", "judge")}
    return {
        **{role: model.model_copy(update={"uri": uri(model.uri)}) for role, model in roles.items()},
        "weights": {k: w.model_copy(update={"uri": uri(w.uri)}) for k, w in frozen.weights.items()},
        "tracking": frozen.tracking.model_copy(update={"uri": tracking(frozen.tracking.uri)}),
    }


def prefix_of(name: str, revision: int) -> str:
    """Where a revision of an iteration and its stages lie: attempts for an earlier one write into another place."""
    return f"iterations/{name}" + (f"/r{revision}" if revision else "")


def load_frozen(store: ObjectStore, name: str, *, error: type[ViperError] = StoreError) -> FrozenIteration | None:
    """The frozen iteration of this name, as it was last corrected; None when it has not started.

    Raises `error` when it cannot be read, `NewerFormError` when a later release has to carry it out.
    """
    found = None
    for revision in itertools.count():
        key = f"{prefix_of(name, revision)}/iteration.json"
        try:
            data = store.get(key)
        except NotFoundError:
            return found
        found = FrozenIteration.read(data, where=f"{store.uri}/{key}", error=error).at(store.uri)
    raise AssertionError("there is always a next revision")
