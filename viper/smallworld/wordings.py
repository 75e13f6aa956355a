"""The wordings that the similarity model learns from: each fact in many ways, and sentences about something else."""

from __future__ import annotations

import random
from typing import Final

from viper.smallworld.paraphrase import Phrasing

_CORNERS: Final = {
    f"{vertical} {side}": [
        f"{high}{joint}{side}{corner}"
        for high in words
        for joint in (" ", "-")
        for corner in ("", "", " corner", " cell")
    ]
    + [f"{side} {words[0]}"]
    for vertical, words in (("top", ("top", "upper")), ("bottom", ("bottom", "lower")))
    for side in ("left", "right")
}
_EDGES: Final = {
    "top": ["top", "top", "top center", "top middle", "upper middle", "upper edge", "top cell"],
    "bottom": ["bottom", "bottom", "bottom center", "bottom middle", "lower middle", "lower edge", "bottom cell"],
    "left": ["left", "left", "middle left", "center left", "left side", "left edge", "left cell"],
    "right": ["right", "right", "middle right", "center right", "right side", "right edge", "right cell"],
    "center": ["center", "center", "centre", "middle", "center cell", "very middle"],
}

CANONICAL: Final = Phrasing(
    templates={
        "thing": ["At {cell} is a {thing}."],
        "missing": ["At {cell} a {thing} is missing."],
        "nothing": ["At {cell} is nothing."],
        "attribute": ["At {cell} the {attribute} is {value}."],
        "background": ["The background is {pattern} {ground}."],
        "remove": ["Remove the {thing} at {cell}."],
        "add": ["Add a {thing} at {cell}."],
        "move": ["Move the {thing} at {cell} to {target}."],
        "change": ["Change the {attribute} of the object at {cell} from {value} to {new}."],
        "repaint": ["Change the background from {pattern} {ground} to {new_pattern} {new_ground}."],
    },
    things=["{size} {texture} {color} {shape}"],
    places=["at {place}"],
    synonyms={},
    cells={},
    attributes={},
)
"""Exactly the sentences of `viper.smallworld.language`."""

