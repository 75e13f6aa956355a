"""`kubectl viper suspend` and `kubectl viper resume`: `spec.suspend` of an iteration or a loop."""

from __future__ import annotations

import argparse
from contextlib import suppress

from viper_operator.names import LOOP
from viper_operator.plugin.api import LOOPS, Cluster, Object, Resource, connect
from viper_operator.plugin.errors import ClusterError, MissingObjectError
from viper_operator.plugin.find import find, named
from viper_operator.plugin.options import connection
from viper_operator.views import FINISHED

_WHAT = {
    "suspend": (
        "stop the running stages of an iteration or a loop and keep their work",
        "Sets spec.suspend: pods of running stages are stopped, what they have done stays. A loop suspends its current "
        "iteration and starts no further one.",
    ),
    "resume": ("go on with a suspended iteration or loop", "Unsets spec.suspend: stages go on where they stopped."),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `suspend` and `resume`."""
    for name, (text, description) in _WHAT.items():
        parser = subparsers.add_parser(name, help=text, description=description)
        parser.add_argument("name", type=named, metavar="NAME", help="NAME, iteration/NAME or loop/NAME")
        connection(parser)


def run(args: argparse.Namespace) -> int:
    """Patches it and says so."""
    cluster = connect(args)
    resource, body = find(cluster, args.name)
    print(change(cluster, resource, body, suspend=args.command == "suspend"))
    return 0


def change(cluster: Cluster, resource: Resource, body: Object, *, suspend: bool) -> str:
    """Sets `spec.suspend`; returns what to tell. Raises `ClusterError` where it would have no effect."""
    name = body["metadata"]["name"]
    what = f"{resource.kind} {name}"
    if not suspend and resource is not LOOPS:
        _check_loop(cluster, body)
    outcome = body.get("status", {}).get("outcome", "")
    if suspend and resource is not LOOPS and outcome in FINISHED:
        raise ClusterError(f"{what} has ended ({outcome}): there is nothing to suspend", where="status.outcome")
    if bool(body["spec"].get("suspend")) == suspend:
        return f"{what} {'is suspended' if suspend else 'is not suspended'}: nothing to do"
    cluster.patch(resource, name, {"spec": {"suspend": suspend}})
    return f"{what} " + ("suspended; running stages stop, their work stays" if suspend else "resumed")


def _check_loop(cluster: Cluster, body: Object) -> None:
    """Raises `ClusterError` when the iteration's loop is suspended: it would suspend it again."""
    name = body["metadata"].get("labels", {}).get(LOOP)
    with suppress(MissingObjectError):
        if name and cluster.get(LOOPS, name)["spec"].get("suspend"):
            raise ClusterError(
                f"the loop {name} that {body['metadata']['name']} belongs to is suspended",
                where=f"namespace {cluster.namespace}",
                fix=f"`kubectl viper resume loop/{name}`",
            )
