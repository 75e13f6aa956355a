"""Experiments and runs: one experiment per model, one run per iteration, one nested run per stage."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from viper.errors import RegistryError, UnfitRegistryError
from viper.registry.connection import Connection, MissingError

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

ITERATION, UID, STAGE = "viper.iteration", "viper.uid", "viper.stage"
_PARENT = "mlflow.parentRunId"
_METRICS_PER_REQUEST, _PARAMS_PER_REQUEST = 1000, 100  # limits of MLflow's log-batch
_DATASET_DIGEST_CHARACTERS = 36
_PARAM_CHARACTERS, _TAG_CHARACTERS = 6000, 8000
T = TypeVar("T")


class Runs:
    """What is tracked. Every function may be called again after an interruption and ends in the same state.

    Run ids, experiment ids: MLflow's, as strings. All functions raise RegistryError when MLflow cannot be used.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, made when there is none.

        With SQLite its artifacts go to the folder `mlartifacts` beside the database; a server has its own place.
        """
        found = self._connection.call("get_experiment_by_name", name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise UnfitRegistryError(
                    f"the experiment {name} was deleted",
                    where=self._connection.uri,
                    fix="restore it or choose a new name",
                )
            return str(found.experiment_id)
        database = self._connection.database
        location = (database.absolute().parent / "mlartifacts").as_uri() if database else None
        try:
            return str(self._connection.call("create_experiment", name, artifact_location=location))
        except RegistryError:
            found = self._connection.call("get_experiment_by_name", name)
            if found is None:
                raise
            return str(found.experiment_id)  # another process made it meanwhile

    def iteration_run(self, model: str, iteration: str, uid: str, tags: Mapping[str, str] | None = None) -> str:
        """Id of the run of an iteration, found or made; `uid` tells two iterations of one name apart."""
        identity = {ITERATION: iteration, UID: uid}
        return self._run(self.experiment(model), iteration, identity, absent=STAGE, tags=tags or {})

    def stage_run(self, parent_run: str, stage: str, tags: Mapping[str, str] | None = None) -> str:
        """Id of the run of a stage, nested in the iteration's; a resumed stage goes on in its first run."""
        parent = self._connection.call("get_run", parent_run)
        inherited = {k: parent.data.tags[k] for k in (ITERATION, UID) if k in parent.data.tags}
        identity = {_PARENT: parent_run, STAGE: stage}
        experiment = str(parent.info.experiment_id)
        return self._run(experiment, stage, identity, absent=None, tags={**inherited, **(tags or {})})

    def find_stage_run(self, parent_run: str, stage: str) -> str | None:
        """Id of the run of a stage, or None when it has not started."""
        parent = self._connection.call("get_run", parent_run)
        found = self._find(str(parent.info.experiment_id), {_PARENT: parent_run, STAGE: stage}, None)
        return found[0] if found else None

    def finish_run(self, run: str, status: RunStatus = "FINISHED") -> None:
        """Close a run; `stage_run` and `iteration_run` open it again."""
        self._connection.call("set_terminated", run, status)

    def log_params(self, run: str, params: Mapping[str, object]) -> None:
        """Record parameters. MLflow lets none change: raises RegistryError when one has another value already."""
        values = {key: str(value)[:_PARAM_CHARACTERS] for key, value in params.items()}
        known = self._connection.call("get_run", run).data.params
        changed = sorted(key for key in values.keys() & known.keys() if values[key] != known[key])
        if changed:
            key = changed[0]
            raise UnfitRegistryError(
                f"parameter {key} is {known[key]!r} there and would become {values[key]!r}",
                where=f"run {run}",
                fix="a resumed stage keeps its parameters; start a new iteration to change them",
            )
        from mlflow.entities import Param

        for chunk in _chunks((Param(k, v) for k, v in values.items() if k not in known), _PARAMS_PER_REQUEST):
            self._connection.call("log_batch", run, params=chunk)

    def log_curve(self, run: str, rows: Iterable[Mapping[str, float]], step_key: str = "step") -> int:
        """Record the rows of a training log as metrics; returns how many values were new.

        Each row has its step under `step_key` and any further columns; what is not a finite number is left out. A value
        that is recorded for that step already is not recorded twice, so that the whole log can be sent again.
        """
        table = [
            (int(row[step_key]), {k: v for k, v in row.items() if k != step_key and _is_number(v)}) for row in rows
        ]
        names = {name for _, values in table for name in values}
        recorded = self._connection.call("get_run", run).data.metrics
        known = {
            (metric.key, metric.step)
            for name in names & recorded.keys()
            for metric in self._connection.call("get_metric_history", run, name)
        }
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = {
            (name, step): Metric(name, float(value), now, step)
            for step, values in table
            for name, value in values.items()
            if (name, step) not in known
        }
        for chunk in _chunks(fresh.values(), _METRICS_PER_REQUEST):
            self._connection.call("log_batch", run, metrics=chunk)
        return len(fresh)

    def log_tags(self, run: str, tags: Mapping[str, object]) -> None:
        """Set tags; a tag that is there is overwritten."""
        from mlflow.entities import RunTag

        values = [RunTag(key, str(value)[:_TAG_CHARACTERS]) for key, value in tags.items()]
        for chunk in _chunks(values, _PARAMS_PER_REQUEST):
            self._connection.call("log_batch", run, tags=chunk)

    def log_dataset(
        self,
        run: str,
        name: str,
        uri: str,
        digest: str,
        *,
        context: str = "training",
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a dataset as the run's input: `uri` of its manifest, `digest` (`sha256:…`), `profile` (row counts, …).

        MLflow keeps 36 characters of a digest: the whole one is in the profile.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest.removeprefix("sha256:")[:_DATASET_DIGEST_CHARACTERS],
            source_type="s3" if uri.startswith("s3:") else "local",
            source=json.dumps({"uri": uri}),
            profile=json.dumps({"digest": digest, **(profile or {})}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._connection.call("log_inputs", run, [DatasetInput(dataset, tags)])

    def log_artifact(self, run: str, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a directory with all its files, into the run's artifacts."""
        method = "log_artifacts" if path.is_dir() else "log_artifact"
        self._connection.call(method, run, str(path), folder)

    def log_text(self, run: str, text: str, name: str) -> None:
        """Write `text` as the artifact `name` (`report/card.md`)."""
        self._connection.call("log_text", run, text, name)

    def _run(
        self, experiment: str, name: str, identity: Mapping[str, str], *, absent: str | None, tags: Mapping[str, str]
    ) -> str:
        with self._connection.exclusive():
            found = self._find(experiment, identity, absent)
            if not found:
                everything = {**tags, **identity, "mlflow.runName": name}
                created = self._connection.call("create_run", experiment, tags=everything, run_name=name).info.run_id
                # MLflow has no conditional create: with a server, another process, or a request repeated after its
                # answer got lost, may have made a second run. The older one counts; who made the other removes it.
                first = self._find(experiment, identity, absent)[0]
                if first != created:
                    self._connection.call("delete_run", created)
                return first
        self.log_tags(found[0], tags)
        self._connection.call("update_run", found[0], status="RUNNING")
        return found[0]

    def _find(self, experiment: str, identity: Mapping[str, str], absent: str | None) -> Sequence[str]:
        """Run ids with these tags, without a tag `absent`, oldest first."""
        condition = " and ".join(f"tags.`{key}` = '{_quotable(value)}'" for key, value in identity.items())
        runs = self._connection.call("search_runs", [experiment], condition, max_results=1000)
        runs = [r for r in runs if absent is None or absent not in r.data.tags]
        return [str(r.info.run_id) for r in sorted(runs, key=lambda r: (r.info.start_time, r.info.run_id))]


def _quotable(value: str) -> str:
    if "'" in value or "\\" in value:
        raise UnfitRegistryError(
            "a name must not have quotes or backslashes", where=repr(value), fix="choose another name"
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _chunks(items: Iterable[T], size: int) -> Iterable[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


__all__ = ["ITERATION", "STAGE", "UID", "MissingError", "RunStatus", "Runs"]
