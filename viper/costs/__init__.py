"""What an iteration will take before it runs: items, GPU-hours, storage and money, from a table of throughputs."""

from __future__ import annotations

from viper.costs.estimate import IterationCost, LoopCost, StageCost, iteration_cost, loop_cost
from viper.costs.measured import Measurement, Measurements, measurement
from viper.costs.ranges import Range
from viper.costs.table import Rate, RateTable, load_table

__all__ = [
    "IterationCost",
    "LoopCost",
    "Measurement",
    "Measurements",
    "Range",
    "Rate",
    "RateTable",
    "StageCost",
    "iteration_cost",
    "load_table",
    "loop_cost",
    "measurement",
]
