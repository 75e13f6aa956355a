"""Names, labels and annotations of what the operator makes. Every name follows from what it is for."""

from __future__ import annotations

import hashlib

GROUP, VERSION = "viper.dev", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

#: Who owns the fields in server-side apply.
MANAGER = "viper-operator"
#: Owns `spec.suspend` of Jobs alone, so that changing it leaves the rest of what was applied as it is.
SUSPEND_MANAGER = "viper-operator-suspend"

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
ITERATION = "viper.dev/iteration"
STAGE = "viper.dev/stage"
LOOP = "viper.dev/loop"
#: Which of a person's retries, and which of the operator's attempts in it, a Job is.
RETRY_LABEL = "viper.dev/retry"
ATTEMPT_LABEL = "viper.dev/attempt"
QUEUE = "kueue.x-k8s.io/queue-name"

MODEL = "viper.dev/model"
GPUS = "viper.dev/gpus"
#: Seconds that the stage was active before this Job, or before it was last suspended.
SECONDS_BEFORE = "viper.dev/seconds-before"
#: On the Job of a stage that makes a model, where its name does not say so to every release: `true`.
TRAINS = "viper.dev/trains"
#: How many pods of a Job work together as one Ray cluster.
NODES = "viper.dev/nodes"
#: `true` on pods that talk to each other as one Ray cluster.
RAY = "viper.dev/ray"
#: The Job, or what stands for one, that a pod belongs to.
JOB = "viper.dev/job"
#: A person's wish to try a failed or held iteration again: `"1"`, `"2"`, …
RETRY = "viper.dev/retry"

#: Jobs of stages, and their pods.
SELECTOR = f"{MANAGED_BY}={MANAGER},{COMPONENT}=stage"

#: Pods are called `<job>-<index>-<5 characters>`, which has to fit into 63.
JOB_NAME_LENGTH = 52


def job_name(iteration: str, stage: str, *, retry: int = 0, attempt: int = 1) -> str:
    """`<iteration>-<stage>`, `-r<k>` for a person's retry, `-a<n>` for the operator's own further attempts.

    Too long a name is cut and gets a digest of the whole, so that different names stay different.
    """
    name = f"{iteration}-{stage}" + (f"-r{retry}" if retry else "") + (f"-a{attempt}" if attempt > 1 else "")
    if len(name) <= JOB_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: JOB_NAME_LENGTH - 9].rstrip('-')}-{digest}"


def service_name(iteration: str) -> str:
    """The headless Service that gives names to the nodes of an iteration; it begins with a letter, as names must."""
    return f"nodes-{iteration}"


def job_labels(iteration: str, stage: str, retry: int, attempt: int) -> dict[str, str]:
    """Labels of a stage's Job."""
    return {
        **pod_labels(iteration, stage),
        RETRY_LABEL: str(retry),
        ATTEMPT_LABEL: str(attempt),
    }


def pod_labels(iteration: str, stage: str) -> dict[str, str]:
    """Labels of a stage's pods."""
    return {NAME: "viper", COMPONENT: "stage", MANAGED_BY: MANAGER, ITERATION: iteration, STAGE: stage}
