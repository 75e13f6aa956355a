"""What MLflow refuses: for good or not, told apart; and names made as it takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException, get_error_code
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from viper.errors import RegistryError, UnfitRegistryError
from viper.plan import PERMANENT_EXIT_CODES
from viper.registry import MissingError, Registry, sqlite_uri
from viper.registry.names import LONGEST, check_alias, check_model_name, metric_names


def answered(status: int, body: str = "") -> MlflowException:
    """What MLflow's client makes of an answer that is not its server's JSON."""
    text = f"API request to endpoint /api/x failed with error code {status} != 200. Response body: '{body}'"
    return MlflowException(text, error_code=get_error_code(status))


def said(code: str, message: str = "no") -> RestException:
    return RestException({"error_code": code, "message": message})


SQL = "(sqlite3.{0}) … (Background on this error at: https://sqlalche.me/e/20/gkpj)"
FOR_GOOD: dict[str, Exception] = {
    "a bad parameter": said("INVALID_PARAMETER_VALUE"),
    "a bad request": said("BAD_REQUEST"),
    "a malformed one": said("MALFORMED_REQUEST"),
    "no permission": said("PERMISSION_DENIED"),
    "nobody": said("UNAUTHENTICATED"),
    "a customer of another's": said("CUSTOMER_UNAUTHORIZED"),
    "what it cannot do": said("NOT_IMPLEMENTED"),
    "401 of its door": answered(401, "You are not authenticated"),
    "403 of its door": answered(403, "Permission denied"),
    "400 in HTML": answered(400, "<html>"),
    "a value that no column holds": said("BAD_REQUEST", SQL.format("DataError")),
}
FOR_NOW: dict[str, Exception] = {
    "404 of a proxy": answered(404, "default backend"),
    "502": answered(502),
    "503": answered(503),
    "429": answered(429),
    "an internal error": said("INTERNAL_ERROR"),
    "temporarily": said("TEMPORARILY_UNAVAILABLE"),
    "there already": said("RESOURCE_ALREADY_EXISTS"),
    "another was first": said("BAD_REQUEST", SQL.format("IntegrityError")),
    "a broken transaction": said("BAD_REQUEST", SQL.format("PendingRollbackError")),
    "a connection": ConnectionError("reset"),
}


def met(error: Exception) -> RegistryError:
    """What becomes of an error of MLflow's."""
    registry = Registry("http://mlflow.test")

    def fail() -> Any:
        raise error

    with pytest.raises(RegistryError) as found:
        registry.connection.attempt(fail)
    return found.value


@pytest.mark.parametrize("error", FOR_GOOD.values(), ids=FOR_GOOD)
def test_what_would_be_refused_again_is_not_tried_again(error: Exception) -> None:
    assert isinstance(met(error), UnfitRegistryError)
    assert met(error).exit_code in PERMANENT_EXIT_CODES


@pytest.mark.parametrize("code", ["RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"])
def test_what_is_not_there_is_told_apart(code: str) -> None:
    assert isinstance(met(said(code)), MissingError)


@pytest.mark.parametrize("error", FOR_NOW.values(), ids=FOR_NOW)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert not isinstance(met(error), UnfitRegistryError)
    assert met(error).exit_code not in PERMANENT_EXIT_CODES


@pytest.mark.parametrize("alias", ["v2", "V10", "latest", "Latest", "a b", "", "x" * 256, "it's"])
def test_mlflow_is_asked_about_aliases(alias: str) -> None:
    with pytest.raises(UnfitRegistryError, match="refuses the name"):
        check_alias(alias)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a:b", " ", "", "a/"])
def test_mlflow_is_asked_about_models(name: str) -> None:
    with pytest.raises(UnfitRegistryError, match="refuses the name"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["generator", "v2x", "latest_one", "vision", "é"])
def test_other_aliases_are_taken(name: str) -> None:
    check_alias(name)
    check_model_name(name)


def test_a_real_registry_says_at_once_what_it_will_never_take(tmp_path: Path) -> None:
    registry = Registry(sqlite_uri(tmp_path))
    version = registry.register("m", "s3://b/m", "sha256:1")
    with pytest.raises(UnfitRegistryError, match="reserved"):
        registry.promote("m", "v2", version, expected=None)
    with pytest.raises(UnfitRegistryError, match="Invalid"):
        registry.register("..", "s3://b/m", "sha256:1")
    with pytest.raises(MissingError, match="names no version"):
        registry.resolve("m", "7")
    run = registry.iteration_run("m", "it", "uid")
    with pytest.raises(UnfitRegistryError, match="must not resolve to other names"):
        registry.log_curve(run, [{"accuracy/colour/": 1.0, "step": 0}])


NAMES = (
    *("colour", "colour/", "/colour", "colour//shape", "colour/shape", ".", "..", "../up", "a/../b", "", " "),
    *("Health & Medicine", "Health + Medicine", "Health _ Medicine", "Blue", "blue", "overall", "Overall"),
    *("x" * 300, "x" * 299 + "y", "x" * 250, "größe", "颜色", "🙂", "🙃", "a\nb", "a\n", "100 %", "50 %", "it's"),
)


def test_names_of_metrics_are_valid_and_each_its_own() -> None:
    made = metric_names(NAMES)
    for name, valid in made.items():
        _validate_metric_name(valid)
        _validate_param_name(valid)
        assert len(valid) <= LONGEST, name
    assert len({valid.casefold() for valid in made.values()}) == len(NAMES)
    assert metric_names(reversed(NAMES)) == made


@pytest.mark.parametrize("name", ["colour", "colour/shape", "Health _ Medicine", "overall", "x" * 250, "größe"])
def test_what_is_valid_stays_as_it_is(name: str) -> None:
    assert metric_names(NAMES)[name] == name


def test_what_stands_alone_needs_no_mark() -> None:
    assert metric_names(["Health & Medicine", "colour/"]) == {
        "Health & Medicine": "Health _ Medicine",
        "colour/": "colour/_",
    }
