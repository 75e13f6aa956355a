"""Addresses that people give beside a specification. Pure."""

from __future__ import annotations

from viper.errors import UnfitRegistryError


def check_anonymous(tracking_uri: str) -> str:
    """A tracking URI, which holds no credentials: it is stored with every iteration, and shown.

    Raises `UnfitRegistryError`, which does not repeat them.
    """
    scheme, _, rest = tracking_uri.partition("://")
    if scheme.lower() in ("http", "https") and any(sign in rest for sign in ("@", "%40", "?", "#")):
        raise UnfitRegistryError(
            "holds credentials or a query, which do not belong in a tracking URI",
            where=tracking_uri,
            fix="write http://host:port, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, in the environment",
        )
    return tracking_uri
