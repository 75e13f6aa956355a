"""Held-out perception questions: two fixed sets, never trained on, in the paper's domains that make sense here.

Science is the one domain of the paper's table 2 that is left out: nothing in the small world calls for knowledge
beyond the picture. Both sets draw from their own ranges of scene numbers; `is_held_out` lets a training pool leave
out every scene that a question is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from PIL import Image

from viper.smallworld.drawing import render
from viper.smallworld.language import background_sentence, background_words, thing_sentence
from viper.smallworld.scenes import ATTRIBUTES, CELLS, COLORS, SHAPES, TEXTURES, Attribute, Scene, random_scene

SetName = Literal["selection", "test"]
DOMAINS: Final = {
    "fine-grained perception": ("color", "shape", "size", "texture", "where"),
    "coarse perception": ("background", "present"),
    "instance reasoning": ("same", "relation"),
    "logical reasoning": ("all", "and"),
    "math": ("count", "count-shape"),
}
"""Kinds of question in each domain. Frozen before the first reinforcement learning run."""
FINE_GRAINED: Final = "fine-grained perception"
COUNTS: Final[dict[SetName, dict[str, int]]] = {
    "selection": dict.fromkeys(DOMAINS, 60) | {FINE_GRAINED: 300},
    "test": dict.fromkeys(DOMAINS, 100) | {FINE_GRAINED: 600},
}
"""Questions a domain, divided evenly among its kinds."""
FIRST_SEED: Final[dict[SetName, int]] = {"selection": 900_000_000, "test": 800_000_000}
"""Scene numbers of a set start here; training pools stay below 500,000,000."""
NUMBERS: Final = ("zero", "one", "two", "three", "four")


@dataclass(frozen=True)
class Asked:
    """A question about one scene; `grounding` is the sentence or sentences of the caption that its answer rests on."""

    question: str
    answer: str
    grounding: str


@dataclass(frozen=True)
class Question:
    """One held-out question about `image`, which shows `scene`."""

    question_id: str
    domain: str
    kind: str
    image: Image.Image
    question: str
    answer: str
    scene: Scene


def _say(scene: Scene, cells: tuple[int, ...] | list[int]) -> str:
    return " ".join(thing_sentence(cell, scene.thing(cell)) for cell in cells)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _attribute(kind: str) -> Callable[[Scene, random.Random], Asked]:
    def ask(scene: Scene, rng: random.Random) -> Asked:
        cell = rng.choice(scene.occupied)
        answer = str(getattr(scene.thing(cell), kind))
        return Asked(f"What is the {kind} of the object at {CELLS[cell]}?", answer, _say(scene, [cell]))

    return ask


def _where(scene: Scene, rng: random.Random) -> Asked | None:
    names = [(scene.thing(cell).color, scene.thing(cell).shape) for cell in scene.occupied]
    unique = [cell for cell, name in zip(scene.occupied, names, strict=True) if names.count(name) == 1]
    if not unique:
        return None
    cell = rng.choice(unique)
    thing = scene.thing(cell)
    return Asked(f"Where is the {thing.color} {thing.shape}?", CELLS[cell], _say(scene, [cell]))


def _background(scene: Scene, rng: random.Random) -> Asked:
    return Asked("What is the background?", background_words(scene.background), background_sentence(scene.background))


def _present(scene: Scene, rng: random.Random) -> Asked:
    shape = scene.thing(rng.choice(scene.occupied)).shape if rng.random() < 0.5 else rng.choice(SHAPES)
    cells = [cell for cell in scene.occupied if scene.thing(cell).shape == shape]
    return Asked(f"Is there a {shape}?", _yes(bool(cells)), _say(scene, cells[:1]) or f"Nothing is a {shape}.")


def _same(scene: Scene, rng: random.Random) -> Asked:
    first, second = rng.sample(scene.occupied, 2)
    name = rng.choice(tuple(ATTRIBUTES))
    same = scene.thing(first).value(name) == scene.thing(second).value(name)
    text = f"Have the objects at {CELLS[first]} and {CELLS[second]} the same {name}?"
    return Asked(text, _yes(same), _say(scene, [first, second]))


def _relation(scene: Scene, rng: random.Random) -> Asked | None:
    names = [(scene.thing(cell).color, scene.thing(cell).shape) for cell in scene.occupied]
    first, second = rng.sample(scene.occupied, 2)
    chosen = [(scene.thing(cell).color, scene.thing(cell).shape) for cell in (first, second)]
    if any(names.count(name) != 1 for name in chosen):
        return None
    word, truth = rng.choice([("above", first // 3 < second // 3), ("left of", first % 3 < second % 3)])
    text = f"Is the {' '.join(chosen[0])} {word} the {' '.join(chosen[1])}?"
    return Asked(text, _yes(truth), _say(scene, [first, second]))


def _all(scene: Scene, rng: random.Random) -> Asked:
    name: Attribute = "size" if rng.random() < 0.5 else "texture"
    value = scene.thing(rng.choice(scene.occupied)).value(name)
    truth = all(scene.thing(cell).value(name) == value for cell in scene.occupied)
    return Asked(f"Are all objects {value}?", _yes(truth), _say(scene, scene.occupied))


def _and(scene: Scene, rng: random.Random) -> Asked:
    thing = scene.thing(rng.choice(scene.occupied))
    color = thing.color if rng.random() < 0.7 else rng.choice(tuple(COLORS))
    texture = thing.texture if rng.random() < 0.7 else rng.choice(TEXTURES)
    hits = [c for c in scene.occupied if (scene.thing(c).color, scene.thing(c).texture) == (color, texture)]
    grounding = _say(scene, hits[:1]) or f"Nothing is {texture} and {color}."
    return Asked(f"Is an object both {texture} and {color}?", _yes(bool(hits)), grounding)


def _count(scene: Scene, rng: random.Random) -> Asked:
    return Asked("How many objects are there?", NUMBERS[len(scene.occupied)], _say(scene, scene.occupied))


def _count_shape(scene: Scene, rng: random.Random) -> Asked:
    shape = scene.thing(rng.choice(scene.occupied)).shape if rng.random() < 0.8 else rng.choice(SHAPES)
    cells = [cell for cell in scene.occupied if scene.thing(cell).shape == shape]
    grounding = _say(scene, cells) or f"Nothing is a {shape}."
    return Asked(f"How many objects have the shape {shape}?", NUMBERS[len(cells)], grounding)


_KINDS: Final[dict[str, Callable[[Scene, random.Random], Asked | None]]] = {
    **{name: _attribute(name) for name in ATTRIBUTES},
    "where": _where,
    "background": _background,
    "present": _present,
    "same": _same,
    "relation": _relation,
    "all": _all,
    "and": _and,
    "count": _count,
    "count-shape": _count_shape,
}


def ask(kind: str, scene: Scene, rng: random.Random) -> Asked | None:
    """A question of `kind`; None when the scene has none (nothing in it has a unique name)."""
    return _KINDS[kind](scene, rng)


@cache
def _scenes(name: SetName) -> tuple[tuple[str, str, int, Scene, Asked], ...]:
    """(domain, kind, seed, scene, asked) of every question, in order."""
    seed, rows = FIRST_SEED[name], []
    for domain, kinds in DOMAINS.items():
        for index in range(COUNTS[name][domain]):
            kind, asked = kinds[index % len(kinds)], None
            while asked is None:
                seed += 1
                rng = random.Random(f"question-{seed}")
                scene = random_scene(rng)
                asked = ask(kind, scene, rng)
            rows.append((domain, kind, seed, scene, asked))
    return tuple(rows)


def questions(name: SetName) -> list[Question]:
    """The set `name`: `test` (1,000, of which 600 fine-grained) for reports, `selection` (540) for choosing steps."""
    return [
        Question(f"{name}-{seed}", domain, kind, render(scene, seed), asked.question, asked.answer, scene)
        for domain, kind, seed, scene, asked in _scenes(name)
    ]


@cache
def _held_out() -> frozenset[Scene]:
    return frozenset(row[3] for name in FIRST_SEED for row in _scenes(name))


def is_held_out(scene: Scene) -> bool:
    """True when a question of either set is about exactly this scene."""
    return scene in _held_out()
