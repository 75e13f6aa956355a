"""What people supply is read before anything is paid for: questions, cold-start samples, samples for RL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from viper.beside import beside
from viper.errors import InputError, ViperError
from viper.extensions import reader
from viper.iteration.known import Here, at, everywhere, readers, selects_by_questions, together
from viper.spec import IterationSpec
from viper.tasks.external.supplied import open_supplied

_Read = Callable[[], object]


def check_supplied(spec: IterationSpec, here: Here = everywhere) -> None:
    """Reads every supplied file as the stage that needs it will, images included.

    Args:
        here: which stages see the folders that this process sees. What lies in a folder that is missing here is left to
            a stage that may have it, as in a Job with other volumes.

    Raises:
        InputError: files or rows of them cannot be used; all files are told, each with its first bad lines.
        StoreError: one of their stores fails.
    """
    problems: list[ViperError] = []
    for field, uri, read in _supplied(spec):
        if not (any(map(here, readers(spec, field))) or _folder_is_here(uri)):
            continue
        try:
            read()
        except InputError as error:
            problems.append(at(field, error if error.where else InputError(error.what, where=uri, fix=error.fix)))
    together(problems, "supplied files cannot be used")


def _supplied(spec: IterationSpec) -> Iterator[tuple[str, str, _Read]]:
    """Field, URI, and what reads the file."""
    from viper.evaluation.questions import load_questions
    from viper.training.cold_start import read_samples

    uri = spec.evaluation.questions
    if uri and reader("questions", uri) is None:
        yield "spec.evaluation.questions", uri, lambda: load_questions(uri)
        if selects_by_questions(spec):
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


def _folder_is_here(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return True  # reading it will tell
    if parts.scheme not in ("", "file"):
        return True
    return Path(unquote(parts.path)).parent.is_dir()
