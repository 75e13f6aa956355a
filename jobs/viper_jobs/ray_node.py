"""`python -m viper_jobs.ray_node --nodes N --node I --head HOST -- COMMAND…`: the pods of a stage as one Ray cluster.

Node 0 starts Ray's head, waits until all nodes are there, runs COMMAND with RAY_ADDRESS set and ends with its exit
status. The others join and stay until they are stopped (on Kubernetes the Job is complete when node 0 is), or until
node 0 is gone. They meet at a port of node 0, beside Ray's own: so a node that is lost, or comes back as another pod,
ends the attempt within seconds, where collectives would wait for it for ever.

Exit statuses beside COMMAND's: 75 (EX_TEMPFAIL) when another node went, which is that one's failure, not this one's;
1 when the nodes did not come together, or one of them fell silent.
"""

from __future__ import annotations

import argparse
import hmac
import importlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from viper.retries import NODE, retrying
from viper.stage.termination import JOB_UID, OTHER_NODE_WENT, leave, leave_message
from viper_jobs.meeting import Caller, Meeting, serving

#: Ray's port and that of the meeting on node 0.
RAY_PORT, MEETING_PORT = 6379, 6378
#: Logical CPUs of a node, at least: verl's actors reserve more than they use, and wait for ever where there are fewer.
LEAST_CPUS = 16
#: Seconds between two looks, and for Ray's processes to end after SIGTERM.
PAUSE, GRACE = 1.0, 10.0


