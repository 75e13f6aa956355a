"""What MLflow takes for a name: models and aliases are asked of MLflow itself, metrics and parameters made valid."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

from viper.errors import UnfitRegistryError

#: Longest key of a metric, parameter or tag (mlflow.utils.validation.MAX_ENTITY_KEY_LENGTH).
LONGEST = 250
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


def check_model_name(name: str) -> None:
    """Raises `UnfitRegistryError` for what cannot be a registered model, or the experiment of that name."""
    from mlflow.utils import validation

    _asked(validation._validate_model_name, name)
    _asked(validation._validate_experiment_name, name)


def check_alias(name: str) -> None:
    """Raises `UnfitRegistryError` for what cannot be an alias of a registered model."""
    from mlflow.utils import validation

    _asked(validation._validate_model_alias_name, name)
    _asked(validation._validate_model_alias_name_reserved, name)


def _asked(validate: Callable[[str], object], name: str) -> None:
    try:
        validate(name)
    except Exception as error:
        text = " ".join(str(error).split())
        raise UnfitRegistryError(f"MLflow refuses the name {name!r}: {text}", fix="choose another name") from error


def metric_names(names: Iterable[str], longest: int = LONGEST) -> dict[str, str]:
    """Names as MLflow takes them for keys of metrics and parameters, each to its own.

    MLflow allows letters, digits and `_-. :/`, in a normal path, up to 250 characters, and some of its databases do not
    tell upper from lower case. What is valid stays as it is; of others that become the same, each gets the beginning
    of its digest, so that neither order nor process decides.
    """
    names = set(names)
    made = {name: _valid(name)[:longest] for name in names}
    alike: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda n: (made[n] != n, n.swapcase())):  # valid ones first, in lower case
        alike.setdefault(made[name].casefold().rstrip(), []).append(name)
    for group in alike.values():
        cut = any(len(name) > longest for name in group)  # what is cut off may be another's too
        for name in group:
            if (made[name] != name and (len(group) > 1 or cut)) or name != group[0]:
                made[name] = _marked(name, made[name], longest)
    return made


def _valid(name: str) -> str:
    segments = _NOT_IN_NAMES.sub("_", name).split("/")
    valid = "/".join(s if s.strip(".") else "_" * max(1, len(s)) for s in segments)
    return f"__{valid[2:]}" if valid.startswith("..") else valid


def _marked(name: str, valid: str, longest: int) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{valid[: longest - 9].rstrip('/')}-{digest}"