TRAINING: Final = Phrasing(
    templates={
        "thing": [
            "{at} is a {thing}.",
            "{at} there is a {thing}.",
            "There is a {thing} {at}.",
            "A {thing} is {at}.",
            "A {thing} can be seen {at}.",
            "You can see a {thing} {at}.",
            "{at} stands a {thing}.",
            "{at}: a {thing}.",
            "The picture shows a {thing} {at}.",
        ],
        "missing": [
            "{at} a {thing} is missing.",
            "A {thing} is missing {at}.",
            "The caption omits the {thing} {at}.",
            "The {thing} {at} is not mentioned.",
            "Missing: a {thing} {at}.",
            "{at} the {thing} was left out.",
            "The description does not mention the {thing} {at}.",
            "{at} there should be a {thing}.",
            "It lacks the {thing} {at}.",
        ],
        "nothing": [
            "{at} is nothing.",
            "There is nothing {at}.",
            "Nothing is {at}.",
            "{at} there is no object.",
            "No object is {at}.",
            "The cell {at} is empty.",
            "{at} it is empty.",
            "{at} there is nothing at all.",
        ],
        "attribute": [
            "{at} the {attribute} is {value}.",
            "The {attribute} {at} is {value}.",
            "The object {at} is {value}.",
            "{at} the object is {value}.",
            "The {attribute} of the object {at} is {value}.",
            "The {attribute} of the thing {at} should be {value}.",
            "{at} the {attribute} should be {value}.",
            "The {attribute} {at} is actually {value}.",
            "What is {at} is {value}.",
            "The object {at} has the {attribute} {value}.",
        ],
        "background": [
            "The background is {pattern} {ground}.",
            "The background is {ground} and {pattern}.",
            "The {ground} background is {pattern}.",
            "The backdrop is {pattern} {ground}.",
            "The background should be {pattern} {ground}.",
            "Everything is on a {pattern} {ground} background.",
            "It has a {pattern} {ground} background.",
            "Behind it all is a {pattern} {ground} background.",
        ],
        "remove": [
            "Remove the {thing} {at}.",
            "Delete the {thing} {at}.",
            "Erase the {thing} {at}.",
            "Take away the {thing} {at}.",
            "Take the {thing} {at} away.",
            "Get rid of the {thing} {at}.",
            "The {thing} {at} was removed.",
            "{at}, remove the {thing}.",
            "The {thing} {at} has disappeared.",
            "Eliminate the {thing} {at}.",
        ],
        "add": [
            "Add a {thing} {at}.",
            "Insert a {thing} {at}.",
            "Put a {thing} {at}.",
            "Place a {thing} {at}.",
            "Draw a {thing} {at}.",
            "A {thing} was added {at}.",
            "{at}, add a {thing}.",
            "Include a {thing} {at}.",
            "A new {thing} appears {at}.",
        ],
        "move": [
            "Move the {thing} {at} to {target}.",
            "Move the {thing} from {cell} to {target}.",
            "Move the {thing} from the {cell} to the {target}.",
            "Shift the {thing} {at} to {target}.",
            "Shift the {thing} from {cell} to {target}.",
            "Relocate the {thing} {at} to the {target}.",
            "Drag the {thing} from {cell} to {target}.",
            "The {thing} {at} was moved to {target}.",
            "The {thing} moved from {cell} to {target}.",
            "Take the {thing} from {cell} and put it {to}.",
            "From {cell} to {target}, move the {thing}.",
        ],
        "change": [
            "Change the {attribute} of the object {at} from {value} to {new}.",
            "Change the {attribute} {at} from {value} to {new}.",
            "Change the {value} object {at} to {new}.",
            "Change the object {at} from {value} to {new}.",
            "Turn the {value} object {at} {new}.",
            "Make the {value} object {at} {new}.",
            "The object {at} changed from {value} to {new}.",
            "The {attribute} of the object {at} went from {value} to {new}.",
            "Alter the {attribute} of the object {at} from {value} to {new}.",
            "Switch the {attribute} of the thing {at} from {value} to {new}.",
            "{at}, change the {attribute} from {value} to {new}.",
            "Replace {value} by {new} as the {attribute} of the object {at}.",
        ],
        "repaint": [
            "Change the background from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Change the {pattern} {ground} background to {new_pattern} {new_ground}.",
            "Turn the {pattern} {ground} background into {new_pattern} {new_ground}.",
            "The background changed from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Make the {pattern} {ground} background {new_pattern} {new_ground}.",
            "Switch the backdrop from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Replace the {pattern} {ground} background by a {new_pattern} {new_ground} one.",
            "Alter the background from {ground} {pattern} to {new_ground} {new_pattern}.",
        ],
    },
    things=[
        "{size} {texture} {color} {shape}",
        "{size} {texture} {color} {shape}",
        "{size} {color} {texture} {shape}",
        "{texture} {size} {color} {shape}",
        "{color} {size} {texture} {shape}",
        "{size}, {texture}, {color} {shape}",
        "{shape} that is {size}, {texture} and {color}",
        "{color} {shape} that is {size} and {texture}",
        "{shape} ({size}, {texture}, {color})",
    ],
    places=["at {place}", "at the {place}", "in the {place}", "on the {place}", "in {place}", "at {place}"],
    synonyms={
        "small": ["small", "small", "little", "tiny"],
        "big": ["big", "big", "large", "huge"],
        "plain": ["plain", "plain", "solid", "unpatterned"],
        "striped": ["striped", "striped", "stripy", "streaked"],
        "dotted": ["dotted", "dotted", "spotted", "speckled"],
        "red": ["red", "red", "red", "crimson"],
        "green": ["green", "green", "green", "emerald"],
        "blue": ["blue", "blue", "blue", "azure"],
        "yellow": ["yellow", "yellow", "yellow", "golden"],
        "purple": ["purple", "purple", "violet"],
        "orange": ["orange", "orange", "orange", "tangerine"],
        "pink": ["pink", "pink", "pink", "rose"],
        "brown": ["brown", "brown", "brown", "chestnut"],
        "circle": ["circle", "circle", "disc", "disk"],
        "square": ["square", "square", "box"],
        "triangle": ["triangle"],
        "diamond": ["diamond", "diamond", "rhombus"],
        "cross": ["cross", "cross", "plus"],
        "ring": ["ring", "ring", "donut", "hoop"],
        "smooth": ["smooth", "smooth", "even"],
        "lined": ["lined", "lined", "ruled"],
        "checked": ["checked", "checked", "checkered"],
        "gray": ["gray", "gray", "grey"],
        "black": ["black"],
        "white": ["white"],
        "beige": ["beige", "beige", "sandy"],
        "teal": ["teal", "teal", "turquoise"],
        "navy": ["navy", "navy", "dark blue"],
    },
    cells=_CORNERS | _EDGES,
    attributes={
        "color": ["color", "color", "colour"],
        "texture": ["texture", "texture", "pattern"],
        "size": ["size"],
        "shape": ["shape", "shape", "form"],
    },
)

_COMMON: Final = (
    "the of and to in is it you that he was for on are with as his they be at one have this from or had by but "
    "what some we can out other were all your when up use word how said an each she which do their time if "
    "will way about many then them would write like so these her long make thing see him two has look more day "
    "could go come did my sound no most number who over know water than call first people may down side been "
    "now find any new work part take get place made live where after back little only round man year came show "
    "every good me give our under name very through just form much great think say help low line before turn "
    "cause same mean differ move right boy old too does tell sentence set three want air well also play small "
    "end put home read hand port large spell add even land here must big high such follow act why ask men "
    "change went light kind off need house picture try us again animal point mother world near build self "
    "earth father dog cat train market coffee letter friend window garden morning rain music river school "
    "doctor city summer bread bicycle table kitchen mountain phone story price engine team election paper "
    "ticket bridge sister winter flower breakfast"
)


def unrelated(rng: random.Random) -> str:
    """A sentence-like string about something else: common words, sometimes made-up ones."""
    common = _COMMON.split()
    said = [_made_up(rng) if rng.random() < 0.2 else rng.choice(common) for _ in range(rng.randint(1, 12))]
    return " ".join(said).capitalize() + "."


def _made_up(rng: random.Random) -> str:
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice(("a", "e", "i", "o", "u", "ea", "ou"))
        for _ in range(rng.randint(1, 4))
    ) + rng.choice(("", "n", "s", "t", "ing", "ed", "er"))
