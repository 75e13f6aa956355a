"""What keeps a Job from its work, how long that is believed, and what its stage is then said to be at. Pure.

One rule for all of it: a trouble is said of the Job that has it (by uid), as it was seen last, and no longer than it is
there. What a status says already counts until somebody has looked, and only of the same Job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from viper.plan import State
from viper.spec.status import StageStatus
from viper.words import one_line, plural
from viper_operator.observed import Problem, shortened
from viper_operator.views import JobView, seconds, whole

#: Reason of a stage whose pods are not there or not ready yet, without anything being wrong.
STARTING = "Starting"
QUEUED = "Queued"
#: Reason of a stage whose attempt has failed and whose next one has not begun.
BACK_OFF = "BackOff"
#: Reason of a stage that was suspended and whose pods are still there.
STOPPING = "Stopping"
#: Reason of a stage that waits for another iteration.
WAITS_FOR_MODEL = "WaitsForModel"
#: Reasons to be pending that no pod has.
OUR_OWN = frozenset({"", "Ready", STARTING, QUEUED, WAITS_FOR_MODEL})
#: How the kubelet says that it has tried before, without saying why it failed.
_AGAIN = re.compile(r'Back-off pulling image "[^"]*"(: ErrImagePull: )?')


class Said(NamedTuple):
    """What is said of a stage."""

    state: State
    reason: str
    message: str


# ---- what is seen ----------------------------------------------------------------------------------------------------


def last_word(events: Iterable[Mapping[str, Any]], uid: str, since: float) -> Problem | None:
    """What the newest Event about an object says is wrong with it; None when that one tells of nothing wrong.

    Events are kept for an hour, and stay when what they tell of has ended: only the last word counts.

    Args:
        uid: of the object; an earlier one of its name has another.
        since: seconds since the epoch before which nothing counts.
    """
    mine = [(_when(e), e) for e in events if (e.get("involvedObject") or {}).get("uid") == uid]
    if not mine:
        return None
    (at, _), event = max(mine, key=lambda found: found[0])
    if event.get("type") != "Warning" or at < int(since):
        return None
    reason = str(event.get("reason") or "Warning")
    return Problem(reason, shortened(_without_names(str(event.get("message") or reason))))


def _when(event: Mapping[str, Any]) -> tuple[float, int]:
    meta, series = event.get("metadata") or {}, event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    at = max((_seconds(t) for t in (*times, meta.get("creationTimestamp"))), default=0.0)
    return at, whole(meta.get("resourceVersion"), most=2**64)


def _seconds(time: Any) -> float:
    try:
        return seconds(time) or 0.0
    except (TypeError, ValueError):
        return 0.0


def _without_names(text: str) -> str:
    """Without the end of a pod's name, which is another one with each attempt to make it."""
    return re.sub(r'(pods? "[^"]*-)[a-z0-9]{5}"', r'\1…"', text)


def alike(old: Problem | None, new: Problem | None) -> bool:
    """Whether two looks saw the same trouble. The kubelet goes to and fro between why an image could not be pulled and
    that it waits before it tries again."""
    if old is None or new is None or old.reason != new.reason:
        return old == new
    was, now = (_AGAIN.sub("", p.message) for p in (old, new))
    only_again = now != new.message and now.endswith(": ")
    return was == now or (only_again and was.startswith(now))


def remembered(
    old: Mapping[str, Problem | None], suspects: Iterable[str], found: Mapping[str, Problem]
) -> dict[str, Problem | None]:
    """What is known of the Jobs that should be at work and are not, after a look: nothing of any other.

    Args:
        old: what was known.
        suspects: those that were looked at, by uid.
        found: what is wrong with some of them.
    """
    return {uid: before if alike(before := old.get(uid), found.get(uid)) else found.get(uid) for uid in suspects}


# ---- what is said ----------------------------------------------------------------------------------------------------


def of_this(before: StageStatus | None, job: JobView) -> bool:
    """Whether what a status says of a stage was said of this Job, and not of an earlier one of its name."""
    if before is None or before.job != job.name:
        return False
    return before.started_at is None or int(before.started_at.timestamp()) == int(job.created)


class Attempts(NamedTuple):
    """How many attempts of a Job have failed, and why the last one did."""

    failed: int
    why: str


def working(
    job: JobView, before: StageStatus | None, problems: Mapping[str, Problem | None], attempts: Mapping[str, Attempts]
) -> Said:
    """What a Job that has not ended does, or what keeps it from that.

    Args:
        before: what is said of its stage now.
        problems: by Job, see `remembered`.
        attempts: by Job, what its pods have said of those that failed.
    """
    if job.queued and job.suspended:
        return Said(State.PENDING, QUEUED, "waits for quota in its Kueue queue")
    kept = before if before is not None and of_this(before, job) else None
    looked, problem = job.uid in problems, problems.get(job.uid)
    if not looked and kept is not None and kept.state == "Pending" and kept.reason not in OUR_OWN:
        problem = Problem(kept.reason, kept.message)
    ready = job.active > 0 and job.ready >= job.active
    if problem is not None and problem.message and not ready and not job.ending:
        return Said(State.PENDING, problem.reason, one_line(problem.message))
    tried = "" if job.failures == 0 else _tried(job, kept, attempts)
    works = job.ready > 0 or job.ending
    if job.active and not works and problem is None:
        # Somebody has looked and none of its pods is pending; or nobody has since it was at work.
        works = looked or (kept is not None and kept.state == "Running" and kept.message == tried)
    if works:
        return Said(State.RUNNING, "Running", tried)
    return Said(State.RETRYING, BACK_OFF, tried) if tried else Said(State.PENDING, STARTING, "")


def _tried(job: JobView, kept: StageStatus | None, attempts: Mapping[str, Attempts]) -> str:
    often, known = plural(job.failures, "failed attempt"), attempts.get(job.uid)
    if known is not None and known.failed == job.failures:
        return one_line(f"{often}: {known.why}")
    if kept is None or kept.state not in (State.RUNNING, State.RETRYING):  # else its message is of something else
        return often
    # What a release wrote that did not count counts until the pods have been asked.
    return kept.message if kept.message and kept.failures in (None, job.failures) else often


def waits_for(other: str) -> str:
    """What is said of a stage that waits for another iteration."""
    return f"iteration {other} trains the same model now"


def suspended(job: JobView | None, message: str) -> Said:
    """What is said of a stage that a person has suspended."""
    if job is not None and (job.active or job.terminating):
        return Said(State.SUSPENDED, STOPPING, "its pods are ending; what they have written stays")
    return Said(State.SUSPENDED, "Suspended", message)


def at_rest(job: JobView) -> bool:
    """Whether a Job is suspended and its pods have gone."""
    return job.suspended and not job.finished and not job.active and not job.terminating
