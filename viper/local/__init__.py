"""The local executor: an iteration's plan carried out as processes on this machine."""

from viper.local.directory import RunDirectory, RunRecord
from viper.local.executor import Listener, LocalExecutor, Stopped
from viper.local.run import PRELOAD, LocalRun, RunListener, RunResult

__all__ = [
    "PRELOAD",
    "Listener",
    "LocalExecutor",
    "LocalRun",
    "RunDirectory",
    "RunListener",
    "RunRecord",
    "RunResult",
    "Stopped",
]
