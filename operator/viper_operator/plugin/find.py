"""From a name to its object: `NAME`, `iteration/NAME` or `loop/NAME`."""

from __future__ import annotations

import argparse
from contextlib import suppress

from viper.spec.documents import shown
from viper.spec.forms import OBJECT_NAME
from viper_operator.plugin.api import ITERATIONS, LOOPS, Cluster, Object, Resource
from viper_operator.plugin.errors import ClusterError, MissingObjectError

#: Of any object, in characters.
LONGEST_NAME = 253
#: What may stand before the slash.
PREFIXES = {
    **dict.fromkeys(
        ("iteration", "iterations", "viperiteration", "viperiterations", "vi", "viter", "viper"), ITERATIONS
    ),
    **dict.fromkeys(("loop", "loops", "viperloop", "viperloops", "vl", "vloop"), LOOPS),
}


def split(name: str) -> tuple[tuple[Resource, ...], str]:
    """The kinds that a name may be of, and the name without its prefix; raises `ClusterError`."""
    kind, slash, rest = name.rpartition("/")
    short = kind.lower().removesuffix(".viper.dev")
    if slash and (short not in PREFIXES or not rest):
        raise ClusterError(f"{shown(name, 80)!r} names nothing", where="NAME", fix=_FORMS)
    if len(rest) > LONGEST_NAME or not OBJECT_NAME.fits(rest):
        says = f"it {OBJECT_NAME.says}, and have at most {LONGEST_NAME} characters"
        raise ClusterError(f"{shown(rest, 80)!r} is no name: {says}", where="NAME", fix=_FORMS)
    return ((PREFIXES[short],) if slash else (ITERATIONS, LOOPS)), rest


_FORMS = "write NAME, iteration/NAME or loop/NAME"


def named(text: str) -> str:
    """The type of the argument NAME: what can be no name is refused before a cluster is asked. Empty: none given."""
    if text:
        try:
            split(text)
        except ClusterError as error:
            raise argparse.ArgumentTypeError(f"{error.what}; {error.fix}") from None
    return text


def find(cluster: Cluster, name: str) -> tuple[Resource, Object]:
    """The one iteration or loop of this name; raises `MissingObjectError`, `ClusterError` when there are both."""
    kinds, bare = split(name)
    found = []
    for kind in kinds:
        with suppress(MissingObjectError):
            found.append((kind, cluster.get(kind, bare)))
    if len(found) == 1:
        return found[0]
    if found:
        raise ClusterError(
            "there is an iteration and a loop of this name", where=bare, fix=f"write iteration/{bare} or loop/{bare}"
        )
    wanted = kinds[0].kind if len(kinds) == 1 else "iteration or loop"
    raise MissingObjectError(
        f"there is no {wanted} {bare}",
        where=f"namespace {cluster.namespace}",
        fix="`kubectl viper status` lists all; -n chooses the namespace",
    )


def iteration(cluster: Cluster, name: str) -> Object:
    """An iteration; the current one when `name` is a loop's. Raises `MissingObjectError`, `ClusterError`."""
    resource, body = find(cluster, name)
    if resource is ITERATIONS:
        return body
    current = body.get("status", {}).get("current")
    if not current:
        raise ClusterError(
            "the loop has no iteration yet", where=f"loop/{body['metadata']['name']}", fix="`kubectl viper status`"
        )
    return cluster.get(ITERATIONS, current)
