"""`kubectl viper render FILE`: a dry run, the exact Jobs that the operator would create."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from viper.cli.options import whole
from viper.cli.render import iterations
from viper.errors import SpecError
from viper.iteration.known import check_names
from viper.methods.stages import FREEZE, FREEZING, THETA0, stage_graph
from viper.spec import Profile, Resource, ViperIteration, ViperLoop, ViperProfile, parse_resource, parse_stored
from viper.spec.documents import read_documents
from viper.spec.pod_fields import check_pod_fields
from viper.words import plural
from viper_operator.job_specs import JobRequest, stage_job, stage_service
from viper_operator.plugin.options import connection, written
from viper_operator.pod_templates import refusal
from viper_operator.settings import UNRESTRICTED, Settings

#: What the chart installs by default in release `viper`, namespace `viper`.
NAMESPACE, STORE, TRACKING, SECRET = (
    "viper",
    "s3://viper?endpoint=http://viper-minio:9000",
    "http://viper-mlflow:5000",
    "viper-store",
)
IMAGE = "viper.local/cpu"
#: The API server gives every iteration one.
UID = "00000000-0000-0000-0000-000000000000"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `render`."""
    parser = subparsers.add_parser(
        "render",
        help="show the Jobs that the operator would create",
        description="Validates the resources in FILE and prints, as YAML, every Job that the operator would create for "
        "them, in order. The operator's settings are those of the chart's defaults, or of the cluster with --live; "
        "nothing is created.",
        epilog="a spec.profileRef is looked for in FILE, then in --profile, then in the cluster",
    )
    parser.add_argument("file", metavar="FILE", help="YAML or JSON, also of several resources; - for standard input")
    parser.add_argument(
        "--profile", action="append", default=[], metavar="FILE", help="file with ViperProfiles; repeatable"
    )
    parser.add_argument("--live", action="store_true", help="with the settings of the operator in the namespace")
    parser.add_argument(
        "--stage", action="append", default=[], metavar="STAGE", help="only the Job of this stage; repeatable"
    )
    parser.add_argument(
        "--iteration",
        type=whole(1, 10**6, "iteration"),
        metavar="N",
        help="of a loop, only this one, from 1 (default: the first)",
    )
    parser.add_argument(
        "--kuberay", action="store_true", help="as on a cluster with KubeRay: RayJobs for several nodes"
    )
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Prints YAML documents."""
    documents = load(args.file)
    profiles: dict[str, Profile] = {}
    for file in args.profile:
        found = {p.metadata.name: p.spec for p in load(file) if isinstance(p, ViperProfile)}
        if not found:
            raise SpecError("holds no ViperProfile", where=file, fix="--profile names files with ViperProfiles")
        profiles |= found
    profiles |= {p.metadata.name: p.spec for p in documents if isinstance(p, ViperProfile)}
    settings = _live(args) if args.live else assumed(args.namespace)
    settings = replace(settings, ray_jobs=args.kuberay)
    wanted = [one for resource in documents for one in _wanted(resource, args.iteration)]
    if not wanted:
        raise SpecError("holds no ViperIteration and no ViperLoop", where=_where(args.file), fix="render one that does")
    for one in wanted:
        resolved = _resolved(one, profiles, args)
        check_names(resolved.spec)
        for text in rendered(resolved, settings, args.stage):
            print(text, end="")
    return 0


def assumed(namespace: str | None) -> Settings:
    """The chart's defaults."""
    from viper import __version__

    image = f"{IMAGE}:{__version__}"
    return Settings(namespace or NAMESPACE, STORE, TRACKING, image, credentials_secret=SECRET)


def load(file: str) -> list[Resource]:
    """The resources of a file with one or more YAML documents; raises `SpecError`."""
    documents = read_documents(file, stdin=True)
    several, found = len(documents) > 1, []
    for i, document in enumerate(documents, 1):
        where = f"{_where(file)} document {i}" if several else _where(file)
        found.append(parse_resource(document, where=where))
        check_pod_fields(found[-1], where)
    return found


