"""What KubeRay says of a RayJob, as a Job would say it. Pure."""

from __future__ import annotations

import re
from typing import Any

#: How a RayJob is said to be at its end (ray.io/v1 `jobDeploymentStatus`), after which nothing happens to it any more.
_ENDS = ("Complete", "Failed", "ValidationFailed")
_EXIT = re.compile(r"exit code (\d{1,9})\b")
#: Lines of the program's log that say why it failed.
_LAST_LINES = 8


def as_job(body: dict[str, Any]) -> dict[str, Any]:
    """A RayJob in the form of a batch/v1 Job: one shard, and a pod for each node while it works.

    `jobStatus` is Ray's word on the program, `jobDeploymentStatus` KubeRay's on all around it. That a program ended
    well counts only where both say so.
    """
    spec, status = body.get("spec", {}), body.get("status", {})
    said, ray = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    nodes = 1 + sum(group.get("replicas", 0) for group in spec.get("rayClusterSpec", {}).get("workerGroupSpecs", ()))
    found: dict[str, Any] = {"startTime": status.get("startTime")}
    if said in _ENDS:
        well = said == "Complete" and ray == "SUCCEEDED"
        condition = {
            "type": "Complete" if well else "Failed",
            "status": "True",
            "reason": status.get("reason") or ray or said,
            "message": _why(status.get("message", "")),
            "lastTransitionTime": status.get("endTime"),
        }
        found["conditions"] = [condition]
        found["failed"], found["succeeded"] = int(not well), int(well)
        if not well and (code := _EXIT.search(status.get("message", ""))):
            found["exitCode"] = int(code[1])
    elif status.get("rayClusterName") and said in ("Initializing", "Running"):
        found["active"] = nodes
        found["ready"] = nodes if ray == "RUNNING" else 0
    return {**body, "kind": "RayJob", "spec": {**spec, "completions": nodes}, "status": found}


def _why(message: str) -> str:
    """The last lines of what KubeRay repeats of the program's log, which is long."""
    return "\n".join(message.strip().splitlines()[-_LAST_LINES:])
