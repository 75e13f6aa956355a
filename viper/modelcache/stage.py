"""The engines of a stage with local directories in place of URIs."""

from __future__ import annotations

from viper.errors import StageError
from viper.modelcache.cache import ModelCache, Report
from viper.modelcache.locate import fetch, locate
from viper.modelcache.needs import engine_models, with_directories
from viper.modelcache.reporting import FetchProgress
from viper.modelcache.uris import is_remote
from viper.spec import IterationSpec
from viper.stage.frozen import FrozenIteration


def local_spec(frozen: FrozenIteration, *fields: str, cache: ModelCache | None = None) -> IterationSpec:
    """The specification with a local directory wherever one of these fields of `spec.engines` names a URI.

    What the iteration was frozen with is what is loaded. Raises `InputError` that says how to fill the cache when a
    model is not there, `StageError` when its content is another one.
    """
    spec = frozen.iteration.spec
    if not engine_models(spec.engines, fields):
        return spec
    report = FetchProgress()

    def place(uri: str) -> str:
        return directory(frozen, uri, cache, report)

    return spec.model_copy(update={"engines": with_directories(spec.engines, fields, place)})


def directory(frozen: FrozenIteration, uri: str, cache: ModelCache | None = None, report: Report | None = None) -> str:
    """The local directory of the weights behind a URI in `spec.engines`; raises as `local_spec`."""
    if not is_remote(uri):
        return str(locate(uri))
    pinned = frozen.weights.get(uri)  # absent in iterations that were frozen by an earlier version
    entry = fetch(uri if pinned is None else pinned.uri, cache, report=report)
    if pinned is not None and pinned.digest not in (None, entry.digest):
        raise StageError(
            f"the weights have changed: their digest is {entry.digest}, the iteration was frozen with {pinned.digest}",
            where=uri,
            fix="restore them, or start a new iteration",
        )
    return str(entry.path)
