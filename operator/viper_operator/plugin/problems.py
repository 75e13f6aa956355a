"""What keeps a stage's pods from working, from pods and events. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from viper.words import plural
from viper_operator.names import JOB, STAGE
from viper_operator.observed import JOB_OF_POD
from viper_operator.shallow import loads
from viper_operator.troubles import last_word

Object = dict[str, Any]

#: Reasons of a container that is about to start.
_STARTING = ("ContainerCreating", "PodInitializing", "")


def problems(
    pods: Iterable[Object],
    events: Sequence[Object] = (),
    jobs: Mapping[str, str] | None = None,
    uids: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """By stage, what is wrong with its pods; the same trouble of several pods once, with their number.

    Args:
        events: about pods that do not start and Jobs without pods (`silent`); the last word about one tells why.
        jobs: the stage of every Job that works now; pods of others are left out.
        uids: of the Jobs.
    """
    found: dict[str, Counter[str]] = {}
    seen = set()
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        seen.add(job := _job_of(labels))
        if jobs is not None and job and job not in jobs:
            continue  # an attempt of before a person had it tried again
        trouble = problem(pod) or (last_told(events, pod["metadata"].get("uid", "")) if _starts(pod) else "")
        if trouble and (stage := labels.get(STAGE)):
            found.setdefault(stage, Counter())[trouble] += 1
    for job, stage in (jobs or {}).items():
        # Quota or admission refused its pods.
        if job not in seen and (trouble := last_told(events, (uids or {}).get(job, ""))):
            found.setdefault(stage, Counter())[trouble] += 1
    return {stage: [_counted(text, n) for text, n in texts.most_common()] for stage, texts in found.items()}


def silent(pods: Sequence[Object], uids: Mapping[str, str]) -> list[str]:
    """uids of what says nothing itself: pods that do not start, Jobs that have none."""
    starting = [str(p["metadata"].get("uid", "")) for p in pods if _starts(p) and not problem(p)]
    seen = {_job_of(p["metadata"].get("labels", {})) for p in pods}
    return [*starting, *(uid for name, uid in uids.items() if name not in seen)]


def last_told(events: Iterable[Object], uid: str) -> str:
    """What the last Event about an object says is wrong with it; empty when that tells of nothing wrong."""
    found = last_word(events, uid, 0.0) if uid else None
    return "" if found is None else _text(found.reason, found.message)


def _job_of(labels: Mapping[str, str]) -> str:
    return labels.get(JOB_OF_POD) or labels.get(JOB, "")


def _starts(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase", "Pending") == "Pending")


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


def _text(reason: str, message: str | None) -> str:
    words = " ".join((message or "").split())
    return f"{reason}: {words}" if words else reason


def _counted(text: str, number: int) -> str:
    return text if number == 1 else f"{plural(number, 'pod')}: {text}"
