"""Supervised lessons for the starter model: every output form that the stages ask for, drawn from the world's truth.

Nothing of this is used after the starter: iterations see only pictures and what models and tools make of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image

from viper.prompts import PromptSet
from viper.smallworld import language
from viper.smallworld.drawing import Style, render
from viper.smallworld.language import Described
from viper.smallworld.questions import DOMAINS, FINE_GRAINED, ask, is_held_out
from viper.smallworld.scenes import (
    ATTRIBUTES,
    CELLS,
    Attribute,
    Scene,
    random_background,
    random_scene,
    random_thing,
)


@dataclass(frozen=True)
class Lesson:
    """What the model is shown and what it should say."""

    images: tuple[Image.Image, ...]
    prompt: str
    answer: str


SLIPS: Final = (("attribute", 70), ("missing", 12), ("extra", 8), ("background", 10))
SLIP_ATTRIBUTES: Final[tuple[Attribute, ...]] = ("shape", "shape", "texture", "color", "size")


def slip(rng: random.Random, scene: Scene, count: int) -> Scene:
    """`scene` as a caption with `count` slips would describe it."""
    for _ in range(count):
        (kind,) = rng.choices([name for name, _ in SLIPS], [weight for _, weight in SLIPS])
        cell = rng.choice(scene.occupied)
        if kind == "attribute":
            name = rng.choice(SLIP_ATTRIBUTES)
            thing = scene.thing(cell)
            value = rng.choice([word for word in ATTRIBUTES[name] if word != thing.value(name)])
            scene = scene.with_thing(cell, thing.changed(name, value))
        elif kind == "missing" and len(scene.occupied) > 1:
            scene = scene.with_thing(cell, None)
        elif kind == "extra":
            scene = scene.with_thing(rng.choice(scene.free), random_thing(rng))
        else:
            scene = Scene(random_background(rng), scene.things)
    return scene


def fresh_scene(rng: random.Random) -> Scene:
    """A random scene that no held-out question is about."""
    scene = random_scene(rng)
    while is_held_out(scene):
        scene = random_scene(rng)
    return scene


def flaw_thought(described: Scene | Described, truth: Scene) -> str:
    """The reasoning before a list of flaws: one sentence of the true caption for each place that is wrong."""
    said = []
    for flaw in language.flaws(described, truth):
        if flaw.cell is None:
            said.append(language.background_sentence(truth.background))
            continue
        thing = truth.things[flaw.cell]
        sentence = language.thing_sentence(flaw.cell, thing) if thing else language.nothing_sentence(flaw.cell)
        if sentence not in said:
            said.append(sentence)
    return " ".join(said)


def operation_thought(before: Scene, after: Scene, operation: language.Operation) -> str:
    """The reasoning before an operation: the places it touches, before and after."""
    match operation:
        case language.Add(cell, thing):
            return f"{language.nothing_sentence(cell)} {language.thing_sentence(cell, thing)}"
        case language.Remove(cell, thing):
            return f"{language.thing_sentence(cell, thing)} {language.nothing_sentence(cell)}"
        case language.Move(cell, target, thing):
            return f"{language.thing_sentence(cell, thing)} {language.thing_sentence(target, thing)}"
        case language.ChangeBackground(old, new):
            return f"{language.background_sentence(old)} {language.background_sentence(new)}"
        case language.ChangeAttribute(cell):
            sentences = (language.thing_sentence(cell, scene.thing(cell)) for scene in (before, after))
            return " ".join(sentences)


def verdicts(first: Scene, second: Scene) -> str:
    """`same` or `other` for the background, then for each cell: dense supervision of looking from place to place."""
    same = [first.background == second.background]
    same += [here == there for here, there in zip(first.things, second.things, strict=True)]
    return " ".join("same" if equal else "other" for equal in same)


def think(thought: str, answer: str) -> str:
    """`<think>thought</think>answer`."""
    return f"<think>{thought}</think>{answer}"


def entity(operation: language.Operation) -> str:
    """What the operation is about, in words."""
    match operation:
        case language.ChangeBackground():
            return "background"
        case language.ChangeAttribute(cell):
            return f"object at {CELLS[cell]}"
        case language.Add(_, thing) | language.Remove(_, thing) | language.Move(_, _, thing):
            return language.thing_words(thing)


class Teacher:
    """Makes lessons in one drawing style; `rng` decides everything."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self._rng = rng
        self._style = style
        self._prompts = PromptSet.load("smallworld")

    def _show(self, *scenes: Scene) -> tuple[Image.Image, ...]:
        """The scenes under one disturbance, as an edit leaves them."""
        seed = self._rng.randrange(2**32)
        return tuple(render(scene, seed, self._style) for scene in scenes)

    def caption(self) -> Lesson:
        scene = fresh_scene(self._rng)
        return Lesson(self._show(scene), self._prompts.render("caption"), language.caption(scene))

    def question(self) -> Lesson:
        rng = self._rng
        domain = FINE_GRAINED if rng.random() < 0.6 else rng.choice(tuple(DOMAINS))
        kind, asked = rng.choice(DOMAINS[domain]), None
        while asked is None:
            scene = fresh_scene(rng)
            asked = ask(kind, scene, rng)
        prompt = self._prompts.render("question", question=asked.question)
        return Lesson(self._show(scene), prompt, think(asked.grounding, asked.answer))

    def _flawed(self, fewest: int) -> tuple[Scene, Scene]:
        rng = self._rng
        while True:
            scene = fresh_scene(rng)
            said = slip(rng, scene, rng.choice((fewest, 1, 1, 2, 3)))
            if len(language.flaws(said, scene)) >= fewest:
                return scene, said

    def caption_refining(self) -> Lesson:
        scene, said = self._flawed(1)
        answer = " ".join(map(language.flaw_sentence, language.flaws(said, scene)))
        prompt = self._prompts.render("caption_refining", caption=language.caption(said))
        return Lesson(self._show(scene), prompt, think(flaw_thought(said, scene), answer))

    def critique(self) -> Lesson:
        scene, said = self._flawed(0)
        found = [language.flaw_sentence(flaw) for flaw in language.flaws(said, scene)]
        prompt = self._prompts.render("critique", caption=language.caption(said))
        return Lesson(self._show(scene) + self._show(said), prompt, json.dumps({"refinement": found}))

    def compare(self) -> Lesson:
        """Two pictures: for the background and each cell in order, is it the same?"""
        before = fresh_scene(self._rng)
        after = slip(self._rng, before, self._rng.choice((1, 1, 2, 3, 4)))
        return Lesson(self._show(before, after), "Compare.", verdicts(before, after))

    def check(self) -> Lesson:
        """A picture and a caption: for the background and each cell in order, is it as the caption says?"""
        scene = fresh_scene(self._rng)
        said = slip(self._rng, scene, self._rng.choice((1, 1, 2, 3, 4)))
        return Lesson(self._show(scene), f"Compare. Caption: {language.caption(said)}", verdicts(scene, said))

    def pick(self) -> Lesson:
        """Two like pictures, one of them to be described: which picture is which."""
        first = fresh_scene(self._rng)
        second = slip(self._rng, first, self._rng.choice((1, 2, 4, 6)))
        word, asked = self._rng.choice((("first", first), ("second", second)))
        return Lesson(self._show(first, second), f"Describe the {word} image.", language.caption(asked))

    def easy_operation(self) -> Lesson:
        """An operation on a picture of one or two things."""
        scene = random_scene(self._rng, 1, 2)
        return self._operation(scene)

    def refine(self) -> Lesson:
        scene, said = self._flawed(0)
        found = " ".join(language.flaw_sentence(flaw) for flaw in language.flaws(said, scene))
        prompt = self._prompts.render("refine", caption=language.caption(said), refinement=found)
        return Lesson(self._show(scene), prompt, language.caption(scene))

    def operation_predicting(self) -> Lesson:
        return self._operation(fresh_scene(self._rng))

    def _operation(self, scene: Scene) -> Lesson:
        operation = language.random_operation(self._rng, scene)
        after = language.apply(scene, operation) or scene
        answer = think(operation_thought(scene, after, operation), language.operation_sentence(operation))
        return Lesson(self._show(scene, after), self._prompts.render("operation_predicting"), answer)

    def category(self) -> Lesson:
        scene = fresh_scene(self._rng)
        cell = self._rng.choice(scene.occupied)
        answer = {
            "analysis": language.thing_sentence(cell, scene.thing(cell)),
            "chosen_category": self._rng.choice(language.CATEGORIES),
            "reasoning": "It is subtle.",
        }
        prompt = self._prompts.render("category", caption=language.caption(scene))
        return Lesson(self._show(scene), prompt, json.dumps(answer))

    def instruction(self) -> Lesson:
        scene = fresh_scene(self._rng)
        said = slip(self._rng, scene, self._rng.choice((0, 0, 1)))
        operation = language.random_operation(self._rng, scene)
        prompt = self._prompts.render(
            "instruction", caption=language.caption(said), category=language.category(operation), task=""
        )
        answer = {
            "entity_to_edit": entity(operation),
            "editing_instruction": language.operation_sentence(operation),
        }
        return Lesson(self._show(scene), prompt, json.dumps(answer))

    def judge(self) -> Lesson:
        rng, scene = self._rng, fresh_scene(self._rng)
        told = language.random_operation(rng, scene)
        done: language.Operation | None = told
        if rng.random() < 0.4:
            done = None if rng.random() < 0.25 else language.random_operation(rng, scene, language.category(told))
        after = scene if done is None else language.apply(scene, done) or scene
        answer = {"is_valid": True} if done == told else {"is_valid": False, "reason": "It was not done."}
        prompt = self._prompts.render("judge", instruction=language.operation_sentence(told))
        return Lesson(self._show(scene, after), prompt, json.dumps(answer))

    def lesson(self, mix: Mapping[str, float]) -> Lesson:
        """One lesson; `mix` weighs the methods of this class by name."""
        (name,) = self._rng.choices(list(mix), list(mix.values()))
        method: Callable[[], Lesson] = getattr(self, name)
        return method()