class LostError(Exception):
    """Why this node cannot go on. `code`: its exit status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = _parser().parse_args(argv)
    if args.wait_for:
        return _wait_for_ray(args.head, args.wait_for)
    signal.signal(signal.SIGTERM, leave)
    try:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret(args.head)}
        return _lead(args) if args.node == 0 else _follow(args)
    except LostError as error:
        print(f"error: {error}", file=sys.stderr)
        leave_message(args.termination_log, error.reason, str(error))
        return error.code


def secret(head: str) -> str:
    """What the nodes know and others do not, for Ray and for the meeting: whoever has it may run code on the nodes.

    It is made from the store's credentials and the Job's uid (JOB_UID), which all pods of a stage have. Both are
    optional, as credentials may come from elsewhere than the environment; raises `LostError` where there is neither.
    """
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    key, uid = os.environ.get("AWS_SECRET_ACCESS_KEY", ""), os.environ.get(JOB_UID, "")
    if not key and not uid:
        message = f"there is nothing to make Ray's token from; set RAY_AUTH_TOKEN, {JOB_UID} or AWS_SECRET_ACCESS_KEY"
        raise LostError(1, "NoToken", message)
    return hmac.digest(key.encode(), f"ray of {head} {uid}".encode(), "sha256").hex()


# ---- node 0 ----------------------------------------------------------------------------------------------------------


def _lead(args: argparse.Namespace) -> int:
    address = _address(args)
    meeting = Meeting(args.nodes, silence=args.silence)
    environment = {**os.environ, "RAY_ADDRESS": f"{address}:{args.port}"}
    with _child(_ray(args, address, "--head", f"--port={args.port}", "--include-dashboard=false")) as ray:
        _until(lambda: _open(address, args.port), ray, args.join_seconds, "Ray's head did not start")
        with serving(meeting, address, args.meeting_port, environment["RAY_ADDRESS"], secret(args.head)):
            _until(meeting.complete, ray, args.join_seconds, lambda: _missing(meeting, args))
            there = [
                sys.executable,
                "-m",
                "viper_jobs.ray_node",
                "--wait-for",
                str(args.nodes),
                "--head",
                environment["RAY_ADDRESS"],
            ]
            with _child(there) as look:
                _until(lambda: look.poll() is not None, ray, args.join_seconds, "Ray does not see all nodes")
                if look.returncode:
                    raise LostError(1, "RayEnded", f"Ray cannot be asked for its nodes: status {look.returncode}")
            # It stores its newest checkpoint before it ends; Ray ends after it, within the same grace period.
            with _child(args.command, environment, max(GRACE, args.grace - GRACE)) as stage:
                while (code := stage.poll()) is None:
                    if gone := meeting.gone():
                        raise LostError(OTHER_NODE_WENT, "NodeLost", f"node {gone} of {args.nodes} has left")
                    if silent := meeting.silent():
                        message = f"node {silent} of {args.nodes} has said nothing for {args.silence:g} s"
                        raise LostError(1, "NodeLost", message)
                    if ray.poll() is not None:
                        raise LostError(1, "RayEnded", f"Ray's head ended with status {ray.returncode}")
                    time.sleep(PAUSE)
    return code if code >= 0 else 128 - code


def _address(args: argparse.Namespace) -> str:
    """Its own IP address, under the name by which the others look for it; a Service takes a moment to know it."""
    try:
        return retrying(replace(NODE, seconds=args.join_seconds), OSError)(socket.gethostbyname, args.head)
    except OSError as error:
        raise LostError(1, "NodesMissing", f"{args.head} has no address: {error}; is its Service there?") from None


def _missing(meeting: Meeting, args: argparse.Namespace) -> str:
    names = ", ".join(map(str, meeting.missing()))
    return f"of {args.nodes} nodes these have not come: {names}; see the events and logs of their pods"


def _until(
    good: Callable[[], bool], ray: subprocess.Popen[bytes], seconds: float, why: str | Callable[[], str]
) -> None:
    until = time.monotonic() + seconds
    while not good():
        if ray.poll() is not None:
            raise LostError(1, "RayEnded", f"Ray's head ended with status {ray.returncode}")
        if time.monotonic() > until:
            said = why if isinstance(why, str) else why()
            raise LostError(1, "NodesMissing", f"{said} (within {seconds:g} s)")
        time.sleep(PAUSE / 5)


def _open(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _wait_for_ray(address: str, nodes: int) -> int:
    """A process of its own: a driver that is connected would count as a job of the cluster."""
    ray: Any = importlib.import_module("ray")
    ray.init(address=address, log_to_driver=False)
    while sum(bool(node["Alive"]) for node in ray.nodes()) < nodes:
        time.sleep(PAUSE)
    ray.shutdown()
    return 0


# ---- the others ------------------------------------------------------------------------------------------------------


def _follow(args: argparse.Namespace) -> int:
    say = Caller(args.head, args.meeting_port, secret(args.head), args.node, secrets.token_hex(8)).say
    # As long as node 0 waits for a place in the cluster, there is nothing to do: how long that may take is its affair.
    while not (answer := say("join")).address:
        time.sleep(PAUSE)
    try:
        with _child(_ray(args, answer.here, f"--address={answer.address}")) as ray:
            heard = time.monotonic()
            while ray.poll() is None:
                answer = say("beat")
                if answer.unknown:
                    raise LostError(OTHER_NODE_WENT, "HeadLost", "node 0 has begun anew")
                if answer.address:
                    heard = time.monotonic()
                elif time.monotonic() - heard > args.silence:
                    raise LostError(
                        OTHER_NODE_WENT, "HeadLost", f"node 0 has not answered for {args.silence:g} s: see its pod"
                    )
                time.sleep(PAUSE)
    finally:
        say("leave")
    if not say("beat").address:  # it was the head that ended, and Ray noticed first
        raise LostError(OTHER_NODE_WENT, "HeadLost", "node 0 has ended: see its pod")
    raise LostError(1, "RayEnded", f"Ray ended with status {ray.returncode} on node {args.node}")


# ---- processes -------------------------------------------------------------------------------------------------------


def _ray(args: argparse.Namespace, address: str, *options: str) -> list[str]:
    cpus = max(LEAST_CPUS, os.cpu_count() or 1)
    fixed = [f"--node-ip-address={address}", f"--num-gpus={args.gpus}", f"--num-cpus={cpus}", "--disable-usage-stats"]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *fixed, "--block"]


@contextmanager
def _child(
    command: Sequence[str], environment: dict[str, str] | None = None, grace: float = GRACE
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block, nor do those that it has started; `grace`: seconds for it to end."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        below = descendants(process.pid)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """All processes below one (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ray_node", description="One of the nodes on which a stage runs with Ray.")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many there are")
    parser.add_argument("--node", type=int, default=0, metavar="I", help="which one this is, from 0")
    parser.add_argument("--head", required=True, metavar="HOST", help="name of node 0")
    parser.add_argument("--port", type=int, default=RAY_PORT, help="Ray's port on node 0")
    parser.add_argument("--meeting-port", type=int, default=MEETING_PORT, help="where the nodes meet, on node 0")
    parser.add_argument("--gpus", type=int, default=0, metavar="G", help="GPUs of every node, as Ray counts them")
    parser.add_argument("--join-seconds", type=float, default=900.0, metavar="S", help="how long node 0 waits for all")
    parser.add_argument("--silence", type=float, default=30.0, metavar="S", help="a node silent for longer is lost")
    parser.add_argument("--grace", type=float, default=30.0, metavar="S", help="how long the pod has to end in order")
    parser.add_argument("--termination-log", type=Path, metavar="FILE", help="receives the last error as JSON")
    parser.add_argument("--wait-for", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help="what node 0 runs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
