"""What a profile may make of its pods: the finished pod is looked at, whoever wrote which part of it. Pure.

Whoever may create an iteration has the operator create pods, and need not have that right himself. So what they may be
is the operator's decision (`podTemplates`), and not the template's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from viper.methods.stages import stage_graph
from viper.spec import Profile, StageResources
from viper.spec.pods import PodTemplate
from viper.words import plural
from viper_operator.job_specs import CONTAINER, JobRequest, stage_job
from viper_operator.pod_security import CONTAINERS, MalformedError, overlong, secrets, tokens, violations
from viper_operator.settings import FORBIDDEN, RESTRICTED, Settings

#: Labels and annotations of the operator, of Kubernetes' controllers and of queues: by them pods are found, counted and
#: kept apart.
RESERVED = (
    "viper.dev/",
    "app.kubernetes.io/",
    "batch.kubernetes.io/",
    "kueue.x-k8s.io/",
    "ray.io/",
    "job-name",
    "controller-uid",
)
#: Whose pod it is, and with what rights.
ACCOUNT = ("serviceAccountName", "serviceAccount", "automountServiceAccountToken")
#: Secrets in which Helm keeps what it installed, credentials included.
HELM = "sh.helm.release.v1."
#: Lists whose items are merged by name, and so have to have one.
NAMED = (*CONTAINERS, "volumes")
#: How many problems are listed.
LISTED = 5


def checked_job(request: JobRequest, settings: Settings) -> tuple[dict[str, Any], str]:
    """The Job of a stage as the API server gets it, and why its pods may not be made, with field paths and what to do;
    the latter is empty when they may, and else there may be no Job. Raises `SpecError`.

    Before the first Job of an iteration all its stages are looked at, so that nothing is made that could not go on.
    """
    profile = request.iteration.spec.profile
    made, found = _checked(request, profile.of(request.stage.name), settings)
    stage = request.stage
    if request.freezing and _changes(profile):
        later = [node.stage for node in stage_graph(request.iteration.spec.recipe)]
        while not found and later:
            stage = later.pop(0)
            found = _checked(replace(request, stage=stage), profile.of(stage.name), settings)[1]
    more = f" (and {len(found) - LISTED} more)" if len(found) > LISTED else ""
    return made, f"{stage.name}: {'; '.join(found[:LISTED])}{more}" if found else ""


def refusal(request: JobRequest, settings: Settings) -> str:
    """Why the pods of a Job may not be made; see `checked_job`."""
    return checked_job(request, settings)[1]


def _changes(profile: Profile) -> bool:
    return any(r.pod_template is not None or r.env for r in (profile.defaults, *profile.stages.values()))


def _checked(request: JobRequest, resources: StageResources, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """The Job of a stage and what is wrong with it."""
    template = resources.pod_template
    if template is not None and (template.metadata or template.spec):
        if settings.pod_templates == FORBIDDEN:
            return {}, ["podTemplate: this operator takes none (podTemplates: forbidden); remove it from the profile"]
        if found := [*_malformed(template), *_ours(template)]:
            return {}, found
    try:
        job = stage_job(request, settings)
        return job, [problem for pod in _pods(job) for problem in _pod(pod, settings)]
    except MalformedError as error:
        return {}, [f"podTemplate: {error}, as in core/v1"]
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if template is None:
            raise
        return {}, [f"podTemplate is no part of a core/v1 PodTemplateSpec ({type(error).__name__}: {error})"]


def _malformed(template: PodTemplate) -> Iterator[str]:
    """What could not be merged."""
    spec = template.spec or {}
    for name in NAMED:
        items = spec.get(name, [])
        if not isinstance(items, list):
            yield f"podTemplate.spec.{name} must be a list, as in core/v1"
            continue
        for i, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                yield f"podTemplate.spec.{name}[{i}] must be a map with a name"
        yield from _twice(items, f"podTemplate.spec.{name}")
    for name in sorted({*_names_of(spec.get("containers"))} & {*_names_of(spec.get("initContainers"))}):
        yield f"podTemplate.spec.initContainers[{name}] is called as one of containers; give it another name"
    for name in ("labels", "annotations"):
        held = (template.metadata or {}).get(name)
        if held is not None and not (isinstance(held, dict) and all(isinstance(v, str) for v in held.values())):
            yield f"podTemplate.metadata.{name} must be a map of strings"
    for path in _directives({"metadata": template.metadata, "spec": template.spec}, "podTemplate"):
        yield f"{path} is no part of a pod; null removes a field, and items are merged by name"


def _names_of(items: Any) -> list[str]:
    held = items if isinstance(items, list) else []
    return [i["name"] for i in held if isinstance(i, dict) and isinstance(i.get("name"), str)]


def _twice(items: list[Any], at: str) -> Iterator[str]:
    """Names that two items of a list have: an API server takes none of them."""
    for name, number in Counter(_names_of(items)).items():
        if number > 1:
            yield f"{at} has {plural(number, 'item')} called {name}; give each a name of its own"


def _directives(value: Any, at: str) -> Iterator[str]:
    """Paths of what strategic merge patches are told (`$patch`, `$retainKeys`, …)."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _directives(item, f"{at}[{i}]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if str(key).startswith("$"):
                yield f"{at}.{key}"
            else:
                yield from _directives(inner, f"{at}.{key}")


def _ours(template: PodTemplate) -> Iterator[str]:
    """What no template decides, whatever else it may."""
    metadata, spec = template.metadata or {}, template.spec or {}
    for name in metadata:
        if name not in ("labels", "annotations"):
            yield f"podTemplate.metadata.{name} is not the template's; remove it: labels and annotations are"
    for kind in ("labels", "annotations"):
        for key in metadata.get(kind) or {}:
            if key.startswith(RESERVED):
                yield f"podTemplate.metadata.{kind}[{key}] is the operator's; remove it"
    for name in ACCOUNT:
        if name in spec and not (name == "automountServiceAccountToken" and spec[name] is False):
            yield f"podTemplate.spec.{name} is not the template's: stages have no access to the API; remove it"


def _pods(job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The pod templates of a Job or a RayJob."""
    spec = job["spec"]
    if job["kind"] == "Job":
        yield spec["template"]
    else:
        cluster = spec["rayClusterSpec"]
        yield cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield group["template"]


def _pod(pod: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    spec = pod["spec"]
    if CONTAINER not in [c.get("name") for c in spec.get("containers") or ()]:
        yield f"podTemplate.spec.containers removes the stage's own ({CONTAINER}); keep it"
    for path, name in secrets(spec):
        if name.startswith(HELM) or name in settings.protected_secrets:
            yield f"podTemplate: {path} names Secret {name}, which no stage gets; remove it"
    for problem in overlong(pod):
        yield f"env or podTemplate: {problem}: no program could be started; shorten it"
    if settings.pod_templates != RESTRICTED:
        return
    fix = "remove it from the profile's podTemplate, or have the operator set to podTemplates: unrestricted"
    for path in tokens(pod):
        yield f"podTemplate: {path} must not be set: stages have no access to the API; {fix}"
    for problem in violations(pod):
        yield f"podTemplate: {problem} (restricted Pod Security); {fix}"