Mix = Mapping[str, float]
"""Weights of the lessons, by method name of `Teacher`."""
SEEING: Final[Mix] = {"caption": 0.6, "question": 0.4}
COMPARING: Final[Mix] = {"caption": 0.25, "question": 0.2, "compare": 0.35, "check": 0.2}
ALL_FORMS: Final[Mix] = {
    "caption": 0.13,
    "question": 0.14,
    "operation_predicting": 0.24,
    "caption_refining": 0.18,
    "critique": 0.10,
    "compare": 0.03,
    "check": 0.03,
    "refine": 0.03,
    "category": 0.02,
    "instruction": 0.05,
    "judge": 0.05,
}
PICKING: Final[Mix] = {"pick": 0.3, "easy_operation": 0.6, "caption": 0.04, "question": 0.06}
EDITING: Final[Mix] = {
    "pick": 0.1,
    "easy_operation": 0.3,
    "operation_predicting": 0.4,
    "compare": 0.1,
    "caption": 0.04,
    "question": 0.06,
}
TASKS: Final[Mix] = {
    "caption": 0.06,
    "question": 0.10,
    "operation_predicting": 0.34,
    "caption_refining": 0.18,
    "critique": 0.12,
    "compare": 0.03,
    "check": 0.03,
    "refine": 0.02,
    "category": 0.01,
    "instruction": 0.04,
    "judge": 0.05,
    "pick": 0.02,
}
