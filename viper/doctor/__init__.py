"""`viper doctor`: checks of the machine or pod that it runs on, before an expensive stage finds out."""

from viper.doctor.checks import CHECKS, examine
from viper.doctor.facts import EngineMemory, Facts, Finding, Gpu, MeasuredMemory, Place, Volume, Wanted
from viper.doctor.wanted import wanted_by

__all__ = [
    "CHECKS",
    "EngineMemory",
    "Facts",
    "Finding",
    "Gpu",
    "MeasuredMemory",
    "Place",
    "Volume",
    "Wanted",
    "examine",
    "wanted_by",
]
