"""What happens beside the made-up run, and the fault that it is."""

from __future__ import annotations

from watcher.film import Act, Film, stamp

INGEST = "l-1-ingest-images"
MOVED = "the alias moved from version 1 to 2 since this iteration began; promotion will be held"
UNSCHEDULED = {"reason": "Unschedulable", "message": "pod p waits for a node", "job": INGEST}


def stage(name: str, state: str, **more: object) -> Act:
    return lambda f: f.stage(name, state, **more)


def condition(kind: str, status: str, message: str = "", since: float | None = None) -> Act:
    def act(f: Film) -> None:
        f.condition(kind, status, "R", message, since)
        f.say()

    return act


def line(text: str) -> Act:
    return lambda f: f.line(text)


def waits(text: str) -> Act:
    """What the program writes."""
    return lambda f: f.store("ingest-images", done=0, waiting=text)


def items(text: str) -> Act:
    """What the status says of it."""
    return lambda f: f.stage("ingest-images", "Running", items={"done": 0, "total": 24, "waiting": text})


def together() -> list[tuple[float, Act]]:
    """The last stage works too early."""
    return [(20.0, lambda f: f.job("promote")), (20.1, lambda f: f.pod("promote", "Running"))]


def note(at: float, text: str) -> tuple[list[tuple[float, Act]], list[float]]:
    """A line of the command's own."""
    return [(at, lambda f: f.line(f"{stamp(at)[11:19]}Z  {text}", "err"))], []


def tried_again(f: Film) -> None:
    f.condition("Succeeded", "Unknown")
    f.say(outcome="Running", retries=1)


def failed_with_its_job(number: int) -> list[tuple[float, Act]]:
    """The last attempt fails, of which it is said for a moment that it was so many."""
    return [
        (20.0, lambda f: f.job("ingest-images", failed=1, condition="Failed")),
        (
            20.5,
            stage(
                "ingest-images", "Running", job=INGEST, message=f"{number} failed attempt: InputError", failures=number
            ),
        ),
        (21.0, stage("ingest-images", "Failed", job=INGEST, finishedAt=stamp(20))),
    ]


def unscheduled(f: Film) -> None:
    f.pod("ingest-images", "Pending", waiting="ImagePullBackOff")


