"""From Jobs and pods to what the brain understands (`viper.plan.Shard`), and what keeps a pod from running. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from viper.plan import Exit, Shard
from viper.stage.termination import OTHER_NODE_WENT
from viper_operator.job_specs import CONTAINER
from viper_operator.names import JOB, RAY
from viper_operator.shallow import loads
from viper_operator.views import JobView, seconds, whole

JOB_OF_POD = "batch.kubernetes.io/job-name"
INDEX_OF_POD = "batch.kubernetes.io/job-completion-index"
#: A container that waits for one of these is about to start.
STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
#: Two names for one condition, between which the kubelet goes to and fro.
SAME = {"ErrImagePull": "ImagePullBackOff", "ErrImageNeverPull": "ImagePullBackOff"}
#: Characters of a pod's message that are kept.
LONGEST = 600


@dataclass(frozen=True)
class Problem:
    """Why a Job that should run does not. `reason`: Kubernetes' word for it."""

    reason: str
    message: str


@dataclass(frozen=True)
class PodReport:
    """What a pod says. `exit`: how its container ended, None while it has not or for reasons outside of it. `created`:
    seconds since the epoch."""

    name: str
    job: str
    index: int  # of the shard, or of the node where a stage has several
    owner: str = ""  # uid of its controller
    exit: Exit | None = None
    problem: Problem | None = None
    uid: str = ""
    created: float = 0.0


def current_jobs(jobs: Iterable[JobView], retry: int) -> dict[str, JobView]:
    """The Job that counts, by stage: the newest. One of an earlier retry counts only as long as it works."""
    found: dict[str, JobView] = {}
    for job in sorted(jobs, key=lambda j: (j.retry, j.attempt)):
        if job.retry >= retry or job.working:
            found[job.stage] = job
    return found


def shards_of(job: JobView, reports: Sequence[PodReport], *, retries: int, now: float) -> dict[int, Shard]:
    """The shards of a stage, as far as its Job knows.

    The Job controller makes attempts and pauses between them; a Job that has failed has used them up (`retries`), or
    met an error that no further attempt would change. One that is complete and whose manifest is missing has ended once
    for the operator, which then makes another Job. Deadlines are the pods' own, so that a shard that works has always
    just started as far as the brain is concerned.
    """
    before = job.attempt - 1
    if job.working:
        working = {i: Shard(running_since=now, ended=before) for i in range(job.shards)}
        return working | _used_up(job, reports, retries)
    if job.complete:
        end = Exit(job.ended or now, 0)
        return {i: Shard(ended=job.attempt, last=end) for i in range(job.shards)}
    if job.failed:
        code = 1 if job.code is None else job.code
        last = last_exits(job, reports) or {0: Exit(job.ended or now, code, job.reason or "JobFailed", job.message)}
        # A RayJob makes one attempt.
        ended = job.attempt if job.kind == "RayJob" else retries + 1
        return {i: Shard(ended=ended, last=end) for i, end in last.items()}
    return {i: Shard(ended=before) for i in range(job.shards)}


def _used_up(job: JobView, reports: Sequence[PodReport], retries: int) -> dict[int, Shard]:
    """Shards that have had all their attempts, while the Job as a whole still has some."""
    ends = last_exits(job, reports)
    times = Counter(r.index // job.nodes for r in reports if r.job == job.name and r.exit is not None)
    return {i: Shard(ended=times[i], last=end) for i, end in ends.items() if times[i] > retries}


def last_exits(job: JobView, reports: Sequence[PodReport]) -> dict[int, Exit]:
    """How the last attempt of each failed shard of a Job ended."""
    found: dict[int, Exit] = {}
    for report in reports:
        end = report.exit
        if report.job == job.name and end is not None and end.code != 0:
            shard = report.index // job.nodes
            known = found.get(shard)
            if known is None or known.at <= end.at:
                found[shard] = end
    return found


def pod_report(body: Mapping[str, Any]) -> PodReport:
    """What there is to say about a pod of the API."""
    meta, status = body["metadata"], body.get("status", {})
    labels, notes = meta.get("labels", {}), meta.get("annotations", {})
    index = whole(labels.get(INDEX_OF_POD, notes.get(INDEX_OF_POD)))
    name, job = meta["name"], labels.get(JOB_OF_POD) or labels.get(JOB, "")
    owner = next((str(o.get("uid", "")) for o in meta.get("ownerReferences", ()) if o.get("controller")), "")
    if status.get("phase") == "Failed":
        return PodReport(name, job, index, owner, exit=_exit(body))
    if status.get("phase") == "Succeeded":
        return PodReport(name, job, index, owner)
    created = seconds(meta.get("creationTimestamp")) or 0.0
    return PodReport(name, job, index, owner, problem=_problem(name, status), uid=meta.get("uid", ""), created=created)


def belongs(report: PodReport, job: JobView) -> bool:
    """Whether a pod is one of a Job, and does not only have its labels. Those of a RayJob are its cluster's."""
    return report.job == job.name and (job.kind != "Job" or report.owner == job.uid)


def _exit(body: Mapping[str, Any]) -> Exit | None:
    """How a failed pod ended; None when it was taken away (preemption, drain, loss of the node) or left because another
    node of its Ray cluster had."""
    status = body["status"]
    if any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", ())):
        return None
    created = seconds(body["metadata"].get("creationTimestamp")) or 0.0
    ended: dict[str, Any] = next(
        (s["state"]["terminated"] for s in _containers(status) if "terminated" in s.get("state", {})), {}
    )
    at = seconds(ended.get("finishedAt")) or created
    code = ended.get("exitCode", 1) or 1
    if code == OTHER_NODE_WENT and RAY in body["metadata"].get("labels", {}):
        return None
    if status.get("reason"):  # DeadlineExceeded, Evicted, UnexpectedAdmissionError, …
        return Exit(at, 143 if status["reason"] == "DeadlineExceeded" else code, status["reason"], _message(status))
    reason, message = _termination(ended.get("message", ""))
    if ended.get("reason") == "OOMKilled":
        return Exit(at, code, "OOMKilled", "the container used more memory than its limit and was killed")
    return Exit(at, code, reason or ended.get("reason", ""), message)


def _message(status: Mapping[str, Any]) -> str:
    if status["reason"] == "DeadlineExceeded":
        return "took longer than its deadline (deadlineSeconds of the profile)"
    return shortened(status.get("message", ""))


def _termination(text: str) -> tuple[str, str]:
    """Reason and message that the stage program left; else the last lines of its log."""
    try:
        data = loads(text.encode("utf-8", "replace"))
        return str(data["reason"]), shortened(str(data["message"]))
    except (ValueError, KeyError, TypeError):
        return "", shortened(text.strip())


def _problem(name: str, status: Mapping[str, Any]) -> Problem | None:
    for state in _containers(status):
        waiting = state.get("state", {}).get("waiting")
        if waiting and waiting.get("reason", "") not in STARTING:
            reason = SAME.get(waiting["reason"], waiting["reason"])
            return Problem(reason, shortened(f"pod {name}: {waiting.get('message') or waiting['reason']}"))
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason", "Unschedulable")
            return Problem(reason, shortened(f"pod {name} waits for a node: {condition.get('message', '')}"))
    return None


def _containers(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stage's own container first."""
    found = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    return sorted(found, key=lambda s: s.get("name") != CONTAINER)


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text of the length that a status may have."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
