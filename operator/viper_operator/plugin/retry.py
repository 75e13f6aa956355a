"""`kubectl viper retry NAME`: a failed or held iteration is tried again (annotation `viper.dev/retry`)."""

from __future__ import annotations

import argparse
import sys

from viper.spec.status import IterationStatus, read_status
from viper_operator.names import RETRY
from viper_operator.plugin.api import ITERATIONS, Cluster, Object, connect
from viper_operator.plugin.errors import ClusterError, ConflictError
from viper_operator.plugin.find import iteration, named
from viper_operator.plugin.options import connection
from viper_operator.views import whole


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `retry`."""
    parser = subparsers.add_parser(
        "retry",
        help="try a failed or held iteration again",
        description="Asks the operator to go on with an iteration that has failed or is held: what is done stays done, "
        "the stage that failed gets new Jobs.",
    )
    parser.add_argument("name", type=named, metavar="NAME", help="an iteration, or a loop for its current one")
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Annotates it and says so."""
    cluster = connect(args)
    body = iteration(cluster, args.name)
    print(ask(cluster, body))
    if note := advice(body):
        print(note, file=sys.stderr)
    return 0


def ask(cluster: Cluster, body: Object) -> str:
    """Writes the annotation, if the iteration is still as it was seen; returns what to tell."""
    name, number = body["metadata"]["name"], wanted(body)
    patch = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"], "annotations": {RETRY: str(number)}}}
    try:
        cluster.patch(ITERATIONS, name, patch)
    except ConflictError:
        body = cluster.get(ITERATIONS, name)
        if wanted(body) != number:  # somebody else's retry has begun and ended since
            raise
        patch["metadata"]["resourceVersion"] = body["metadata"]["resourceVersion"]
        cluster.patch(ITERATIONS, name, patch)
    return f"ViperIteration {name}: retry {number} asked for; `kubectl viper status {name} --watch` shows it"


def wanted(body: Object) -> int:
    """The number of the next retry; raises `ClusterError` where there is nothing to try again."""
    status = read_status(IterationStatus, body.get("status"))
    name = body["metadata"]["name"]
    asked = whole(body["metadata"].get("annotations", {}).get(RETRY))
    if asked > status.retries:
        raise ClusterError(
            f"retry {asked} of {name} has been asked for already; the operator has not begun it",
            where=f"annotation {RETRY}",
            fix="if it does not within a minute, look whether the operator runs (`kubectl viper version`)",
        )
    if status.outcome not in ("Failed", "Held"):
        fix = {
            "Suspended": f"`kubectl viper resume {name}` goes on with it",
            "Promoted": "a finished iteration is never run again; apply one with another name",
            "Registered": f"`kubectl viper promote {name}` moves the alias to its version",
        }.get(
            status.outcome or "", "failed attempts are repeated by themselves, as often as the profile's `retries` says"
        )
        raise ClusterError(
            f"{name} is neither failed nor held ({status.outcome or 'not begun'})", where="status.outcome", fix=fix
        )
    return status.retries + 1


def advice(body: Object) -> str:
    """What a retry alone will not change; empty when there is nothing to say."""
    status = read_status(IterationStatus, body.get("status"))
    name = body["metadata"]["name"]
    if status.outcome != "Held":
        return ""
    if any(c.reason == "PromotionHeld" for c in status.conditions):
        return (
            f"note: its promotion is held, which a retry decides the same; `kubectl viper promote {name}` overrules it"
        )
    return (
        "note: a stage that is held has its manifest and is not done again as long as that is there "
        "(docs/failure-modes.md, TooFewSamples)"
    )
