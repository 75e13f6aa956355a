"""The registry: MLflow's tracking (experiments, runs) and its model registry (versions, aliases).

Nothing here imports MLflow before the first call.
"""

from __future__ import annotations

from pathlib import Path

from viper.registry.connection import Connection, MissingError, check_database
from viper.registry.runs import ITERATION, STAGE, UID, Runs, RunStatus
from viper.registry.versions import DIGEST, LOCKS, AliasMovedError, ModelVersion, Versions

__all__ = [
    "DIGEST",
    "ITERATION",
    "LOCKS",
    "STAGE",
    "UID",
    "AliasMovedError",
    "MissingError",
    "ModelVersion",
    "Registry",
    "RunStatus",
    "existing_registry",
    "sqlite_uri",
]


class Registry(Runs, Versions):
    """MLflow at a tracking URI: `sqlite:////absolute/path/mlflow.db` (no server needed) or `http://host:port`.

    Not connected before the first call. Every function raises RegistryError when MLflow cannot be used after bounded
    waiting (about half a minute for a server, a minute for a locked database).
    """

    def __init__(self, tracking_uri: str) -> None:
        self._connection = Connection(tracking_uri)

    @property
    def uri(self) -> str:
        return self._connection.uri

    @property
    def connection(self) -> Connection:
        """For calls that this class does not offer."""
        return self._connection


def existing_registry(tracking_uri: str) -> Registry:
    """A registry that is to be read or changed, never made; raises `RegistryError` where its database is none."""
    if (database := Connection(tracking_uri).database) is not None:
        check_database(database, tracking_uri)
    return Registry(tracking_uri)


def sqlite_uri(directory: Path) -> str:
    """Tracking URI of the MLflow database of a run directory."""
    return f"sqlite:///{directory.absolute() / 'mlflow.db'}"
