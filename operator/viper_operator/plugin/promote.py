"""`kubectl viper promote` and `rollback`: a short Job in the operator's namespace moves the registry alias.

Where this command runs MLflow can rarely be reached (the chart's network policies let in nobody else), and its
client is not installed. So the move happens where the stages record theirs: in a pod of the stage image, with the
operator's tracking URI and, by reference, its credentials. Whoever may create Jobs in the namespace may promote.
"""

from __future__ import annotations

import argparse
import sys
import uuid

from viper.cli.options import version, whole
from viper.cli.person import person
from viper.digests import digest_of
from viper.spec.status import IterationStatus, read_status
from viper_operator.plugin.api import ITERATIONS, Object, connect
from viper_operator.plugin.errors import ClusterError
from viper_operator.plugin.find import iteration, named
from viper_operator.plugin.installation import find_installation
from viper_operator.plugin.jobs import Wish, registry_job, start, wait
from viper_operator.plugin.options import connection, written

_WHAT = {
    "promote": (
        "move the registry alias to the version that an iteration made",
        "Moves the alias to the version that the iteration made: for policy Manual, and to overrule a held promotion. "
        "A loop that waited for it goes on.",
    ),
    "rollback": (
        "move the registry alias back to an earlier version",
        "Moves the alias of a registered model back, by default to the version that the present one was made from.",
    ),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `promote` and `rollback`."""
    for name, (text, description) in _WHAT.items():
        parser = subparsers.add_parser(
            name,
            help=text,
            description=f"{description} The move is recorded on the version, and made only if nobody else moves the "
            "alias meanwhile. A Job in the operator's namespace does it: MLflow can be reached from there.",
        )
        if name == "promote":
            parser.add_argument("name", type=named, metavar="NAME", help="an iteration, or a loop for its current one")
        else:
            parser.add_argument("model", metavar="MODEL", help="registered model (spec.model)")
            parser.add_argument("--to", type=version, metavar="VERSION", help="the version to go back to")
            parser.add_argument(
                "--alias", default="generator", metavar="ALIAS", help="which alias (default: generator)"
            )
        parser.add_argument("--reason", default="", metavar="TEXT", help="recorded with the move")
        parser.add_argument(
            "--timeout",
            type=whole(0, 86_400, "number of seconds"),
            default=300,
            metavar="SECONDS",
            help="how long to wait (default: 300)",
        )
        parser.add_argument("--dry-run", action="store_true", help="print the Job and create nothing")
        connection(parser)


def run(args: argparse.Namespace) -> int:
    """Creates the Job, waits for it, prints what it says."""
    cluster = connect(args)
    wish = promotion(iteration(cluster, args.name)) if args.command == "promote" else _rollback(args)
    operator = find_installation(cluster)
    name = job_name(wish)
    by = cluster.user() or person()
    body = registry_job(name, wish, operator, by=by, reason=args.reason, request=uuid.uuid4().hex)
    if args.dry_run:
        print(written(body, "yaml"), end="")
        return 0
    job = start(cluster, body, _tell)
    print(wait(cluster, job, args.timeout, _tell))
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def promotion(body: Object) -> Wish:
    """To move the alias to what an iteration made; raises `ClusterError` when it has made nothing yet."""
    status = read_status(IterationStatus, body.get("status"))
    name, spec = body["metadata"]["name"], body["spec"]
    if status.version is None:
        raise ClusterError(
            f"{name} has not registered a version ({status.outcome or 'not begun'})",
            where=f"{ITERATIONS.plural}/{name} status.version",
            fix=f"`kubectl viper status {name}` says how far it is",
        )
    return Wish("promote", spec["model"], spec.get("promotion", {}).get("alias", "generator"), status.version)


def _rollback(args: argparse.Namespace) -> Wish:
    return Wish("rollback", args.model, args.alias, args.to)


def job_name(wish: Wish) -> str:
    """The same wish has the same name, so that asking twice at a time is one Job."""
    digest = digest_of([wish.command, wish.model, wish.alias, wish.version]).rpartition(":")[2]
    return f"viper-{wish.command}-{digest[:10]}"
