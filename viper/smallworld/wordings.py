"""The wordings that the similarity model learns from: each fact in many ways, and sentences about something else."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from functools import reduce
from itertools import permutations, product
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
    openings=(),
    attributes={},
)
"""Exactly the sentences of `viper.smallworld.language`."""

_NOUN: Final = ("object", "object", "thing", "item")
_AUXILIARY: Final = ("was", "has been")
_BACKGROUND: Final = ("background", "background", "backdrop")
_BE: Final = ("is", "is", "should be", "is actually", "must be")
_TEXT: Final = ("caption", "description", "text")
_REMOVE: Final = ("remove", "delete", "erase", "eliminate", "take away", "get rid of", "wipe out")
_ADD: Final = ("add", "insert", "put", "place", "draw", "include")
_MOVE: Final = ("move", "shift", "drag", "transfer", "bring")
_CHANGE: Final = ("change", "alter", "switch", "modify", "turn")


def _frames(*frames: str, **words: Sequence[str]) -> list[str]:
    """Every frame with every choice of words for its `<name>` places."""
    return [
        reduce(lambda text, pair: text.replace(f"<{pair[0]}>", pair[1]), zip(names, chosen, strict=True), frame)
        for frame in frames
        for names in [[name for name in words if f"<{name}>" in frame]]
        for chosen in product(*(words[name] for name in names))
    ]


def _orders(*chunks: str, **words: Sequence[str]) -> list[str]:
    """A frame for every order of the chunks: what a sentence says does not depend on which part comes first."""
    return _frames(*(" ".join(order) + "." for order in permutations(chunks)), **words)


TRAINING: Final = Phrasing(
    templates={
        "thing": _frames(
            "{at} <is> a {thing}.",
            "There is a {thing} {at}.",
            "A {thing} is {at}.",
            "A {thing} can be <seen> {at}.",
            "<One> can <see> a {thing} {at}.",
            "{at}: a {thing}.",
            "The <image> <shows> a {thing} {at}.",
            "{at} the <image> <shows> a {thing}.",
            "The object {at} is a {thing}.",
            **{"is": ("is", "is", "there is", "stands", "lies"), "seen": ("seen", "found"), "see": ("see", "find")},
            One=("You", "One"),
            image=("picture", "image"),
            shows=("shows", "has", "contains"),
        )
        + _orders("<is>", "a {thing}", "{at}", **{"is": ("is", "there is")}),
        "missing": _frames(
            "{at} a {thing} is <missing>.",
            "A {thing} is <missing> {at}.",
            "The <text> <omits> the {thing} {at}.",
            "{at} the <text> <omits> a {thing}.",
            "The {thing} {at} is <missing>.",
            "Missing: a {thing} {at}.",
            "{at} the {thing} was left out.",
            "The {thing} {at} was left out.",
            "{at} there should be a {thing}.",
            "It <omits> the {thing} {at}.",
            missing=("missing", "missing", "absent", "lacking"),
            omits=("omits", "lacks", "leaves out", "does not mention", "overlooks"),
            text=_TEXT,
        )
        + _orders("<missing>", "a {thing}", "{at}", missing=("is missing", "is absent", "was left out")),
        "nothing": _frames(
            "{at} is nothing.",
            "There is nothing {at}.",
            "Nothing is {at}.",
            "{at} there is no <noun>.",
            "No <noun> is {at}.",
            "The <cell> {at} is empty.",
            "{at} it is empty.",
            "{at} there is nothing at all.",
            "{at} the picture is empty.",
            "{at} the <cell> is <empty>.",
            "One finds nothing {at}.",
            noun=_NOUN,
            cell=("cell", "place", "spot"),
            empty=("empty", "free", "vacant"),
        )
        + _orders("nothing", "is", "{at}")
        + _orders("it is empty", "{at}"),
        "attribute": _frames(
            "{at} the {attribute} <be> {value}.",
            "The {attribute} {at} <be> {value}.",
            "The <noun> {at} is {value}.",
            "{at} the <noun> <be> {value}.",
            "The {attribute} of the <noun> {at} <be> {value}.",
            "What is {at} <be> {value}.",
            "The <noun> {at} has the {attribute} {value}.",
            "{at} the {attribute} is {value}, not something else.",
            be=_BE,
            noun=_NOUN,
        )
        + _orders("the {attribute}", "{at}", "is {value}")
        + _orders("the <noun> is {value}", "{at}", noun=_NOUN),
        "background": _frames(
            "The <background> <be> {pattern} {ground}.",
            "The <background> is {ground} and {pattern}.",
            "The {ground} <background> <be> {pattern}.",
            "The {pattern} <background> <be> {ground}.",
            "Everything is on a {pattern} {ground} <background>.",
            "It has a {pattern} {ground} <background>.",
            "Behind it all is a {pattern} {ground} <background>.",
            "The color of the {pattern} <background> is {ground}.",
            be=_BE,
            background=_BACKGROUND,
        )
        + _orders("the background", "is", "{pattern}", "{ground}")
        + _orders("a {pattern} {ground} background", "is there"),
        "remove": _frames(
            "<Remove> the {thing} {at}.",
            "<Remove> the {thing} {at}.",
            "Take the {thing} {at} away.",
            "Make the {thing} {at} disappear.",
            "The {thing} {at} <was> <removed>.",
            "{at}, remove the {thing}.",
            "{at} the {thing} <was> <removed>.",
            "The {thing} {at} has disappeared.",
            "The {thing} {at} is gone.",
            Remove=("Remove", "Delete", "Erase", "Eliminate", "Take away", "Get rid of", "Wipe out"),
            removed=("removed", "deleted", "erased", "taken away"),
            was=_AUXILIARY,
        )
        + _orders("<remove>", "the {thing}", "{at}", remove=_REMOVE),
        "add": _frames(
            "<Add> a {thing} {at}.",
            "<Add> a {thing} {at}.",
            "A {thing} <was> <added> {at}.",
            "{at}, add a {thing}.",
            "{at} a {thing} <was> <added>.",
            "<Add> a new {thing} {at}.",
            "A new {thing} appears {at}.",
            Add=("Add", "Insert", "Put", "Place", "Draw", "Include"),
            added=("added", "inserted", "placed", "drawn"),
            was=_AUXILIARY,
        )
        + _orders("<add>", "a {thing}", "{at}", add=_ADD),
        "move": _frames(
            "<Move> the {thing} {at} to {target}.",
            "<Move> the {thing} {at} to the {target}.",
            "<Move> the {thing} from {cell} to {target}.",
            "<Move> the {thing} from the {cell} to the {target}.",
            "The {thing} {at} <was> <moved> to {target}.",
            "The {thing} <was> <moved> from {cell} to {target}.",
            "The {thing} went from {cell} to {target}.",
            "Take the {thing} from {cell} and put it {to}.",
            "Put the {thing} that is {at} {to}.",
            "From {cell} to {target}, move the {thing}.",
            Move=("Move", "Shift", "Drag", "Transfer", "Bring"),
            moved=("moved", "shifted", "transferred", "brought"),
            was=_AUXILIARY,
        )
        + _orders("<move>", "the {thing}", "from {cell}", "to {target}", move=_MOVE),
        "change": _frames(
            "<Change> the {attribute} of the <noun> {at} from {value} to {new}.",
            "<Change> the {attribute} {at} from {value} to {new}.",
            "<Change> the <noun> {at} from {value} to {new}.",
            "<Change> the {value} <noun> {at} to {new}.",
            "Turn the {value} <noun> {at} {new}.",
            "Make the {value} <noun> {at} {new}.",
            "The <noun> {at} <was> <changed> from {value} to {new}.",
            "The {attribute} of the <noun> {at} <was> <changed> from {value} to {new}.",
            "The {attribute} of the <noun> {at} went from {value} to {new}.",
            "{at}, <change> the {attribute} from {value} to {new}.",
            "{at} the {attribute} <was> <changed> from {value} to {new}.",
            "Replace {value} by {new} as the {attribute} of the <noun> {at}.",
            Change=("Change", "Alter", "Switch", "Modify"),
            change=("change", "alter", "switch", "modify"),
            changed=("changed", "altered", "switched", "turned"),
            was=_AUXILIARY,
            noun=_NOUN,
        )
        + _orders("<change> the {attribute}", "{at}", "from {value}", "to {new}", change=_CHANGE)
        + _orders("<change> the <noun>", "{at}", "from {value}", "to {new}", change=_CHANGE, noun=_NOUN),
        "repaint": _frames(
            "<Change> the <background> from {pattern} {ground} to {new_pattern} {new_ground}.",
            "<Change> the {pattern} {ground} <background> <to> {new_pattern} {new_ground}.",
            "The <background> <was> <changed> from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Make the {pattern} {ground} <background> {new_pattern} {new_ground}.",
            "Replace the {pattern} {ground} <background> by a {new_pattern} {new_ground} one.",
            "<Change> the <background> from {ground} {pattern} to {new_ground} {new_pattern}.",
            "The {pattern} {ground} <background> becomes {new_pattern} {new_ground}.",
            Change=("Change", "Switch", "Turn"),
            changed=("changed", "switched", "turned"),
            to=("to", "into"),
            was=_AUXILIARY,
            background=_BACKGROUND,
        )
        + _orders(
            "<change> the background", "from {pattern} {ground}", "to {new_pattern} {new_ground}", change=_CHANGE
        ),
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
    openings=["In the picture,", "Now", "Look:", "In this image,", "It seems that", "Correction:", "You must know:"],
    attributes={
        "color": ["color", "color", "colour"],
        "texture": ["texture", "texture", "pattern"],
        "size": ["size"],
        "shape": ["shape", "shape", "form"],
    },
)

_COMMON_WORDS: Final = (
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


_SMALL_WORDS: Final = "a an the is are was be been has can of there that it at in on you one picture image"


def unrelated(rng: random.Random) -> str:
    """A sentence-like string about something else: common words, sometimes made-up ones."""
    said = [_stranger(rng) for _ in range(rng.randint(1, 12))]
    return " ".join(said).capitalize() + "."


def disturbed(text: str, rng: random.Random, known: Container[str]) -> str:
    """The same statement with one or two of its small words left out, replaced or joined by a word not in `known`,
    and sometimes with such words before it.

    It teaches that words which say nothing about the picture change nothing.
    """
    said, small = text.split(), _SMALL_WORDS.split()
    places = [place for place, word in enumerate(said) if word.lower() in small]
    for place in sorted(rng.sample(places, min(len(places), rng.randint(1, 2))), reverse=True):
        stranger = _stranger(rng)
        if stranger in known:
            continue
        said[place : place + 1] = rng.choice(([], [stranger], [stranger, said[place]]))
    opening = [word for word in (_stranger(rng) for _ in range(rng.choice((0, 0, 1, 2)))) if word not in known]
    return " ".join([*opening, *said])


def _stranger(rng: random.Random) -> str:
    return _made_up(rng) if rng.random() < 0.2 else rng.choice(_COMMON_WORDS.split())


def _made_up(rng: random.Random) -> str:
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice(("a", "e", "i", "o", "u", "ea", "ou"))
        for _ in range(rng.randint(1, 4))
    ) + rng.choice(("", "n", "s", "t", "ing", "ed", "er"))
