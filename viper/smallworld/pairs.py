"""Pairs for the calibration of a similarity model, from the small world's language."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from viper.reward.calibration import PARAPHRASE, Pair
from viper.smallworld.paraphrase import Fact, random_fact, replaced_among, swapped
from viper.smallworld.wordings import CANONICAL, TRAINING

_ATTRIBUTES: Final = ("size", "texture", "color", "value", "new", "pattern", "ground", "new_pattern", "new_ground")


def small_world_pairs(count: int, seed: int = 0) -> list[Pair]:
    """`count` pairs of each kind from the small world's language.

    A paraphrase is another wording of the fact. A counterfactual is said in the ground truth's own words, with one
    value changed: an attribute (size, texture, colour, pattern), a relation (a place, a direction), or the object (a
    shape).
    """
    rng = random.Random(f"calibration-{seed}")
    changed: dict[str, Callable[[Fact], Fact | None]] = {
        "attribute": lambda f: None if f.attribute == "shape" else replaced_among(f, _ATTRIBUTES, rng),
        "relation": lambda f: swapped(f) or replaced_among(f, ("cell", "target"), rng),
        "object": lambda f: replaced_among(f, ("value", "new") if f.attribute == "shape" else ("shape",), rng),
    }
    pairs = []
    for _ in range(count):
        fact = random_fact(rng)
        pairs.append(Pair(CANONICAL.say(fact, rng), TRAINING.say(fact, rng), PARAPHRASE))
    for kind, change in changed.items():
        made = 0
        while made < count:
            fact = random_fact(rng)
            other = change(fact)
            if other is not None:
                pairs.append(Pair(CANONICAL.say(fact, rng), CANONICAL.say(other, rng), kind))
                made += 1
    return pairs
