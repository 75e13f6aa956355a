"""Prometheus metrics. No label holds a name that users choose, so that their number stays small."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from viper.spec.status import IterationStatus

API_REQUESTS = Counter("viper_api_requests_total", "Requests to the API server.", ["method", "status"])
RECONCILES = Counter("viper_reconciles_total", "Reconciliations by kind and result.", ["kind", "result"])
RECONCILE_SECONDS = Histogram(
    "viper_reconcile_seconds",
    "Time of a reconciliation.",
    ["kind"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
QUEUE = Gauge("viper_queue_length", "Keys that are ready or being worked on.")
LEADER = Gauge("viper_leader", "1 while this replica acts.")
ITERATIONS = Gauge("viper_iterations", "Iterations by outcome.", ["outcome"])
STAGES_STARTED = Counter("viper_stages_started_total", "Jobs made, by stage.", ["stage"])
STAGES_FINISHED = Counter("viper_stages_finished_total", "Stages that ended, by stage and state.", ["stage", "state"])
STAGE_SECONDS = Histogram(
    "viper_stage_seconds",
    "Time from a stage's Job to its end.",
    ["stage"],
    buckets=(10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600),
)
GPU_SECONDS = Counter("viper_gpu_seconds_total", "GPU-seconds of stages that ended, by stage.", ["stage"])
STORE_ERRORS = Counter("viper_store_errors_total", "Reads of the object store that failed.")
EVENTS_SEEN = Counter("viper_watch_events_total", "Events of watches, by kind.", ["kind"])
RELISTS = Counter("viper_sweeps_total", "Comparisons of everything known with what there is.")


def count_ended(previous: IterationStatus, new: IterationStatus) -> None:
    """Counts the stages that have ended between two statuses of an iteration."""
    before = {s.name: s for s in previous.stages}
    for stage in new.stages:
        old = before.get(stage.name)
        if stage.state in ("Succeeded", "Failed", "Held") and (old is None or old.state != stage.state):
            STAGES_FINISHED.labels(stage.name, stage.state).inc()
            GPU_SECONDS.labels(stage.name).inc(stage.gpu_seconds)
            if stage.started_at is not None and stage.finished_at is not None:
                taken = (stage.finished_at - stage.started_at).total_seconds()
                STAGE_SECONDS.labels(stage.name).observe(max(taken, 0.0))
