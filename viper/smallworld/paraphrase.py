"""Facts of the small world, said in many ways, and the facts that are nearly but not quite the same.

It feeds the training and the tests of the similarity model: two wordings of one fact belong together, two facts that
differ in a single detail do not, however alike they read. A `Phrasing` is a set of wordings; tests bring one of their
own, which training never sees.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal

from viper.smallworld.scenes import ATTRIBUTES, BACKGROUND_COLORS, CELLS, PATTERNS

Kind = Literal["thing", "missing", "nothing", "attribute", "background", "remove", "add", "move", "change", "repaint"]
KINDS: Final[tuple[Kind, ...]] = (
    "thing", "missing", "nothing", "attribute", "background", "remove", "add", "move", "change", "repaint"
)  # fmt: skip
Difference = Literal["replaced", "swapped", "kind", "dropped", "hedged", "negated", "joined", "related"]
"""How a counterfactual differs: one value replaced, two exchanged (from/to), another kind of statement about the same
thing, a value left out or unintelligible, a second value offered beside the first, a denial, a second claim in the same
sentence, another fact about the same thing."""

_THING: Final = ("size", "texture", "color", "shape")
SLOTS: Final[dict[Kind, tuple[str, ...]]] = {
    "thing": ("cell", *_THING),
    "missing": ("cell", *_THING),
    "nothing": ("cell",),
    "attribute": ("cell", "value"),
    "background": ("pattern", "ground"),
    "remove": ("cell", *_THING),
    "add": ("cell", *_THING),
    "move": ("cell", "target", *_THING),
    "change": ("cell", "value", "new"),
    "repaint": ("pattern", "ground", "new_pattern", "new_ground"),
}
_DROPPABLE: Final = {kind: [slot for slot in slots if "pattern" not in slot] for kind, slots in SLOTS.items()}
_SWAPS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "move": (("cell", "target"),),
    "change": (("value", "new"),),
    "repaint": (("pattern", "new_pattern"), ("ground", "new_ground")),
}
_OTHER_KINDS: Final[dict[Kind, tuple[Kind, ...]]] = {
    "thing": ("remove", "add"),
    "missing": ("remove", "add", "nothing"),
    "nothing": ("missing", "thing"),
    "attribute": ("change",),
    "background": ("repaint",),
    "remove": ("add", "thing", "move"),
    "add": ("remove", "missing", "move"),
    "move": ("remove", "add"),
    "change": ("attribute",),
    "repaint": ("background",),
}


@dataclass(frozen=True)
class Fact:
    """`attribute` is set for the kinds `attribute` and `change`, whose `value` (and `new`) belong to it."""

    kind: Kind
    slots: Mapping[str, str]
    attribute: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Equal exactly for facts that mean the same; a present thing and a missing one are the same claim."""
        kind = "thing" if self.kind == "missing" else self.kind
        return (kind, self.attribute, *(self.slots[slot] for slot in SLOTS[self.kind]))

    def domain(self, slot: str) -> tuple[str, ...]:
        """All values that `slot` can take."""
        if slot in ("cell", "target"):
            return CELLS
        if slot in ("value", "new"):
            return ATTRIBUTES[self.attribute]  # type: ignore[index]
        if slot in ("pattern", "new_pattern"):
            return PATTERNS
        if slot in ("ground", "new_ground"):
            return tuple(BACKGROUND_COLORS)
        return ATTRIBUTES[slot]  # type: ignore[index]


@dataclass(frozen=True)
class Phrasing:
    """Wordings. Templates use the slots, `{thing}` (from `things`), `{at}` (from `places`), `{to}` and `{attribute}`.

    `synonyms` maps a value to its words; a value that is not in it stands for itself. `cells` maps cells likewise.
    `openings` are words that a sentence may begin with and that mean nothing.
    """

    templates: Mapping[Kind, Sequence[str]]
    things: Sequence[str]
    places: Sequence[str]
    synonyms: Mapping[str, Sequence[str]]
    cells: Mapping[str, Sequence[str]]
    openings: Sequence[str]
    attributes: Mapping[str, Sequence[str]]

    def word(self, slot: str, value: str, rng: random.Random) -> str:
        """One word or phrase for a value."""
        known = self.cells if slot in ("cell", "target") else self.synonyms
        return rng.choice(known.get(value, (value,)))

    def say(self, fact: Fact, rng: random.Random, twist: Difference | None = None) -> str:
        """One sentence for `fact`; `twist` leaves out, hedges or negates one of its values, chosen at random."""
        said = {slot: self.word(slot, fact.slots[slot], rng) for slot in SLOTS[fact.kind]}
        said["attribute"] = rng.choice(self.attributes.get(fact.attribute, (fact.attribute,)))
        if twist is not None:
            changed = rng.choice(_DROPPABLE[fact.kind] if twist == "dropped" else SLOTS[fact.kind])
            said[changed] = self._twisted(fact, changed, said[changed], twist, rng)
        template = rng.choice(self.templates[fact.kind])
        if "thing" in _fields(template):
            said["thing"] = rng.choice(self.things).format(**said)
        for name, slot in (("at", "cell"), ("to", "target")):
            if name in _fields(template):
                said[name] = rng.choice(self.places).format(place=said[slot]) if said[slot] else ""
        text = " ".join(template.format(**said).split())
        if self.openings and rng.random() < 0.1:
            return f"{rng.choice(self.openings)} {text[:1].lower()}{text[1:]}"
        return text[:1].upper() + text[1:]

    def _twisted(self, fact: Fact, slot: str, said: str, twist: Difference, rng: random.Random) -> str:
        if twist == "dropped":
            if rng.random() < 0.25:
                return "".join(rng.choice("aeioulnrstk") for _ in range(rng.randint(3, 8)))
            return "object" if slot == "shape" and rng.random() < 0.8 else ""
        if twist == "negated":
            return f"not {said}"
        other = self.word(slot, _other(fact, slot, rng), rng)
        first, second = rng.sample((said, other), 2)
        return f"{first}{rng.choice((' ', ' or ', ' and ', ', ', '/'))}{second}"


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def random_fact(rng: random.Random, kind: Kind | None = None) -> Fact:
    """A fact that is possible in the world: two values of one slot differ where the kind demands it."""
    chosen: Kind = rng.choice(KINDS) if kind is None else kind
    attribute = rng.choice(tuple(ATTRIBUTES)) if chosen in ("attribute", "change") else ""
    fact = Fact(chosen, {}, attribute)
    while True:
        fact = Fact(chosen, {slot: rng.choice(fact.domain(slot)) for slot in SLOTS[chosen]}, attribute)
        if _possible(fact):
            return fact


