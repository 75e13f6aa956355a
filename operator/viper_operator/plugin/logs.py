"""`kubectl viper logs NAME [STAGE]`: the logs of a stage's pods; with `-f` of all stages and iterations to come."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from viper.cli.options import whole
from viper_operator.names import ITERATION, STAGE
from viper_operator.plugin.api import ITERATIONS, LOOPS, PODS, Cluster, Object, connect
from viper_operator.plugin.choose import begun, chosen, container, nothing, prefix, select, shard_of
from viper_operator.plugin.errors import ClusterError
from viper_operator.plugin.find import find, named
from viper_operator.plugin.find import iteration as find_iteration
from viper_operator.plugin.follow import Follower, Output
from viper_operator.plugin.options import connection
from viper_operator.plugin.problems import problem


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `logs`."""
    parser = subparsers.add_parser(
        "logs",
        help="print the log of a stage",
        description="Prints what the pods of a stage wrote, by default of the stage that the iteration is at; several "
        "shards with their number in front. With -f and without STAGE it goes on to the stages after it, and to the "
        "iterations of a loop after this one, until nothing more happens; it says what changes and what it waits for.",
    )
    parser.add_argument("name", type=named, metavar="NAME", help="an iteration, or a loop for its current one")
    parser.add_argument("stage", nargs="?", default="", metavar="STAGE", help="e.g. synthesize-captions")
    parser.add_argument("--shard", type=whole(0, 10**6, "shard"), metavar="I", help="only this one, from 0")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the stage, iteration or loop ends")
    parser.add_argument("-p", "--previous", action="store_true", help="of the attempt before the last")
    parser.add_argument("--tail", type=whole(0, 10**9, "number of lines"), metavar="N", help="only the last N lines")
    connection(parser)


def run(args: argparse.Namespace) -> int:
    """Prints them."""
    cluster = connect(args)
    show = Output(sys.stdout, sys.stderr)
    if args.follow and not args.previous:
        return follow(cluster, args, show)
    body = find_iteration(cluster, args.name)
    stage = chosen(body, args.stage)
    attempts = select(pods_of(cluster, body, stage), args.shard, previous=args.previous)
    if not attempts:
        raise nothing(body, stage, args.shard, previous=args.previous)
    if not any(begun(p) for p in attempts):
        raise _not_begun(stage, attempts)
    for pod in attempts:
        if begun(pod):
            lines = cluster.log(pod["metadata"]["name"], container=container(pod), tail=args.tail)
            show.lines(prefix(pod, attempts), lines)
        else:
            print(f"shard {shard_of(pod)}: {problem(pod) or 'has not started'}", file=sys.stderr)
    return 0


def follow(cluster: Cluster, args: argparse.Namespace, show: Output) -> int:
    """`-f`: a loop to its end; of a stage that is asked for, that of its current iteration."""
    kind, body = find(cluster, args.name)
    follower = Follower(cluster, args, show)
    if kind is LOOPS and not args.stage:
        follower.loop(body["metadata"]["name"])
        return 0
    one = body if kind is ITERATIONS else find_iteration(cluster, args.name)
    follower.iteration(one["metadata"]["name"])
    return 0


def pods_of(cluster: Cluster, body: Object, stage: str) -> list[Object]:
    """The pods of a stage, all attempts."""
    return cluster.items(PODS, labels=f"{ITERATION}={body['metadata']['name']},{STAGE}={stage}")


def _not_begun(stage: str, attempts: Sequence[Object]) -> ClusterError:
    trouble = next((t for p in attempts if (t := problem(p))), "its container is being created")
    return ClusterError(f"{stage} has written nothing yet: {trouble}", fix="-f waits for it")
