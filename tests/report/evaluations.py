"""Made-up evaluations with the statistics of the real one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from viper.evaluation import statistics

DOMAINS = {"coarse perception": 100, "fine-grained perception": 600, "math": 100, "logical reasoning": 100}


def evaluation(shares: Mapping[str, float]) -> dict[str, Any]:
    """`outputs` of an evaluation in which every model answers about `shares[model]` of the questions correctly.

    The same questions stay easy for every model: a better one answers what a worse one answers, and more; one in
    eight verdicts is luck.
    """
    verdicts: dict[str, dict[str, tuple[str, bool]]] = {}
    for name, share in shares.items():
        hardness, luck = random.Random("questions"), random.Random(f"{share:.3f}")
        verdicts[name] = {}
        for k, (domain, n) in enumerate(DOMAINS.items()):
            for i in range(n):
                hard, lucky = hardness.random(), luck.random()
                value = luck.random() if lucky < 0.125 else hard
                verdicts[name][f"{domain}-{i}"] = (domain, value < share + 0.05 * k)
    return {
        "scores": {name: statistics.scores(v) for name, v in verdicts.items()},
        "comparisons": {
            f"{after}-{before}": statistics.comparisons(verdicts[before], verdicts[after])
            for before in ("theta0", "base")
            for after in ("theta1", "theta2")
            if before in verdicts and after in verdicts
        },
    }