def _possible(fact: Fact) -> bool:
    given = fact.slots
    return not (
        (fact.kind == "move" and given["cell"] == given["target"])
        or (fact.kind == "change" and given["value"] == given["new"])
        or (fact.kind == "repaint" and all(given[name] == given[f"new_{name}"] for name in ("pattern", "ground")))
    )


def _other(fact: Fact, slot: str, rng: random.Random) -> str:
    return rng.choice([value for value in fact.domain(slot) if value != fact.slots[slot]])


def replaced(fact: Fact, rng: random.Random) -> Fact:
    """The fact with one value replaced by another; always possible in the world."""
    while True:
        chosen = rng.choice(SLOTS[fact.kind])
        changed = Fact(fact.kind, {**fact.slots, chosen: _other(fact, chosen, rng)}, fact.attribute)
        if _possible(changed):
            return changed


def replaced_among(fact: Fact, slots: Sequence[str], rng: random.Random) -> Fact | None:
    """The fact with the value of one of `slots` replaced; None when it has none of them, or no other value fits."""
    changes = [(slot, value) for slot in SLOTS[fact.kind] if slot in slots for value in fact.domain(slot)]
    other = [Fact(fact.kind, {**fact.slots, slot: value}, fact.attribute) for slot, value in changes]
    possible = [changed for changed in other if changed.key != fact.key and _possible(changed)]
    return rng.choice(possible) if possible else None


def swapped(fact: Fact) -> Fact | None:
    """The fact read backwards (to → from); None when it has no direction."""
    if fact.kind not in _SWAPS:
        return None
    slots = dict(fact.slots)
    for one, other in _SWAPS[fact.kind]:
        slots[one], slots[other] = slots[other], slots[one]
    return Fact(fact.kind, slots, fact.attribute)


def as_kind(fact: Fact, kind: Kind, rng: random.Random) -> Fact:
    """A fact of another `kind` that shares every value the two kinds have in common."""
    attribute = fact.attribute
    slots = dict(fact.slots)
    if kind in ("attribute", "change"):
        attribute = attribute or rng.choice(_THING)
        slots.setdefault("value", fact.slots.get(attribute, ""))
        if fact.kind == "change":
            slots["value"] = fact.slots["new"]
    elif fact.attribute:
        slots.setdefault(fact.attribute, fact.slots.get("new", fact.slots["value"]))
    if fact.kind == "repaint":
        slots |= {"pattern": fact.slots["new_pattern"], "ground": fact.slots["new_ground"]}
    while True:
        drawn = random_fact(rng, kind)
        filled = Fact(kind, drawn.slots, attribute if kind in ("attribute", "change") else "")
        filled = Fact(kind, {s: slots.get(s) or rng.choice(filled.domain(s)) for s in SLOTS[kind]}, filled.attribute)
        if _possible(filled):
            return filled


def counterfactual(fact: Fact, way: Difference, phrasing: Phrasing, rng: random.Random) -> str | None:
    """A sentence that differs from `fact` in the given way; None when the way does not apply to its kind."""
    if way == "replaced":
        return phrasing.say(replaced(fact, rng), rng)
    if way == "swapped":
        backwards = swapped(fact)
        return None if backwards is None else phrasing.say(backwards, rng)
    if way == "kind":
        return phrasing.say(as_kind(fact, rng.choice(_OTHER_KINDS[fact.kind]), rng), rng)
    if way == "joined":
        first, second = rng.sample((phrasing.say(fact, rng), phrasing.say(replaced(fact, rng), rng)), 2)
        return f"{first.removesuffix('.')}{rng.choice((' and ', ', ', ' or '))}{second.lower()}"
    if way == "related":
        related = as_kind(fact, rng.choice([kind for kind in KINDS if kind != fact.kind]), rng)
        return None if related.key == fact.key else phrasing.say(related, rng)
    return phrasing.say(fact, rng, way)