def _where(file: str) -> str:
    return "standard input" if file == "-" else file


def rendered(one: ViperIteration, settings: Settings, only: list[str] | None = None) -> Iterator[str]:
    """The Jobs of an iteration as YAML documents, each with what it waits for as a comment. Raises `SpecError`."""
    nodes = {n.name: n for n in (FREEZING, *stage_graph(one.spec.recipe))}
    if unknown := sorted(set(only or ()) - set(nodes)):
        raise SpecError(
            f"{one.metadata.name} has no stage {', '.join(unknown)}",
            where="--stage",
            fix=f"its stages: {', '.join(n for n in nodes if n != FREEZE)}",
        )
    for name, node in nodes.items():
        if only and name not in only:
            continue
        request = JobRequest(one, UID, node.stage)
        if refused := refusal(request, replace(settings, pod_templates=UNRESTRICTED)):
            raise SpecError(refused, where=one.metadata.name)
        if (refused := refusal(request, settings)).startswith(f"{name}: "):
            yield f"# Refused unless the operator's podTemplates are unrestricted: {' '.join(refused.split())}\n"
        if (service := stage_service(request, settings)) is not None:
            yield f"---\n# {one.metadata.name} {name}: before its Job\n{_shown(service)}"
        job = stage_job(request, settings)
        if name == FREEZE:
            note = "at once"
        else:
            policy = {None: "no policy", THETA0: "policy: θ0"}.get(node.model, f"policy: from {node.model}")
            note = f"after {', '.join(node.needs or (FREEZE,))}; {policy}"
        yield f"---\n# {one.metadata.name} {name}: {note}\n{_shown(job)}"


def _shown(body: dict[str, Any]) -> str:
    """As YAML, without the owner's uid: the API server decides it, and the operator fills it in."""
    del body["metadata"]["ownerReferences"][0]["uid"]
    return written(body, "yaml")


def _wanted(resource: Resource, number: int | None) -> Iterator[ViperIteration]:
    if isinstance(resource, ViperProfile):
        return
    if number is not None and not isinstance(resource, ViperLoop):
        raise SpecError(
            f"{resource.metadata.name} is an iteration, no loop", where="--iteration", fix="leave the option out"
        )
    if isinstance(resource, ViperLoop):
        wanted = number or 1
        if not 1 <= wanted <= resource.spec.iterations:
            raise SpecError(
                f"{resource.metadata.name} has {plural(resource.spec.iterations, 'iteration')}",
                where="--iteration",
                fix="name one of them",
            )
        yield resource.iteration(wanted)
    else:
        yield from iterations(resource)


def _resolved(one: ViperIteration, profiles: Mapping[str, Profile], args: argparse.Namespace) -> ViperIteration:
    """With its profile inline."""
    name = one.spec.profile_ref
    if name is None:
        return one
    profile = profiles[name] if name in profiles else _from_cluster(name, args)
    return one.model_copy(update={"spec": one.spec.with_profile(profile)})


def _from_cluster(name: str, args: argparse.Namespace) -> Profile:
    from viper_operator.plugin.api import PROFILES, connect
    from viper_operator.plugin.errors import ClusterError

    try:
        body: dict[str, Any] = connect(args).get(PROFILES, name)
    except ClusterError as error:
        raise SpecError(
            f"the profile {name} is neither in the given files nor in the cluster ({error.what})",
            where="spec.profileRef",
            fix="add --profile FILE, or choose the namespace with -n",
        ) from None
    profile = parse_stored(body)
    assert isinstance(profile, ViperProfile)  # noqa: S101 (the API server keeps no other kind there)
    check_pod_fields(profile, f"ViperProfile {name}")
    return profile.spec


def _live(args: argparse.Namespace) -> Settings:
    from viper_operator.plugin.api import connect
    from viper_operator.plugin.installation import find_installation

    return find_installation(connect(args)).settings
