"""What tidies up in a store, also on the way out of a program that was told to stop."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Thread

#: Seconds for which a program that was told to stop waits for a store.
LEAVING_S = 10.0


def tidied(work: Callable[[], None], seconds: float = LEAVING_S) -> None:
    """Does `work`, which raises nothing. For `seconds` at most where it is done because SIGTERM or Ctrl-C ends the
    program: a store that takes connections and says nothing would keep it for minutes, and its pod until it is killed.
    """
    if not isinstance(sys.exception(), SystemExit | KeyboardInterrupt):
        work()
        return
    thread = Thread(target=work, daemon=True, name="tidying")
    thread.start()
    thread.join(seconds)
