"""The results printed in the paper (arXiv 2510.24285), in points: what an evaluation stands beside in the report."""

from __future__ import annotations

from viper.spec.benchmarks import BENCHMARKS

#: Model → score of each benchmark, in the order of `BENCHMARKS`.
_SCORES = {
    "Qwen2.5-VL-3B": (55.9, 65.4, 53.1, 47.6, 68.7, 46.3, 73.6),
    "Qwen-Viper-3B": (57.8, 67.7, 54.6, 49.2, 70.0, 49.1, 74.3),
    "Qwen2.5-VL-7B": (63.9, 68.5, 57.4, 56.4, 75.1, 52.9, 76.4),
    "Qwen-Viper-7B": (66.2, 71.4, 59.0, 57.6, 75.6, 54.4, 77.6),
}
#: Overall, as printed; the mean of the seven.
OVERALL_SCORES = {"Qwen2.5-VL-3B": 58.7, "Qwen-Viper-3B": 60.4, "Qwen2.5-VL-7B": 64.4, "Qwen-Viper-7B": 66.0}
SCORES: dict[str, dict[str, float]] = {
    model: dict(zip(BENCHMARKS, values, strict=True)) for model, values in _SCORES.items()
}
#: Gain over the base model in MMStar's domains, of 250 questions each.
MMSTAR_GAINS: dict[str, dict[str, float]] = {
    model: dict(
        zip(
            (
                "coarse perception",
                "fine-grained perception",
                "instance reasoning",
                "logical reasoning",
                "math",
                "science & technology",
            ),
            values,
            strict=True,
        )
    )
    for model, values in {
        "Qwen-Viper-3B": (1.2, 4.4, 2.0, 1.2, 0.8, 2.0),
        "Qwen-Viper-7B": (1.6, 6.0, 1.6, 0.8, 0.4, 3.6),
    }.items()
}
