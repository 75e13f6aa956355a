"""`kubectl viper version`."""

from __future__ import annotations

import argparse

from viper import __version__
from viper.terminal import columns
from viper_operator.plugin.options import connection, output, written


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `version`."""
    parser = subparsers.add_parser(
        "version",
        help="versions of this command, the operator and the cluster",
        description="Prints the versions of this command, of the namespace's operator (and whether it runs), and of "
        "the API server.",
    )
    parser.add_argument("--client", action="store_true", help="of this command only; contacts nothing")
    output(parser, "json", "yaml")
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Prints them."""
    found = {"client": __version__}
    if not args.client:
        found |= _server(args)
    if args.output:
        print(written(found, args.output), end="")
    else:
        print(*columns(found.items(), least={0: 10}), sep="\n")
    return 0


def _server(args: argparse.Namespace) -> dict[str, str]:
    from viper_operator.plugin.api import connect
    from viper_operator.plugin.errors import ClusterError, ForbiddenError
    from viper_operator.plugin.installation import find_installation

    cluster = connect(args)
    found = {"kubernetes": cluster.server_version(), "namespace": cluster.namespace}
    try:
        operator = find_installation(cluster)
    except ForbiddenError:
        return found | {"operator": "unknown (you may not list deployments here)"}
    except ClusterError:
        return found | {"operator": "none in this namespace"}
    running = f"{operator.ready} running" if operator.ready else "NOT RUNNING"
    return found | {"operator": f"{operator.version} ({operator.image}, {running})"}
