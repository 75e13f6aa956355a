"""The operator beside JobSet's controller, with thousands of resources on a real API server.

In one run, on one machine, one after the other against the same etcd, API server, controller-manager and scheduler,
with kwok's nodes (fake GPUs) on which pods run:

1. plain Jobs by a client: what the API server allows;
2. JobSet's controller (defaults, no webhooks) with JobSets of one Job each;
3. the operator with as many ViperIterations, whose first Job (the same pod template) runs on;
4. some iterations that go all the way, to count writes per stage; programs of stages are played, see work.py;
5. the operator is started anew: everything is reconciled once more, which has to write nothing;
6. more iterations, and started anew once more.

Each resource is created in one go by a few connections. Times, names and users are those of the API server's audit log:
from the arrival of the request that creates a resource until its first Job is stored. Leases are not counted.
A benchmark does not fail: it prints what was aimed at beside what came out, and how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))
from scale import work
from scale.lab import OURS, PAUSE, THEIRS, Lab, Process, Write

from fakes.cluster import install_definitions
from viper.store import DirectoryStore
from viper_operator.views import FINISHED

Row = dict[str, Any]
#: What the issue asks for, by figure.
AIMS = {
    "first Job, p99 (s)": "≤ 2, where the API server allows it; not above JobSet",
    "Jobs per second": "not below JobSet",
    "writes per stage transition": "≤ 3",
    "writes when all is reconciled anew": "0",
    "restart (s)": "≤ 30",
    "memory (MiB)": "≤ 128 with 1,000, ≤ 256 with 5,000",
}
PATIENCE = 900
LINE = "{:26}{:38}{:>12}   {}"


class Report:
    """Figures as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, who: str, what: str, value: float, **more: Any) -> None:
        """One figure; `more` is for the JSON."""
        aim = AIMS.get(what, "") if who.startswith(("operator", "iterations")) else ""
        self.rows.append({"who": who, "what": what, "value": round(value, 3), "aim": aim, **more})
        print(LINE.format(who, what, f"{value:,.2f}".rstrip("0").rstrip("."), aim), flush=True)

    def note(self, text: str) -> None:
        """How busy the machine is."""
        load = os.getloadavg()
        self.rows.append({"who": "machine", "what": text, "value": round(load[0], 2), "aim": ""})
        print(f"-- {text}; load {load[0]:.1f} on {os.cpu_count()} cores", flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value below or at which that share of all is (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


@dataclass
class Phase:
    """One side with so many resources. `job`: the name of a resource's first Job."""

    lab: Lab
    report: Report
    who: str
    user: str
    process: Process | None = None

    def burst(self, path: str, bodies: list[Any], job: Callable[[str], str]) -> None:
        """Creates `bodies` at once and reports when the first Job of each was there, and what was written."""
        lab, process = self.lab, self.process
        before, cpu = len(lab.look()), process.cpu() if process else 0.0
        made: dict[str, float] = {}

        def look() -> list[Write]:
            new = lab.look()[before:]
            # Not only 201: a Job whose request timed out is there when it is asked for again.
            for w in new:
                if w.resource == "jobs" and w.user == self.user:
                    made.setdefault(w.name, w.answered)
            return new

        lab.create(path, bodies)
        wanted = {job(b["metadata"]["name"]) for b in bodies}
        deadline = time.monotonic() + PATIENCE
        while look() and not wanted <= made.keys() and time.monotonic() < deadline:
            PAUSE.wait(0.5)
        created = (w for w in look() if w.resource == path.rpartition("/")[2] and w.verb == "create")
        applied = {w.name: w.received for w in created}
        times = [made[job(n)] - at for n, at in applied.items() if job(n) in made]
        begun, ended = min(applied.values()), max(made[j] for j in wanted if j in made)
        self._add("applied per second", len(bodies) / (max(applied.values()) - begun))
        self._add("first Job, p50 (s)", percentile(times, 0.5))
        self._add("first Job, p99 (s)", percentile(times, 0.99))
        self._add("Jobs per second", len(times) / (ended - begun))
        if len(times) < len(bodies):
            self._add(f"without a Job after {PATIENCE} s", len(bodies) - len(times))
        if process:
            lab.settle(self.user, quiet_s=12)
            found = lab.count(self.user, before)
            self._add("writes per resource", found.total() / len(bodies), writes=dict(found))
            if process.restarts:
                self._add("controller ended by itself, times", process.restarts)
            self._add("controller's CPU per resource (ms)", 1000 * (process.cpu() - cpu) / len(bodies))
            self.memory()

    def memory(self) -> None:
        """How much memory its process has now."""
        assert self.process is not None
        found = self.process.memory()
        self._add("memory (MiB)", found["rss"], peak=round(found["peak"], 1))

    def _add(self, what: str, value: float, **more: Any) -> None:
        self.report.add(self.who, what, value, **more)


def plain(lab: Lab, report: Report, count: int) -> None:
    """Jobs by nobody: what the API server, the Job controller and the scheduler leave for everybody else."""
    report.note(f"{count} plain Jobs")
    bodies = [work.job("plain", f"plain-{n:05d}") for n in range(count)]
    Phase(lab, report, f"plain Jobs, {count:,}", "admin").burst(work.JOBS.format("plain"), bodies, lambda name: name)


def jobsets(lab: Lab, report: Report, count: int) -> None:
    """JobSet's controller."""
    process = lab.jobset()
    lab.create(work.JOBSETS.format(THEIRS), [work.jobset(THEIRS, "first")])
    process.until(lambda: lab.count(THEIRS)["jobs"], 120)
    lab.settle(THEIRS, quiet_s=5)
    report.note(f"{count} JobSets")
    phase = Phase(lab, report, f"JobSets, {count:,}", THEIRS, process)
    bodies = [work.jobset(THEIRS, f"js-{n:05d}") for n in range(count)]
    phase.burst(work.JOBSETS.format(THEIRS), bodies, lambda name: f"{name}-work-0")
    process.stop()


class Ours:
    """The operator's phases."""

    def __init__(self, lab: Lab, report: Report) -> None:
        self.lab, self.report, self.total = lab, report, 0
        self.store = DirectoryStore(lab.folder / "store")
        install_definitions(lab.kube)
        self.operator = lab.operator(self.store.uri)
        self.operator.acts()

    def grow(self, until: int) -> None:
        """More iterations, whose first Job runs on."""
        count = until - self.total
        self.report.note(f"{count} ViperIterations beside {self.total}")
        phase = Phase(self.lab, self.report, f"iterations, {until:,}", OURS, self.operator)
        bodies = [work.iteration(f"it-{n:05d}") for n in range(self.total, until)]
        phase.burst(work.ITERATIONS.format(OURS), bodies, lambda name: f"{name}-freeze")
        self.total = until

    def walk(self, count: int) -> None:
        """Iterations that go all the way."""
        self.report.note(f"{count} ViperIterations through all stages beside {self.total}")
        who, before = f"operator, {count:,} at work", len(self.lab.look())
        names = [f"walk-{n:05d}" for n in range(count)]
        stages = work.Stages(self.lab.api, OURS, self.store, names)
        begun = time.monotonic()
        self.lab.create(work.ITERATIONS.format(OURS), stages.bodies.values())
        listed = f"{work.ITERATIONS.format(OURS)}?labelSelector={work.WALKS}"

        def ended() -> bool:
            found = [i.get("status", {}).get("outcome") for i in self.lab.api.call("GET", listed)["items"]]
            return all(f in FINISHED for f in found)

        self.operator.until(ended, PATIENCE)
        self.lab.settle(OURS, quiet_s=6)
        stages.stop()
        found = self.lab.count(OURS, before)
        transitions = stages.count + count  # into every stage, and out of the last
        share = found.total() / transitions
        self.report.add(who, "writes per stage transition", share, writes=dict(found), transitions=transitions)
        for resource, number in sorted(found.items()):
            self.report.add(who, f"  {resource}", number / transitions)
        self.report.add(who, "until all have ended (s)", time.monotonic() - begun)

    def again(self, walked: int) -> None:
        """Stops and starts the operator."""
        everything = self.total + walked
        self.report.note(f"the operator is started anew with {everything} ViperIterations")
        who = f"operator, {everything:,}"
        before = len(self.lab.look())
        self.operator.stop()
        begun = time.monotonic()
        self.operator = self.lab.operator(self.store.uri)
        self.operator.has_seen(everything)
        self.report.add(who, "restart (s)", time.monotonic() - begun)
        self.report.add(who, "restart, CPU (s)", self.operator.cpu())
        # One comparison of everything known with what there is (VIPER_SWEEP_SECONDS) belongs to it.
        sweeps = self.operator.metrics().get("viper_sweeps_total", 0.0)
        self.operator.until(lambda: self.operator.metrics().get("viper_sweeps_total", 0.0) > sweeps, 300)
        self.lab.settle(OURS, quiet_s=6)
        found = self.lab.count(OURS, before)
        self.report.add(who, "writes when all is reconciled anew", found.total(), writes=dict(found))
        Phase(self.lab, self.report, who, OURS, self.operator).memory()


def measure(arguments: argparse.Namespace, folder: Path, report: Report) -> None:
    """All of it."""
    with Lab(folder, nodes=arguments.nodes, gpus=8) as lab:
        if arguments.plain:
            plain(lab, report, arguments.plain)
        if arguments.jobsets:
            jobsets(lab, report, arguments.jobsets)
        ours = Ours(lab, report)
        ours.grow(arguments.iterations)
        if arguments.walk:
            ours.walk(arguments.walk)
        ours.again(arguments.walk)
        if arguments.then > arguments.iterations:
            ours.grow(arguments.then)
            ours.again(arguments.walk)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/operator.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=1000, help="ViperIterations at once (default 1000)")
    parser.add_argument("--jobsets", type=int, default=1000, help="JobSets at once (default 1000; 0: none)")
    parser.add_argument("--then", type=int, default=5000, help="ViperIterations in the end (default 5000)")
    parser.add_argument("--plain", type=int, default=500, help="plain Jobs at once (default 500; 0: none)")
    parser.add_argument("--walk", type=int, default=20, help="iterations that go through all stages (default 20)")
    parser.add_argument("--nodes", type=int, default=20, help="kwok's nodes, with 8 GPUs each (default 20)")
    parser.add_argument("--work", type=Path, help="where to work (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    report = Report()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are ended then, too
    print(LINE.format("who", "what", "figure", "aim"))
    try:
        if arguments.work:
            arguments.work.mkdir(parents=True, exist_ok=True)
            measure(arguments, arguments.work, report)
        else:
            with tempfile.TemporaryDirectory() as folder:
                measure(arguments, Path(folder), report)
    finally:
        if arguments.json:
            arguments.json.write_text(json.dumps(report.rows, indent=1))
