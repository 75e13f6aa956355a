"""Jobs, pods and iterations of the API with only what a test is about."""

from __future__ import annotations

from typing import Any

from viper_operator.job_specs import owner_reference
from viper_operator.names import (
    ATTEMPT_LABEL,
    GPUS,
    ITERATION,
    MODEL,
    QUEUE,
    RETRY_LABEL,
    SECONDS_BEFORE,
    STAGE,
    job_name,
)
from viper_operator.settings import Settings
from viper_operator.views import IterationView, JobView

SETTINGS = Settings(
    namespace="team",
    store="s3://viper?endpoint=http://minio:9000",
    tracking="http://mlflow:5000",
    image="viper/cpu:1",
    credentials_secret="viper-store",  # noqa: S106 (the name of a Secret)
)
#: 2026-01-01T00:01:40Z
NOW = 1767225700.0
START = "2026-01-01T00:00:00Z"


def job_body(
    stage: str = "ingest-images",
    *,
    name: str = "",
    iteration: str = "it",
    owner: str = "uid-it",
    version: int = 1,
    retry: int = 0,
    attempt: int = 1,
    gpus: int = 0,
    before: int = 0,
    queue: str = "",
    shards: int = 1,
    suspend: bool = False,
    condition: str = "",
    reason: str = "",
    message: str = "",
    **status: Any,
) -> dict[str, Any]:
    """A Job; `condition`: `Complete` or `Failed`, at 00:01:00."""
    notes = {MODEL: "m", GPUS: str(gpus)} | ({SECONDS_BEFORE: str(before)} if before else {})
    labels = {ITERATION: iteration, STAGE: stage, RETRY_LABEL: str(retry), ATTEMPT_LABEL: str(attempt)}
    conditions = []
    if condition:
        end = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:01:00Z"}
        conditions = [{"type": "FailureTarget", "status": "True"}, {"type": condition, **end}]
    return {
        "metadata": {
            "name": name or job_name(iteration, stage, retry=retry, attempt=attempt),
            "uid": f"uid-{iteration}-{stage}-{retry}-{attempt}",
            "resourceVersion": str(version),
            "creationTimestamp": START,
            "labels": labels | ({QUEUE: queue} if queue else {}),
            "annotations": notes,
            "ownerReferences": [owner_reference("ViperIteration", iteration, owner)] if owner else [],
        },
        "spec": {"completions": shards, "suspend": suspend},
        "status": {"startTime": START, "conditions": conditions, **status},
    }


def job(stage: str = "ingest-images", **fields: Any) -> JobView:
    """What the operator keeps of it."""
    return JobView.of(job_body(stage, **fields))


def pod_body(
    job: str = "it-ingest-images", *, name: str = "pod", index: int = 0, phase: str = "Failed", **status: Any
) -> dict[str, Any]:
    """A pod of a Job."""
    labels = {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/job-completion-index": str(index)}
    meta = {"name": name, "labels": labels, "creationTimestamp": START}
    return {"metadata": meta, "status": {"phase": phase, **status}}


def terminated(code: int, *, message: str = "", reason: str = "Error", at: str = "2026-01-01T00:00:50Z") -> Any:
    """The status of a container that has ended."""
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}}
    return [{"name": "stage", "state": state}]


def waiting(reason: str, message: str = "") -> Any:
    """The status of a container that cannot start."""
    return [{"name": "stage", "state": {"waiting": {"reason": reason, "message": message}}}]


def iteration_body(name: str = "it", *, generation: int = 1, retry: int = 0, **spec: Any) -> dict[str, Any]:
    """A ViperIteration without a status."""
    notes = {"viper.dev/retry": str(retry)} if retry else {}
    meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": generation, "annotations": notes}
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperIteration",
        "metadata": {**meta, "creationTimestamp": START, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"model": "m", **spec},
    }


def iteration(name: str = "it", status: dict[str, Any] | None = None, **fields: Any) -> IterationView:
    """What the operator keeps of it."""
    return IterationView.of({**iteration_body(name, **fields), "status": status or {}})
