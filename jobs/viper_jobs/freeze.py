"""`viper-freeze --store URI --tracking URI`: resolves the iteration in the environment and writes its iteration.json.

It comes before the first stage where nothing that starts the stages has MLflow. Doing it again changes nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import viper
from viper.errors import SpecError
from viper.iteration.freeze import Frozen, freeze
from viper.registry import Registry
from viper.spec import ViperIteration, parse_stored
from viper.spec.packed import pieces_of, unpack
from viper.stage.frozen import ResolvedModel
from viper.stage.progress import LINE_SECONDS, Progress
from viper.stage.telling import Spoken, Teller, beating, spoken
from viper.store import DirectoryStore, ObjectStore, child_uri, open_store
from viper.stored import MIN_VERSION, check_form, read_object
from viper.terminal import columns
from viper_jobs.main import exit_status

#: The whole ViperIteration as JSON, its profile written out, packed into `VIPER_ITERATION_0`, … (`viper.spec.packed`).
VARIABLE = "VIPER_ITERATION"


#: Kubernetes sets it in every pod.
IN_A_POD = "KUBERNETES_SERVICE_HOST"
#: What is mounted in this process's file system, by proc(5).
_MOUNTS = Path("/proc/self/mountinfo")
#: Volumes that the operator gives a pod for itself alone.
_OWN = tuple(map(Path, ("/", "/tmp", "/work", "/dev/shm")))  # noqa: S108


def main(
    argv: Sequence[str] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    registry: Callable[[str], Registry] = Registry,
) -> int:
    """Freezes the iteration; returns the exit status: 0, or the `exit_code` of the `ViperError`, or 1."""
    parser = argparse.ArgumentParser(
        prog="viper-freeze", description=f"Resolves the ViperIteration in {VARIABLE} and writes its iteration.json."
    )
    parser.add_argument("--store", required=True, metavar="URI", help="the store of all iterations")
    parser.add_argument("--tracking", required=True, metavar="URI", help="MLflow's tracking URI")
    parser.add_argument("--termination-log", type=Path, metavar="FILE", help="receives the last error as JSON")
    arguments = parser.parse_args(argv)

    def work() -> None:
        tell = Teller()
        progress = Progress(tell=tell)
        with spoken(Spoken(tell, progress)), beating(progress.pulse, LINE_SECONDS / 3):
            iteration = _iteration(environment)
            store = open_store(arguments.store)
            if IN_A_POD in environment:
                _check_shared(store, arguments.tracking)
            tell(f"freeze of {iteration.metadata.name} begins (viper {viper.__version__}, {store.uri})")
            with progress.waits("resolving models, prompts, questions and supplied files"):
                found = freeze(iteration, store, registry(arguments.tracking), files_here=False)
            print(_described(found, child_uri(store.uri, found.iteration.prefix)), flush=True)
            for warning in iteration.spec.warnings():
                tell(f"warning: {warning}")
            tell(f"freeze of {iteration.metadata.name} is done")

    return exit_status(work, arguments.termination_log)


def _check_shared(store: ObjectStore, tracking: str) -> None:
    """Raises `SpecError` for a store or a database that only this pod has: the operator and the stages are others."""
    if isinstance(store, DirectoryStore) and _is_own(store.root):
        raise SpecError(
            f"{store.uri} is a directory of this pod, which no other pod sees",
            where="store.uri of the chart",
            fix="set it to s3://bucket/prefix, or leave it empty for the bundled MinIO",
        )
    database = Registry(tracking).connection.database
    if database is not None and _is_own(database):
        raise SpecError(
            f"{tracking} is a database of this pod, which no other pod sees",
            where="the tracking URI of the chart",
            fix="set it to http://host:port, or leave it empty for the bundled MLflow",
        )


def _is_own(path: Path) -> bool:
    """Whether a path lies in the image or in a volume of the pod's own, and in no volume that is mounted into it."""
    mounts = {Path("/"), *_mount_points(_MOUNTS.read_text("utf-8") if _MOUNTS.exists() else "")}
    return next(p for p in (path, *path.parents) if p in mounts) in _OWN


def _mount_points(mountinfo: str) -> Iterator[Path]:
    r"""Fifth field of each line of proc(5)'s mountinfo, its `\040` and the like read.

    `Path.is_mount` compares devices: a folder of the node that is mounted beside an emptyDir of the same disk is none.
    """
    for line in mountinfo.splitlines():
        yield Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]))


def _iteration(environment: Mapping[str, str]) -> ViperIteration:
    """The iteration with its profile; raises `SpecError`, `NewerFormError` when it is for a later release.

    An operator writes out every field there is, and which release can carry out those that are set: what this one does
    not know has its default then.
    """
    pieces = pieces_of(VARIABLE, environment)
    if not pieces:
        raise SpecError("is not set", where=f"{VARIABLE}_0", fix="the operator of the same release sets it")
    text = unpack(pieces, VARIABLE).encode(errors="surrogateescape")
    data = read_object(text, what="a ViperIteration", where=VARIABLE, error=SpecError, fix="")
    check_form(data, what="an iteration", where=VARIABLE, error=SpecError, fix="")
    if data.get("kind") != "ViperIteration":
        raise SpecError("is not a ViperIteration", where=VARIABLE)
    iteration = parse_stored(data, lenient=MIN_VERSION in data)
    assert isinstance(iteration, ViperIteration)  # noqa: S101 (its kind was read above)
    if iteration.spec.profile_ref is not None:
        raise SpecError(
            f"spec.profileRef still names the profile {iteration.spec.profile_ref!r}",
            where=VARIABLE,
            fix="write the profile itself into spec.profile",
        )
    return iteration


def _described(found: Frozen, uri: str) -> str:
    frozen = found.iteration
    roles = {role: getattr(frozen, role) for role in ("generator", "base", "critic", "judge")}
    alias = frozen.iteration.spec.promotion.alias
    compared = "no version" if frozen.alias_version is None else f"version {frozen.alias_version}"
    about = (
        *((role, _model(model)) for role, model in roles.items()),
        ("alias", f"{alias} is {compared}"),
        ("run", f"{frozen.tracking.parent_run} in {frozen.tracking.uri}"),
    )
    lines = [
        f"{frozen.name} {'was frozen before' if found.resumed else 'is frozen'}: {uri}/iteration.json",
        *map(str, columns(about, indent=2)),
    ]
    if found.changed:
        lines.append(f"  libraries that changed since: {', '.join(found.changed)}")
    return "\n".join(lines)


def _model(model: ResolvedModel) -> str:
    name = "" if model.version is None else f"{model.model} version {model.version}, "
    return f"{name}{model.uri} ({model.digest})"


if __name__ == "__main__":
    sys.exit(main())
