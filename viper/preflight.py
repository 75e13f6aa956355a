"""What people supply is read before anything is paid for: questions, cold-start samples, samples for RL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from viper.beside import beside
from viper.errors import InputError
from viper.ingest.supplied import open_supplied
from viper.spec import IterationSpec
from viper.spec.recipe import Recipe
from viper.spec.stages import stage_graph

_Read = Callable[[], object]


def check_supplied(spec: IterationSpec, *, files_here: bool = True) -> None:
    """Reads every supplied file as the stage that needs it will, images included.

    Args:
        files_here: False where folders may be missing that the stages have, as in a Job with other volumes: what lies
            in such a folder is left to the stage.

    Raises:
        InputError: files or rows of them cannot be used; all files are told, each with its first bad lines.
        StoreError: one of their stores fails.
    """
    problems = []
    for field, uri, read in _supplied(spec):
        if not (files_here or _folder_is_here(uri)):
            continue
        try:
            read()
        except InputError as error:
            problems.append(InputError(error.what, where=f"{field}, {error.where or uri}", fix=error.fix))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(
            f"{len(problems)} supplied files cannot be used:\n" + "\n".join(map(str, problems)),
            fix="correct them; nothing has begun",
        )


def _supplied(spec: IterationSpec) -> Iterator[tuple[str, str, _Read]]:
    """Field, URI, and what reads the file."""
    from viper.evaluation.questions import SMALL_WORLD, load_questions
    from viper.training.cold_start import read_samples

    uri = spec.evaluation.questions
    if uri and uri != SMALL_WORLD:
        yield "spec.evaluation.questions", uri, lambda: load_questions(uri)
        if _selects_by_questions(spec.recipe):
            yield "spec.evaluation.questions", uri, lambda: load_questions(uri, "selection")
    cold, external = spec.recipe.cold_start, spec.recipe.external
    if cold is not None:
        yield "spec.recipe.coldStart.samplesUri", cold.samples_uri, lambda: read_samples(cold.samples_uri)
    if external is not None:
        # Its rows and images cost themselves only, in the stage that reads them: before anything is trained, too.
        def there() -> None:
            if external.uri.partition("?")[0].endswith(".parquet"):
                store, key = beside(external.uri)
                if store.stat(key) is None:
                    raise InputError("there is no such file", where=external.uri, fix="correct recipe.external.uri")
                return
            supplied = open_supplied(external.uri, external.columns, Path("unused"))
            supplied.check()
            if not len(supplied):
                raise InputError("there is no sample", where=external.uri, fix="give at least one row")

        yield "spec.recipe.external.uri", external.uri, there


def _selects_by_questions(recipe: Recipe) -> bool:
    from viper.training.stage import training_settings

    trained = (n.name for n in stage_graph(recipe) if n.data)
    return any(training_settings(recipe, name).select == "heldOutPerception" for name in trained)


def _folder_is_here(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return True  # reading it will tell
    if parts.scheme not in ("", "file"):
        return True
    return Path(unquote(parts.path)).parent.is_dir()
