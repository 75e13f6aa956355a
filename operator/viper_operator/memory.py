"""What the operator knows beyond objects and the store; nothing of it is missed after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field

from viper.stage.progress import ProgressRecord
from viper_operator.aliases import AliasSeen, Begun
from viper_operator.cache import Cache
from viper_operator.observed import Problem
from viper_operator.troubles import Attempts


@dataclass
class Memory:
    """What rounds and reconciliations tell each other.

    By uid of the Job, so that nothing is said of its successor of the same name: `problems`, `attempts`, see
    `viper_operator.status.Facts`; `unreadable`: what is wrong with its progress, empty: it has been right again since;
    `rested`: those whose stage was looked at after they had been suspended and their pods had gone.

    `progress`: news by iteration and stage. `aliases`: by model and alias. `begun`: by uid of the iteration, what it
    began from. `waiting`: by loop, the alias that it waits for. `unread`: iterations of which the store told nothing.
    """

    problems: dict[str, Problem | None] = field(default_factory=dict)
    attempts: dict[str, Attempts] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    rested: set[str] = field(default_factory=set)
    progress: dict[str, dict[str, ProgressRecord]] = field(default_factory=dict)
    aliases: dict[tuple[str, str], AliasSeen] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def forget(self, cache: Cache) -> None:
        """Forgets what was known of objects that are gone, and of iterations that have ended."""
        jobs = {j.uid for j in cache.jobs.items.values()}
        going = {i.uid for i in cache.iterations.items.values() if not i.settled}
        for known, there in (
            (self.problems, jobs),
            (self.attempts, jobs),
            (self.unreadable, jobs),
            (self.begun, going),
            (self.progress, cache.iterations.items.keys()),
            (self.waiting, cache.loops.items.keys()),
        ):
            for key in [k for k in known if k not in there]:
                del known[key]
        self.rested &= jobs
        self.unread &= cache.iterations.items.keys()
