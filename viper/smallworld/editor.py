"""Instruction-guided editing in the small world: sees pixels and the instruction, never the hidden scene."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from viper.engines.base import EditResult
from viper.smallworld.drawing import WORLD, from_image, to_image
from viper.smallworld.reading import Instruction, Mention, Unreadable, read_instruction
from viper.smallworld.scenes import ATTRIBUTES, CELLS, Background, Thing, random_background, random_thing
from viper.smallworld.sight import Sight, Sighting, draw, see

FAILURE_RATE: Final = 0.08
"""Share of edits that go wrong, so that the CLIP-score filter and the judge have something to find."""

_Things = tuple[Sighting | None, ...]
_State = tuple[Background, _Things]


class SmallWorldEditor:
    """The `Editor` of the small world.

    It reads the picture by image analysis, finds what the instruction names, and repaints only the pixels that
    change. It refuses (image unchanged, with a note) what it cannot read, what is not there as described, a taken
    target and an edit that would change nothing.

    Like a real editor it is not perfect: in a share `failure_rate` of the seeds it does nothing, does the wrong thing
    or touches something else as well, and says nothing about it.
    """

    def __init__(self, failure_rate: float = FAILURE_RATE) -> None:
        if not 0.0 <= failure_rate <= 1.0:
            raise ValueError(f"failure_rate is a share between 0 and 1, not {failure_rate}")
        self._failure_rate = failure_rate

    @property
    def engine_id(self) -> str:
        """There are no weights; the failure rate is what changes the results."""
        return f"smallworld-editor/1 failure_rate={self._failure_rate:g}"

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[EditResult]:
        """One result per image, in order; raises `ValueError` when the lengths differ."""
        return [self._edit(*given) for given in zip(images, instructions, seeds, strict=True)]

    def _edit(self, image: Image.Image, text: str, seed: int) -> EditResult:
        rng = random.Random(f"editor-{seed}")
        fails = rng.random() < self._failure_rate
        try:
            instruction = read_instruction(text)
            sight = see(image)
            if sight is None:
                raise Unreadable("this is not a drawing of the small world, the only kind this editor can change")
            wanted = carry_out(instruction, sight, rng)
        except Unreadable as reason:
            return EditResult(image, str(reason))
        done = _botched(sight, wanted, rng) if fails else wanted
        return EditResult(_repaint(image, sight, done, seed))


def carry_out(instruction: Instruction, sight: Sight, rng: random.Random) -> _State:
    """Background and things after the edit; `rng` decides what an `add` leaves open.

    Raises `Unreadable` with the reason when the picture does not admit the edit.
    """
    if instruction.background:
        return _with_background(instruction, sight)
    things = list(sight.things)
    if instruction.verb == "add":
        cell = instruction.of.cell
        if cell is None or things[cell] is not None:
            raise Unreadable("the place to add something to is already taken")
        things[cell] = _new_thing(instruction.of, rng)
        return sight.background, tuple(things)
    cell, found = _find(instruction.of, sight.things)
    if instruction.verb == "remove":
        things[cell] = None
    elif instruction.verb == "move":
        target = instruction.target
        if target is None or things[target] is not None:
            raise Unreadable("the place to move it to is already taken")
        things[cell], things[target] = None, found
    else:
        thing = Thing(*(instruction.new.get(name, found.attributes[name]) for name in ATTRIBUTES))
        if thing == found.thing:
            raise Unreadable(f"the object at {CELLS[cell]} is like that already")
        things[cell] = Sighting(thing, found.offset, found.shade)
    return sight.background, tuple(things)


def _with_background(instruction: Instruction, sight: Sight) -> _State:
    there = {"pattern": sight.background.pattern, "color": sight.background.color}
    for name, value in instruction.of.attributes.items():
        if there[name] != value:
            raise Unreadable(f"the background is not {value} but {there[name]}")
    new = Background(**(there | dict(instruction.new)))
    if new == sight.background:
        raise Unreadable("the background is like that already")
    return new, sight.things


def _find(of: Mention, things: _Things) -> tuple[int, Sighting]:
    """The one thing that fits the description."""
    fits = [
        (cell, seen)
        for cell, seen in enumerate(things)
        if seen is not None and of.cell in (None, cell) and of.attributes.items() <= seen.attributes.items()
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise Unreadable("more than one object fits the description")
    there = None if of.cell is None else things[of.cell]
    if of.cell is None:
        raise Unreadable("no object fits the description")
    if there is None:
        raise Unreadable(f"there is nothing at {CELLS[of.cell]}")
    wrong = ", ".join(
        f"{name} is {there.attributes[name]}, not {value}"
        for name, value in of.attributes.items()
        if there.attributes[name] != value
    )
    raise Unreadable(f"the object at {CELLS[of.cell]} is another: {wrong}")


def _new_thing(mention: Mention, rng: random.Random) -> Sighting:
    otherwise = random_thing(rng)
    thing = Thing(*(mention.attributes.get(name, otherwise.value(name)) for name in ATTRIBUTES))
    x, y = (rng.randint(-WORLD.jitter, WORLD.jitter) for _ in range(2))
    red, green, blue = (rng.randint(-WORLD.shade, WORLD.shade) for _ in range(3))
    return Sighting(thing, (x, y), (red, green, blue))


def _botched(sight: Sight, wanted: _State, rng: random.Random) -> _State:
    """What a failing edit does instead: nothing, the wrong thing, or something else as well."""
    way = rng.choice(("nothing", "wrong", "elsewhere"))
    background, things = wanted
    if way == "nothing":
        return sight.background, sight.things
    changed = [cell for cell in range(len(CELLS)) if things[cell] != sight.things[cell]]
    others = [cell for cell, seen in enumerate(things) if seen is not None and cell not in changed]
    if way == "elsewhere" and others:
        cell = rng.choice(others)
        return background, _tampered(things, cell, things[cell], rng)
    if not changed:
        while background in (wanted[0], sight.background):
            background = random_background(rng)
        return background, things
    cell = rng.choice(changed)
    return background, _tampered(things, cell, things[cell] or sight.things[cell], rng)


def _tampered(things: _Things, cell: int, thing: Sighting | None, rng: random.Random) -> _Things:
    """`things` with `thing`, one of its attributes altered, in `cell`."""
    if thing is not None:
        name = rng.choice(tuple(ATTRIBUTES))
        value = rng.choice([word for word in ATTRIBUTES[name] if word != thing.thing.value(name)])
        thing = Sighting(thing.thing.changed(name, value), thing.offset, thing.shade)
    return (*things[:cell], thing, *things[cell + 1 :])


def _repaint(image: Image.Image, sight: Sight, state: _State, seed: int) -> Image.Image:
    """Repaints the pixels in which the two noiseless pictures differ, with noise of the picture's own strength."""
    before, after = sight.pixels(), draw(*state)
    changed = (before != after).any(-1)
    noise = np.random.default_rng(seed).standard_normal((int(changed.sum()), 3), dtype=np.float32) * sight.noise
    pixels = from_image(image)
    pixels[changed] = after[changed] + noise
    return to_image(pixels)
