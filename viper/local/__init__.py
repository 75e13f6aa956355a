"""The local executor: an iteration's plan carried out as processes on this machine."""

from viper.local.directory import RunDirectory, RunRecord
from viper.local.executor import Listener, LocalExecutor, Stopped

__all__ = ["Listener", "LocalExecutor", "RunDirectory", "RunRecord", "Stopped"]
