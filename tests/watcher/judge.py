"""Everything that was said against everything that was so. `python -m watcher.judge FILE` from this folder's parent."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from watcher import lines, statuses, wholes, words
from watcher.statuses import Fault
from watcher.timeline import LATE, Object, read
from watcher.truth import told


def judge(entries: Iterable[Object], late: float = LATE) -> list[Fault]:
    """What was said and not so, or so and not said, in the order of time. `late`: seconds that this may take."""
    world = told(entries, late)
    found = [fault for rule in (*statuses.RULES, *wholes.RULES, *words.RULES, *lines.RULES) for fault in rule(world)]
    return sorted(dict.fromkeys(found), key=lambda fault: fault.at)


def report(faults: Iterable[Fault]) -> str:
    """A line for each."""
    return "\n".join(f"{datetime.fromtimestamp(f.at, UTC):%H:%M:%S.%f}  {f.rule}: {f.what}" for f in faults)


if __name__ == "__main__":
    print(report(judge(read(Path(sys.argv[1])))))
