"""What packages add to viper: engines, a prompt set, and URIs of image pools, question sets and models.

A package names its `Extension` as an entry point of the group `viper.extensions`. The entry point's name is what
specifications call its engines and its prompts, and the scheme of its URIs. The module with the declaration is imported
with the models of specifications and should itself import this one alone; what it names as `module:name` is imported
when it is used.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from viper.errors import SpecError

GROUP = "viper.extensions"
#: What comes with viper, where it is run from its sources too, and what is installed is not known.
BUNDLED = {"smallworld": "viper.smallworld:EXTENSION"}

#: Whether an engine's name is followed by the place of a model of its own; `may` where it is not said.
Place = Literal["must", "may", "none"]
Kind = Literal["pools", "questions", "models"]


@dataclass(frozen=True)
class Engine:
    """An engine of a package: `module:Class` with what `viper.engines.base` says."""

    target: str
    place: Place = "may"


@dataclass(frozen=True)
class Uris:
    """URIs of one kind that a package reads.

    Args:
        form: how they are written, for people: `acme:photos?count=N`. A pool's says in `count` how many images it has.
        target: `module:function` of the URI. For pools it returns a `viper.ingest.sources.Source`; for questions, with
            the name of the set as its second argument, a list of `viper.evaluation.questions.Question`; for models the
            folder with the model, which is copied into the store.
        pattern: what the whole URI matches, in the common language of `viper.spec.forms`.
        limits: what the form does not say of numbers, for people.
        side: longer side of a pool's images, px; None: up to `spec.images.maxSide`.
    """

    form: str
    target: str
    pattern: str
    limits: str = ""
    side: int | None = None

    def fits(self, uri: str) -> bool:
        """Whether it is one of these."""
        return re.fullmatch(self.pattern, uri) is not None

    def open(self, *arguments: str) -> Any:
        """What `target` returns."""
        return load(self.target)(*arguments)


@dataclass(frozen=True)
class Extension:
    """What a package adds.

    Args:
        engines: interface (a field of `spec.engines`) → its engine.
        prompts: folder with a prompt set (`viper.prompts`).
        pairs: `module:function` of a count and a seed: `viper.reward.calibration.Pair`s of the package's own language.
    """

    engines: Mapping[str, Engine] = field(default_factory=dict)
    prompts: Path | None = None
    pools: Uris | None = None
    questions: Uris | None = None
    models: Uris | None = None
    pairs: str = ""


@cache
def extensions() -> dict[str, Extension]:
    """Name → what it adds; raises `SpecError` naming a package whose declaration cannot be read."""
    found = {point.name: point.value for point in entry_points(group=GROUP)} | BUNDLED
    return {name: _declared(name, target) for name, target in sorted(found.items())}


def _declared(name: str, target: str) -> Extension:
    try:
        made = load(target)
    except Exception as error:  # somebody's module: it may raise anything
        problem = f"cannot be read: {error}"
    else:
        if isinstance(made, Extension):
            return made
        problem = f"is no viper.extensions.Extension but of type {type(made).__name__}"
    raise SpecError(f"the extension {name} ({target}) {problem}", fix="correct or remove the package that has it")


def load(target: str) -> Any:
    """What `module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def reader(kind: Kind, uri: str) -> Uris | None:
    """The URIs of this kind whose scheme this one has; None where no package adds them."""
    scheme, colon, _ = uri.partition(":")
    found = extensions().get(scheme.lower()) if colon else None
    return getattr(found, kind) if found is not None else None


def added(kind: Kind) -> list[Uris]:
    """All URIs of this kind."""
    return [uris for e in extensions().values() if (uris := getattr(e, kind)) is not None]


def written(kind: Kind) -> str:
    """How URIs of this kind are written: `acme:photos?count=N or smallworld:scenes?count=N&seed=S`."""
    return " or ".join(uris.form for uris in added(kind))
