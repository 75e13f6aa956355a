"""The connection to MLflow: late import, quiet, bounded waiting, errors that a person can act on."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from viper import retries
from viper.errors import RegistryError, UnfitRegistryError
from viper.spec.addresses import check_anonymous
from viper.store.places import cache_dir

P = ParamSpec("P")
T = TypeVar("T")

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Else every new database prints its migrations, and every error a traceback; errors are raised as well.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str((retries.MLFLOW.tries or 1) - 1),
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": f"{retries.MLFLOW.waits[0]:g}",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Connection:
    """A lazily made `mlflow.MlflowClient` and the way to call it.

    Args:
        tracking_uri: `sqlite:///absolute/path.db` or `http(s)://host:port`. Nothing is imported or contacted before the
            first call. Raises UnfitRegistryError when it is neither, or holds credentials.
    """

    def __init__(self, tracking_uri: str) -> None:
        if not _is_tracking_uri(tracking_uri):
            raise UnfitRegistryError(
                "not a tracking URI",
                where=tracking_uri,
                fix="use sqlite:////absolute/path/mlflow.db or http://host:port",
            )
        self.uri = check_anonymous(tracking_uri)
        self._client: Any = None

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    @property
    def client(self) -> Any:
        """The `MlflowClient`, for what `Registry` does not offer; call it through `call` to get readable errors."""
        if self._client is None:
            for name, value in _QUIET.items():
                os.environ.setdefault(name, value)
            if self.database is not None:
                _create_database(self.database)
            from mlflow.tracking import MlflowClient

            # Who has imported MLflow before has had it read another level.
            logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
            self._client = MlflowClient(self.uri, registry_uri=self.uri)
        return self._client

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """With SQLite: alone among the processes of this machine (a lock file). With a server: nothing."""
        if self.database is None:
            yield
            return
        self.database.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(f"{self.database}.lock", fallback_to_soft=False):
            yield

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """`client.method(...)` with bounded waiting.

        Raises RegistryError, UnfitRegistryError for what would be refused again, MissingError for what is not there.
        """

        def once() -> Any:
            return getattr(self.client, method)(*args, **kwargs)

        return self.attempt(once)

    def attempt(self, work: Callable[[], T]) -> T:
        """Do `work`, again when SQLite was locked. Raises RegistryError for MLflow's and the system's errors."""
        try:
            return retries.retrying(retries.DATABASE, _is_locked)(work)
        except ModuleNotFoundError as error:
            raise UnfitRegistryError(
                f"MLflow is not installed ({error})", where=self.uri, fix="pip install 'viper[cpu]'"
            ) from error
        except Exception as error:
            if not _is_foreign(error):
                raise
            raise _explain(error, self.uri) from error


def _is_tracking_uri(uri: str) -> bool:
    if uri.startswith("sqlite:///"):
        return "\0" not in uri and uri.rstrip("/") != "sqlite:"
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets, a port that is no number
        return False


class MissingError(UnfitRegistryError):
    """What was asked for is not in the registry. It may come yet: what has to be there now says so itself."""

    exit_code = RegistryError.exit_code


def _is_foreign(error: Exception) -> bool:
    """Is it an error of MLflow, its database layer, its HTTP client or the system (and not a defect of ours)?

    MLflow raises whatever it meets where an answer or a row is not as it expects, from within its own functions.
    """
    frames = traceback.walk_tb(error.__traceback__)
    if any(str(frame.f_globals.get("__name__", "")).split(".")[0] == "mlflow" for frame, _ in frames):
        return not isinstance(error, RegistryError)
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in {
        "mlflow",
        "sqlalchemy",
        "sqlite3",
        "alembic",
        "requests",
        "urllib3",
    }


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, Exception) and "database is locked" in str(error) and _is_foreign(error)


def _explain(error: Exception, uri: str) -> RegistryError:
    text = " ".join(str(error).split())
    if type(error).__module__.startswith(("requests", "urllib3")):
        text = f"API request to the server failed: {text}"
    code = getattr(error, "error_code", "")
    if code in _MISSING and not text.startswith(_FROM_A_PROXY):
        return MissingError(text, where=uri)
    if _is_refused(code, text):
        fix = next((words for codes, words in _REFUSALS if code in codes), "")
        return UnfitRegistryError(f"MLflow refused: {text}", where=uri, fix=fix)
    for sign, what, fix in _EXPLANATIONS:
        if sign in text:
            return RegistryError(what.format(text), where=uri, fix=fix)
    return RegistryError(f"MLflow refused: {text}", where=uri)


def _is_refused(code: str, text: str) -> bool:
    """Whether the same request would be refused again. `code`: MLflow's, by name.

    A database's error is BAD_REQUEST too: of these only a value that does not fit stays what it is; that another
    process was first, or that a connection broke, does not.
    """
    if code == "BAD_REQUEST" and ("sqlalche.me" in text or "sqlalchemy" in text):
        return "DataError" in text
    return any(code in codes for codes, _ in _REFUSALS)


_MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
#: An answer that is not MLflow's own (JSON): of a proxy that has nothing behind it at the moment, say.
_FROM_A_PROXY = "API request to"
#: What MLflow refuses for good, and what to do.
_REFUSALS: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}),
        "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) and what they may do",
    ),
    (
        frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST"}),
        "correct what it names; another attempt would be refused as well",
    ),
    (
        frozenset({"NOT_IMPLEMENTED", "FEATURE_DISABLED"}),
        "this server does not offer it: check that it is MLflow's and of a release that viper works with",
    ),
)


_AGAIN = "run the same command again; all results are in the store and are recorded then"
_EXPLANATIONS = (  # a sign in the error's text, what is wrong, what to do
    ("API request to", "the MLflow server does not answer: {}", f"start it or correct the URI, then {_AGAIN}"),
    ("disk is full", "the disk is full", f"free some space, then {_AGAIN}"),
    ("No space left", "the disk is full", f"free some space, then {_AGAIN}"),
    ("database is locked", "another process keeps the database locked", f"end it, then {_AGAIN}"),
    ("unable to open database", "the database cannot be opened", "check its folder and its mode"),
    ("readonly database", "the database cannot be written", "check its owner and its mode"),
    (
        "file is not a database",
        "the file is not an SQLite database",
        "restore it from a copy, or give another --dir or --tracking-uri",
    ),
    ("malformed", "the database is damaged", "restore it from a copy, or give another --dir or --tracking-uri"),
)


def check_database(database: Path, uri: str) -> None:
    """Raises `RegistryError` where there is no MLflow database: MLflow would make one of whatever is there."""
    if not database.is_file():
        raise RegistryError("there is no such database", where=uri, fix="give the tracking URI of the run")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            tables = opened.execute("select name from sqlite_master where name = 'alembic_version'").fetchall()
    except sqlite3.Error as error:
        if "locked" in str(error):  # MLflow waits, and says so
            return
        raise _explain(error, uri) from error
    if not tables:
        raise RegistryError("holds nothing of MLflow", where=uri, fix="give the tracking URI of the run")


def _create_database(database: Path) -> None:
    """Make an MLflow database where there is none.

    MLflow builds its schema by replaying every migration it ever had, which takes seconds. That is done once per
    version of MLflow, into a template in the cache; a new database is a copy of it.
    """
    if database.exists():
        return
    from importlib.metadata import version

    cache = cache_dir()
    template = cache / f"mlflow-{version('mlflow')}.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=".viper-") as folder:
        fresh = Path(folder) / "mlflow.db"
        if template.is_file():
            shutil.copyfile(template, fresh)
        else:
            _migrate(fresh)
            with suppress(OSError):  # a cache that cannot be written costs time, nothing else
                cache.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=cache, delete=False) as copy, fresh.open("rb") as source:
                    shutil.copyfileobj(source, copy)
                Path(copy.name).replace(template)
        with suppress(FileExistsError):  # another process was first
            os.link(fresh, database)


def _migrate(database: Path) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{database}").search_experiments(max_results=1)
