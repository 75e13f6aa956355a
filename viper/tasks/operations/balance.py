"""Category balance: who gets which edit category when the model's own choices are not left to stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from viper.spec.recipe import CATEGORIES


def quotas(total: int, shares: Mapping[str, float], first: int = 0) -> dict[str, int]:
    """`total` divided by `shares` (largest remainder). `first` rotates the order in which ties are broken, so that many
    small parts do not all favour the same category."""
    order = [CATEGORIES[(first + i) % len(CATEGORIES)] for i in range(len(CATEGORIES))]
    exact = {c: total * shares.get(c, 0.0) for c in order}
    given = {c: int(exact[c] + 1e-9) for c in order}
    by_remainder = sorted(order, key=lambda c: -round(exact[c] - given[c], 9))
    for category in by_remainder[: total - sum(given.values())]:
        given[category] += 1
    return given


def steer(choices: Sequence[str], shares: Mapping[str, float], first: int = 0) -> list[str]:
    """The choices with those beyond their category's quota replaced by the category furthest below its own."""
    quota = quotas(len(choices), shares, first)
    kept: Counter[str] = Counter()
    steered: list[str | None] = []
    for choice in choices:
        fits = kept[choice] < quota[choice]
        kept[choice] += fits
        steered.append(choice if fits else None)
    result = []
    for category in steered:
        if category is None:
            category = max(quota, key=lambda c: quota[c] - kept[c])  # noqa: PLW2901 - the gap is filled here
            kept[category] += 1
        result.append(category)
    return result
