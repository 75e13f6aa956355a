"""What a specification takes as a name in the registry, MLflow takes too: its own rules decide."""

from __future__ import annotations

import pytest

from viper.spec.forms import ALIAS, MODEL, NO_PATH, NOT_RESERVED

NAMES = [
    *(
        "",
        " ",
        ".",
        "..",
        "..a",
        "a",
        "a/b",
        "a:b",
        "v1",
        "V12",
        "v",
        "v1a",
        "latest",
        "LaTeSt",
        "latest1",
        "generator",
    ),
    *("1", "-a", "_a", "a-b_c", "a b", "a.b", "it's", 'a"b', "a\\b", "a\n", "v1\n", "größe", "a@b", "a" * 250),
]


@pytest.mark.parametrize("name", NAMES)
def test_what_mlflow_refuses_is_refused(name: str) -> None:
    from mlflow.utils.validation import (
        _validate_model_alias_name,
        _validate_model_alias_name_reserved,
        _validate_model_name,
    )

    def alias() -> None:
        _validate_model_alias_name(name)
        _validate_model_alias_name_reserved(name)

    for forms, theirs in (((ALIAS, NOT_RESERVED), alias), ((MODEL, NO_PATH), lambda: _validate_model_name(name))):
        if all(form.fits(name) for form in forms):
            theirs()  # raises what MLflow would


def test_the_names_that_mlflow_keeps_are_refused() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_alias_name_reserved

    for name in ("v1", "V12", "latest", "LaTeSt"):
        with pytest.raises(MlflowException):
            _validate_model_alias_name_reserved(name)
        assert not NOT_RESERVED.fits(name)
