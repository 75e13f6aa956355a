"""Which pods' logs are meant, and whether they have any. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from viper.spec.status import IterationStatus, read_status
from viper_operator.job_specs import CONTAINER
from viper_operator.names import STAGE
from viper_operator.observed import INDEX_OF_POD
from viper_operator.plugin.api import Object
from viper_operator.plugin.errors import ClusterError
from viper_operator.plugin.view import Iteration

#: States in which a stage writes no more.
OVER = ("Succeeded", "Held", "Failed")


def chosen(body: Object, stage: str) -> str:
    """The stage that is meant: by default the one the iteration is at. Raises `ClusterError` for one it has not."""
    status = _status(body)
    known = [s.name for s in status.stages]
    if not stage:
        return status.stage or (known[-1] if known else "")
    if known and stage not in known:
        raise ClusterError(
            f"{body['metadata']['name']} has no stage {stage}", where="STAGE", fix=f"its stages are {', '.join(known)}"
        )
    return stage


def over(body: Object, stage: str) -> bool:
    """Whether nothing more will be written: by the stage, or by the iteration when no stage is asked for."""
    seen = Iteration(body)
    return seen.finished or (not seen.unseen and any(s.name == stage and s.state in OVER for s in seen.status.stages))


def select(pods: Iterable[Object], shard: int | None, *, previous: bool = False) -> list[Object]:
    """By shard, the pod of the last attempt (`previous`: of the one before)."""
    shards: dict[int, list[Object]] = {}
    for pod in pods:
        shards.setdefault(shard_of(pod), []).append(pod)
    attempts = []
    for index, found in sorted(shards.items()):
        wanted = in_order(found)[:-1] if previous else in_order(found)
        if wanted and shard in (None, index):
            attempts.append(wanted[-1])
    return attempts


def in_order(pods: Iterable[Object]) -> list[Object]:
    """Pods by when they were made."""
    return sorted(pods, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))


def stage_of(pod: Object) -> str:
    """The stage that a pod works on."""
    return str(pod["metadata"].get("labels", {}).get(STAGE, ""))


def ended(pod: Object) -> bool:
    """Whether a pod writes no more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def at_once(pods: Iterable[Object]) -> set[str]:
    """Uids of the pods at work, where those are of several stages: whose a line is, has to be said."""
    working = [p for p in pods if begun(p) and not ended(p)]
    return {p["metadata"]["uid"] for p in working} if len({stage_of(p) for p in working}) > 1 else set()


def shard_of(pod: Object) -> int:
    """The index of a pod in its Job."""
    meta = pod["metadata"]
    return int(meta.get("labels", {}).get(INDEX_OF_POD) or meta.get("annotations", {}).get(INDEX_OF_POD) or 0)


def container(pod: Object) -> str:
    """The container with the stage program; a pod template override may have added others."""
    names = [c["name"] for c in pod["spec"]["containers"]]
    return CONTAINER if CONTAINER in names else str(names[0])


def begun(pod: Object) -> bool:
    """Whether the stage's container has a log."""
    name = container(pod)
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return any(c["name"] == name and ("running" in c["state"] or "terminated" in c["state"]) for c in statuses)


def prefix(pod: Object, attempts: Sequence[Object]) -> str:
    """What stands before every line: the shard, where there are several."""
    return f"[{shard_of(pod)}] " if len(attempts) > 1 else ""


def nothing(body: Object, stage: str, shard: int | None, *, previous: bool = False) -> ClusterError:
    """Why there is no log to print, and where else to look."""
    name = body["metadata"]["name"]
    what = stage + ("" if shard is None else f" shard {shard}") + (" (previous attempt)" if previous else "")
    state = next((s.state for s in _status(body).stages if s.name == stage), "")
    if not stage or state in ("", "Waiting", "Pending"):
        return ClusterError(
            f"{stage} has not started" if stage else "no stage has started",
            where=name,
            fix=f"`kubectl viper status {name}` says what it waits for",
        )
    return ClusterError(
        f"there is no pod of {what}",
        where=name,
        fix="logs go with their pods (profile ttlSecondsAfterFinished); what the stage did is in its MLflow run"
        if not previous
        else "it has had one attempt, or the pods before it are gone",
    )


def _status(body: Object) -> IterationStatus:
    return read_status(IterationStatus, body.get("status"))


def moment(stamp: str) -> tuple[str, str]:
    """A timestamp of a log, comparable: the kubelet leaves out zeros at the end of the fraction."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")
