"""Addresses of models behind an HTTP endpoint: `openai:https://host/v1#model-name`. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from viper.digests import digest_of
from viper.errors import SpecError, UnfitEngineError

SCHEME = "openai:"
#: Where the key of the endpoints comes from; never a specification.
API_KEY = "OPENAI_API_KEY"
_FORM = re.compile(r"(?P<url>https?://[^\s/#?@]+(?:/[^\s#?@]*)?)(?:#(?P<model>\S+))?")
_FIX = "write openai:https://host/v1#model-name"


@dataclass(frozen=True)
class Endpoint:
    """Base URL of the API, without a slash at the end, and the name under which the server offers the model."""

    url: str
    model: str

    @property
    def uri(self) -> str:
        """As a specification writes it."""
        return f"{SCHEME}{self.url}#{self.model}"

    @property
    def digest(self) -> str:
        """`sha256:…` over URL and model name: of weights behind an endpoint nothing more is known."""
        return f"sha256:{digest_of([self.url, self.model])}"

    def check_offered(self, names: Collection[str]) -> None:
        """Raises `UnfitEngineError` when the model is not among the names of those that the server offers."""
        if self.model not in names:
            raise UnfitEngineError(
                f"the server does not offer the model {self.model!r}",
                where=self.url,
                fix=f"write one of these after '#': {', '.join(sorted(names)[:20]) or '(it offers none)'}",
            )


def is_endpoint(uri: str) -> bool:
    """Whether a model's URI, or an engine's name, means an endpoint."""
    return uri.startswith(SCHEME)


def endpoint(uri: str, where: str = "") -> Endpoint:
    """What `openai:URL#model` (or `URL#model`) names.

    Raises `SpecError`, which never repeats credentials, for anything else: a URL with a user name, a query, no model.
    """
    found = _FORM.fullmatch(uri.removeprefix(SCHEME))
    if found is None:
        shown = re.sub(r"//[^/]*@", "//…@", uri)
        fix = f"{_FIX}; the key comes from the environment variable {API_KEY}"
        raise SpecError(f"{shown!r} is not the address of a model behind an endpoint", where=where, fix=fix)
    if found["model"] is None:
        raise SpecError(f"{uri!r} does not name the model", where=where, fix=_FIX)
    return Endpoint(found["url"].rstrip("/"), found["model"])
