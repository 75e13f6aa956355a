"""What keeps a stage's pods from working, from pods and events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from viper.words import plural
from viper_operator.names import STAGE
from viper_operator.shallow import loads

Object = dict[str, Any]

#: Reasons of a container that is about to start.
_STARTING = ("ContainerCreating", "PodInitializing", "")


def problems(
    pods: Iterable[Object], events: Sequence[Object] = (), jobs: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """By stage, what is wrong with its pods; the same trouble of several pods once, with their number.

    Args:
        events: warnings of the namespace; those of pods that do not start and of Jobs without pods tell why.
        jobs: the stage of every Job that works now.
    """
    found: dict[str, Counter[str]] = {}
    seen = set()
    for pod in pods:
        meta = pod["metadata"]
        labels = meta.get("labels", {})
        seen.add(labels.get("batch.kubernetes.io/job-name"))
        trouble = problem(pod)
        if not trouble and pod.get("status", {}).get("phase", "Pending") == "Pending":
            trouble = _last_warning(events, "Pod", meta["name"])
        if trouble and (stage := labels.get(STAGE)):
            found.setdefault(stage, Counter())[trouble] += 1
    for job, stage in (jobs or {}).items():
        # Quota or admission refused its pods.
        if job not in seen and (trouble := _last_warning(events, "Job", job)):
            found.setdefault(stage, Counter())[trouble] += 1
    return {stage: [_counted(text, n) for text, n in texts.most_common()] for stage, texts in found.items()}


def problem(pod: Object) -> str:
    """Why a pod does not work; empty when it does, has worked, or is going away."""
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or status.get("phase") == "Succeeded":
        return ""
    return next(_troubles(pod, status), "")


def _troubles(pod: Object, status: Object) -> Iterator[str]:
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") == "True":
        yield _text(f"taken away ({disrupted.get('reason', '')}), will be replaced", disrupted.get("message"))
    if status.get("phase") == "Failed":
        yield _failure(status)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        yield _text(scheduled.get("reason", "Unschedulable"), scheduled.get("message"))
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason", "") not in _STARTING:
            yield _text(waiting["reason"], waiting.get("message"))
    if status.get("phase") == "Unknown":
        yield "the node does not answer"


def _failure(status: Object) -> str:
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        ended = container.get("state", {}).get("terminated", {})
        if ended.get("exitCode"):
            reason, message = termination(ended)
            return _text(f"attempt failed, {reason}", message)
    return _text(f"attempt failed, {status.get('reason', 'Error')}", status.get("message"))


def termination(ended: Object) -> tuple[str, str]:
    """Reason and message of a terminated container; stage programs leave JSON (`viper_jobs.main`)."""
    reason = str(ended.get("reason") or "Error")
    text = str(ended.get("message") or "").strip()
    try:
        left = loads(text.encode("utf-8", "replace"))
        return str(left["reason"]), str(left["message"])
    except (ValueError, KeyError, TypeError):
        pass
    if reason == "Error":
        reason = f"exit status {ended.get('exitCode')}"
    return reason, text.rsplit("\n", 1)[-1]


def _last_warning(events: Iterable[Object], kind: str, name: str) -> str:
    mine = [e for e in events if (e["involvedObject"].get("kind"), e["involvedObject"].get("name")) == (kind, name)]
    if not mine:
        return ""
    last = max(mine, key=_time)
    return _text(last.get("reason", "Warning"), last.get("message"))


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", ""))


def _text(reason: str, message: str | None) -> str:
    words = " ".join((message or "").split())
    return f"{reason}: {words}" if words else reason


def _counted(text: str, number: int) -> str:
    return text if number == 1 else f"{plural(number, 'pod')}: {text}"