#: What happens beside the made-up run, what of it does not, and the beginning of a fault that this is; empty: of none.
CASES: dict[str, tuple[list[tuple[float, Act]], list[float], str]] = {
    "a stage is said to run while its pod starts": ([(13.2, stage("ingest-images", "Running", job=INGEST))], [], ""),
    "a stage is said to run and its Job is suspended": (
        [(20.0, lambda f: f.job("ingest-images", suspend=True))],
        [],
        "stage is as said: l-1: ingest-images Running",
    ),
    "a Job is suspended for a moment": (
        [
            (20.0, lambda f: f.job("ingest-images", suspend=True)),
            (30.0, lambda f: f.job("ingest-images")),
        ],
        [22.1, 26.1],
        "",
    ),
    "the running Job is another one of that name": (
        [(17.0, stage("ingest-images", "Running", job="l-1-ingest-images-a2"))],
        [],
        "stage is as said: l-1: ingest-images Running",
    ),
    "a stage is said to be done before it is": (
        [(14.0, stage("ingest-images", "Succeeded"))],
        [18.0],
        "stage is as said: l-1: ingest-images Succeeded",
    ),
    "a stage is said to be done when its manifest is there and its Job still ends": (
        [(60.1, stage("ingest-images", "Succeeded", finishedAt=stamp(62)))],
        [],
        "",
    ),
    "a stage is done and has no manifest": ([], [10.0], "stage is as said: l-1: freeze Succeeded"),
    "a stage is said to wait and works": (
        [(63.5, stage("promote", "Waiting"))],
        [63.3],
        "",  # it takes nine seconds only
    ),
    "a stage is said to wait and works for long": (
        [(13.4, stage("ingest-images", "Waiting"))],
        [13.3, 18.0, 22.0, 26.0, 30.0],
        "stage is as said: l-1: ingest-images Waiting",
    ),
    "a stage works and nobody says so": (
        [(13.4, stage("ingest-images", "Pending", reason="Ready"))],
        [13.3, 18.0, 22.0, 26.0, 30.0, 34.0],
        "work is said: l-1: Job l-1-ingest-images works",
    ),
    "a stage is done and nobody says so": ([], [12.3], "work is said: l-1: freeze is done"),
    "a trouble is shown and there": (
        [
            (14.0, unscheduled),
            (15.0, stage("ingest-images", "Pending", **UNSCHEDULED | {"reason": "ImagePullBackOff"})),
        ],
        [13.5, 13.3],
        "",
    ),
    "a trouble is shown after it has ended": (
        [
            (14.0, unscheduled),
            (15.0, stage("ingest-images", "Pending", **UNSCHEDULED | {"reason": "ImagePullBackOff"})),
        ],
        [13.5, 13.3, 18.0, 22.0, 26.0, 30.0, 34.0],
        "stage is as said: l-1: ingest-images Pending (ImagePullBackOff",
    ),
    "a trouble is that of an earlier Job of that name": (
        [
            (13.6, lambda f: f.pod("ingest-images", "Pending", waiting="ImagePullBackOff", owner="earlier")),
            (15.0, stage("ingest-images", "Pending", **UNSCHEDULED | {"reason": "ImagePullBackOff"})),
        ],
        [18.0],
        "stage is as said: l-1: ingest-images Pending (ImagePullBackOff",
    ),
    "a trouble is another one than is said": (
        [(14.0, unscheduled), (15.0, stage("ingest-images", "Pending", **UNSCHEDULED))],
        [13.5, 13.3],
        "stage is as said: l-1: ingest-images Pending (Unschedulable",
    ),
    "an image cannot be pulled, and nobody says so": (
        [(16.1, unscheduled), (16.2, stage("ingest-images", "Pending", reason="Ready"))],
        [16.0, *(17.0 + d for d in range(1, 28, 4))],
        "trouble is said: l-1: l-1-ingest-images: ImagePullBackOff",
    ),
    "a volume cannot be mounted, as an Event of the pod says": (
        [
            (
                13.7,
                lambda f: f.event("FailedMount", "no such claim", kind="Pod", about="P-ingest-images", type="Warning"),
            ),
            (15.0, stage("ingest-images", "Pending", reason="FailedMount", message="no such claim", job=INGEST)),
        ],
        [13.3],
        "",
    ),
    "a volume could not be mounted, and the Event is still there": (
        [
            (
                13.7,
                lambda f: f.event("FailedMount", "no such claim", kind="Pod", about="P-ingest-images", type="Warning"),
            ),
            (15.0, stage("ingest-images", "Pending", reason="FailedMount", message="no such claim", job=INGEST)),
        ],
        [13.3, 18.0, 22.0, 26.0, 30.0, 34.0],
        "stage is as said: l-1: ingest-images Pending (FailedMount",
    ),
    "an attempt has failed": (
        [
            (20.0, lambda f: f.job("ingest-images", failed=1)),
            (20.5, stage("ingest-images", "Running", job=INGEST, message="1 failed attempt: OOMKilled", failures=1)),
        ],
        [],
        "",
    ),
    "an attempt is told to have failed": (
        [
            (20.0, lambda f: f.job("ingest-images", failed=1)),
            (20.5, lambda f: f.event("AttemptFailed", "ingest-images: 1 failed attempt: OOMKilled", type="Warning")),
        ],
        [],
        "",
    ),
    "two attempts are told to have failed": (
        [
            (20.0, lambda f: f.job("ingest-images", failed=1)),
            (20.5, lambda f: f.event("AttemptFailed", "ingest-images: 2 failed attempts: OOMKilled", type="Warning")),
        ],
        [],
        "Events are so: l-1: AttemptFailed: ingest-images: 2 failed attempts: OOMKilled: it is not so",
    ),
    "an attempt is said to have failed and has not": (
        [(20.5, stage("ingest-images", "Running", job=INGEST, message="1 failed attempt: OOMKilled", failures=1))],
        [22.0],
        "stage is as said: l-1: ingest-images Running (1 failed",
    ),
    "the summary keeps a trouble that is over": (
        [(20.0, condition("Succeeded", "Unknown", "3 of 3 stages done"))],
        [],
        "nothing contradicts: l-1: “3 of 3 stages done” and 1 of 3",
    ),
    "a stage that was done runs again": (
        [(20.0, stage("freeze", "Running", job="l-1-freeze"))],
        [],
        "done stays done: l-1: freeze was Succeeded",
    ),
    "an iteration that has ended goes on": (
        [(80.0, lambda f: f.say(outcome="Running"))],
        [],
        "done stays done: l-1: Promoted, then Running",
    ),
    "a finished iteration keeps a stage that is suspended": (
        [
            (
                80.0,
                lambda f: f.say(
                    stages=[*f.iteration["status"]["stages"][:2], {"name": "promote", "state": "Suspended"}]
                ),
            )
        ],
        [],
        "done stays done: l-1 has ended, and promote is said Suspended",
    ),
    "a stage is suspended and the iteration is not": (
        [(20.2, stage("ingest-images", "Suspended", job=INGEST))],
        [22.0, 26.0, 30.0, 34.0],
        "stage is as said: l-1: ingest-images Suspended",
    ),
    "the time of a start is not the Job's": (
        [(20.0, stage("ingest-images", "Running", job=INGEST, startedAt=stamp(1)))],
        [],
        "times are the Jobs': l-1: ingest-images startedAt",
    ),
    "the time of an end is long after the Job's": (
        [(80.0, stage("freeze", "Succeeded", finishedAt=stamp(79)))],
        [],
        "times are the Jobs': l-1: freeze finishedAt",
    ),
    "a condition is older than what it says": (
        [(20.0, condition("GeneratorCurrent", "Unknown", since=-60.0))],
        [],
        "times are the Jobs': l-1: GeneratorCurrent=Unknown",
    ),
    "progress goes back": (
        [(40.0, stage("ingest-images", "Running", items={"done": 4, "total": 24}))],
        [],
        "progress is the program's: l-1: ingest-images  4/24 after",
    ),
    "progress is that of half a minute ago": (
        [],
        [22.0, 26.0, 30.0, 34.0, 38.0],
        "progress is the program's: l-1: ingest-images  0/24 is not what",
    ),
    "progress that nobody made": (
        [(24.0, stage("ingest-images", "Running", items={"done": 23, "total": 24}))],
        [26.0, 30.0],
        "progress is the program's: l-1: ingest-images  23/24 is not",
    ),
    "a stage says what its program waits for": (
        [(17.0, waits("loading")), (18.0, items("loading"))],
        [17.0, 18.0],
        "",
    ),
    "a stage says what its program waited for half a minute ago": (
        [(17.0, waits("loading")), (21.0, items("loading")), (24.0, waits("")), (52.0, items(""))],
        [17.0, 18.0, *(d + 0.0 for d in range(21, 51))],
        "waiting is the program's: l-1: ingest-images is said to wait: loading",
    ),
    "a stage says what its program waited for between two looks, as its log says": (
        [(17.6, line("08:00:17Z  loading: done in 0.4 s")), (18.0, items("loading"))],
        [18.0],
        "",
    ),
    "a stage does not say what its program waits for": (
        [(17.0, waits("loading")), (21.0, items("")), (36.0, waits(""))],
        [17.0, 18.0, *(d + 0.0 for d in range(21, 39))],
        "waiting is the program's: l-1: ingest-images waits, and nobody says so: loading",
    ),
    "progress and items differ": (
        [(40.0, lambda f: f.say(progress="3/24 ingest-images"))],
        [],
        "nothing contradicts: l-1: “3/24 ingest-images” and items",
    ),
    "held and running": (
        [(20.0, condition("Held", "True"))],
        [],
        "nothing contradicts: l-1: Running and Held=True",
    ),
    "promoted and not succeeded": (
        [(80.0, condition("Succeeded", "Unknown", "3 of 3 stages done"))],
        [],
        "nothing contradicts: l-1: Promoted and Succeeded=Unknown",
    ),
    "an end that still compares the alias": (
        [(80.0, condition("GeneratorCurrent", "True"))],
        [],
        "nothing contradicts: l-1: Promoted and GeneratorCurrent=True",
    ),
    "an internal error that has no condition": (
        [(20.0, lambda f: (f.condition("Succeeded", "Unknown", "InternalError"), f.say()))],
        [],
        "nothing contradicts: l-1: the summary speaks of an InternalError",
    ),
    "an Event of an alias that has not moved": (
        [(20.0, lambda f: f.event("AliasMoved", MOVED, type="Warning"))],
        [],
        f"Events are so: l-1: AliasMoved: {MOVED}: its condition does not say so",
    ),
    "a person has it tried again": ([(100.0, tried_again)], [], ""),
    "an iteration is deleted": ([(100.0, lambda f: f.add("object", object=f.iteration, gone=True))], [], ""),
    "the alias is said to have moved, and has not": (
        [(20.0, condition("GeneratorCurrent", "False", MOVED)), (40.0, condition("GeneratorCurrent", "True"))],
        [],
        "alias is as said: l-1: GeneratorCurrent=False",
    ),
    "the alias is moved by another one, and it is said late": (
        [(15.0, lambda f: f.alias(2)), (50.0, condition("GeneratorCurrent", "False", MOVED))],
        [],
        "alias is as said: l-1: GeneratorCurrent=True “”, it is 2",
    ),
    "promotion is said to be held, and comes": (
        [(68.0, lambda f: f.alias(2)), (68.5, condition("GeneratorCurrent", "False", MOVED))],
        [],
        "alias is as said: l-1 is promoted, and it said",
    ),
    "promoted and the alias stays": (
        [],
        [71.0],
        "promotion is the registry's: l-1: Promoted, version 2; the alias is at 1",
    ),
    "a loop's version is that of before": (
        [(74.0, lambda f: f.say_loop("True", "A", "1 of 1 iterations done", version=1))],
        [],
        "loop is as said: l: the version promoted last is said to be 1",
    ),
    "a loop is done before its iterations": (
        [(20.0, lambda f: f.say_loop("True", "A", "1 of 1 iterations done"))],
        [],
        "loop is as said: l: Succeeded=True",
    ),
    "a loop is not done when its iterations are": (
        [],
        [73.0, 73.1, 73.2, 73.3],
        "loop is as said: l: Succeeded=Unknown",
    ),
    "a loop's current iteration is another one": (
        [(20.0, lambda f: f.say_loop("Unknown", "R", "iteration 2 of 1", iteration=2, current="l-2"))],
        [],
        "loop is as said: l: the current iteration is said to be l-2",
    ),
    "an Event of a Job that was made long before": (
        [(30.0, lambda f: f.event("StageStarted", f"ingest-images started (Job {INGEST})."))],
        [],
        "Events are so: l-1: StageStarted: ingest-images started (Job l-1-ingest-images).: Job",
    ),
    "an Event tells twice": (
        [(13.3, lambda f: f.event("StageStarted", f"ingest-images started (Job {INGEST})"))],
        [],
        "Events are so: l-1: StageStarted: ingest-images started (Job l-1-ingest-images): 2 times",
    ),
    "an Event of a stage that is not done": (
        [(40.0, lambda f: f.event("StageSucceeded", "ingest-images done"))],
        [],
        "Events are so: l-1: StageSucceeded: ingest-images done: ingest-images was not done then",
    ),
    "an Event comes late": (
        [(40.0, lambda f: f.event("Resumed", "goes on", lastTimestamp=stamp(20)))],
        [],
        "Events are so: l-1: Resumed: goes on (of ",
    ),
    "an Event warns of a trouble that is not there": (
        [(40.0, lambda f: f.event("Unschedulable", "ingest-images: no node", type="Warning"))],
        [],
        "Events are so: l-1: Unschedulable: ingest-images: no node: it is not so",
    ),
    "an Event that nobody understands": (
        [(40.0, lambda f: f.event("Odd", "the moon is full"))],
        [],
        "Events are so: l-1: Odd: the moon is full: nobody can tell",
    ),
    "an Event about another outcome": (
        [(40.0, lambda f: f.event("Held", "promote: worse", type="Warning"))],
        [],
        "Events are so: l-1: Held: promote: worse: that is not its outcome",
    ),
    "an Event of an iteration that was not made": (
        [(40.0, lambda f: f.event("IterationStarted", "iteration 2 of 2 made: l-2", kind="ViperLoop", name="l"))],
        [],
        "Events are so: l: IterationStarted: iteration 2 of 2 made: l-2: no such iteration",
    ),
    "an Event of a pod": ([(40.0, lambda f: f.event("Pulled", "image is there", kind="Pod", name="p"))], [], ""),
    "a picture stays when it is not so any more": ([], [63.3, 66.3, 73.2], "pictures are so: l-1: “├─ ▶ ingest-images"),
    "a picture of a note that is not so": (
        [(40.0, lambda f: f.picture("l-1  Running", "├─ ▶ ingest-images  Running", "│    ! ImagePullBackOff: none"))],
        [],
        "pictures are so: l-1: “│    ! ImagePullBackOff: none”: it is not so",
    ),
    "a picture with a wrong time": (
        [(40.0, lambda f: f.picture("l-1  Running", "├─ ▶ ingest-images           Running           1.0 s"))],
        [],
        "pictures are so: l-1: “├─ ▶ ingest-images           Running           1.0 s”: its Job is 27 s old",
    ),
    "a picture with a line that nobody understands": (
        [(40.0, lambda f: f.picture("l-1  Running", "?"))],
        [],
        "pictures are so: l-1: “?”: nobody can tell",
    ),
    "logs that leave out a stage": ([], [66.5], "logs tell the run: no line names promote"),
    "logs that do not say how many": (
        [(18.1 + d, line(f"l-1 ingest-images: read {d}")) for d in range(0, 21, 4)],
        [round(18.1 + d, 1) for d in range(0, 25, 4)],
        "logs tell the run: no line says how many read of ingest-images of l-1 has",
    ),
    "a line with a count that nobody has reached": (
        [(25.0, line("l-1 ingest-images: read 23/24"))],
        [],
        "lines are so: “l-1 ingest-images: read 23/24”: no program says so",
    ),
    "a line with a count of another phase": (
        [(25.0, line("08:00:24Z  write 8/24 (1/s)"))],
        [],
        "lines are so: “08:00:24Z  write 8/24 (1/s)”: no program says so",
    ),
    "a line with a count that came between two looks": ([(25.0, line("read (1 of 2) 7/24"))], [], ""),
    "a line of a minute ago": (
        [(90.0, line("08:00:30Z  loads"))],
        [],
        "lines are so: “08:00:30Z  loads” comes 60 s late",
    ),
    "a line of just now": ([(90.0, line("[1] 08:01:29Z  loads"))], [], ""),
    "logs that do not name the phase": (
        [],
        [round(18.1 + d, 1) for d in range(0, 25, 4)],
        "logs tell the run: no line says that ingest-images of l-1 is in read",
    ),
    "logs that say nothing for long": (
        [],
        [57.0, 66.5, 63.3, *(round(26.1 + d, 1) for d in range(0, 17, 4))],
        "logs tell the run: nothing is said for 51 s",
    ),
    "logs whose counts go back": (
        [(39.0, line("l-1 ingest-images: read 12/24"))],
        [],
        "logs tell the run: “l-1 ingest-images: read 12/24” after 20/24",
    ),
    "logs that do not say what is waited for": (
        [],
        [13.1, 13.2, 13.3, 13.5, 16.0, 16.3, 16.5],
        "logs tell the run: nothing works for 54 s, not told",
    ),
    "a line does not say which of two stages at work it is of": (
        [*together(), (30.0, line("08:00:30Z  loads"))],
        [],
        "lines name their stage: “08:00:30Z  loads”: of ingest-images or promote?",
    ),
    "a pod begins": (*note(17.0, "==> ingest-images of l-1, pod p-ingest-images"), ""),
    "a pod begins that is not there": (
        *note(17.0, "==> ingest-images of l-1, pod p-other"),
        "lines are so: “08:00:17Z  ==> ingest-images of l-1, pod p-other”: it is not so",
    ),
    "a stage is done, and a line says so": (
        *note(63.0, "l-1 ingest-images is done after 49.0 s: 24 of 24 accepted"),
        "",
    ),
    "a line says that a stage is done, and it is not": (
        *note(40.0, "l-1 ingest-images is done after 27.0 s"),
        "lines are so: “08:00:40Z  l-1 ingest-images is done after 27.0 s”: it is not so",
    ),
    "a line says what is waited for": (*note(13.8, "waiting for ingest-images of l-1: Starting"), ""),
    "a line says that a stage is waited for that works": (
        *note(40.0, "waiting for ingest-images of l-1: Starting, for 26 s now"),
        "lines are so: “08:00:40Z  waiting for ingest-images of l-1: Starting, for 26 s now”: it is not so",
    ),
    "a line says that an iteration that is there will be made": (
        *note(40.0, "waiting for iteration 1 of loop l to begin"),
        "lines are so: “08:00:40Z  waiting for iteration 1 of loop l to begin”: it is not so",
    ),
    "a line says that an iteration is waited for that nobody wants": (
        *note(72.9, "waiting for iteration 2 of loop l to begin"),
        "lines are so: “08:01:12Z  waiting for iteration 2 of loop l to begin”: it is not so",
    ),
    "a line says how an iteration ends": (*note(73.0, "l-1 ends: Promoted: version 2"), ""),
    "a line says that an iteration ends otherwise": (
        *note(73.0, "l-1 ends: Held: worse"),
        "lines are so: “08:01:13Z  l-1 ends: Held: worse”: it is not so",
    ),
    "a line says how a loop ends": (*note(74.0, "loop l ends: Succeeded: 1 of 1 iterations done"), ""),
    "a line says that a loop has ended, and it goes on": (
        *note(40.0, "loop l ends: Succeeded"),
        "lines are so: “08:00:40Z  loop l ends: Succeeded”: it is not so",
    ),
    "a line of the command's own that nobody understands": (
        *note(40.0, "something is odd"),
        "lines are so: “08:00:40Z  something is odd”: nobody can tell",
    ),
    "logs that end with the first iteration": (
        [],
        [73.3],
        "logs tell the run: ends with “l-1 promote: begins”",
    ),
}
