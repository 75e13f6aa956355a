"""Wordings that the similarity model has never seen: new sentence forms, and in `NEW_WORDS` new synonyms too."""

from dataclasses import replace

from viper.smallworld.wordings import TRAINING

NEW_FORMS = replace(
    TRAINING,
    openings=(),
    templates={
        "thing": ["I see a {thing} {at}.", "{at} one sees a {thing}.", "There, {at}, is a {thing}."],
        "missing": [
            "The caption forgot a {thing} {at}.",
            "The {thing} {at} was forgotten.",
            "What is missing is a {thing} {at}.",
        ],
        "nothing": ["Nothing can be seen {at}.", "{at} I see no object.", "It is empty {at}."],
        "attribute": [
            "Really the object {at} is {value}.",
            "Its {attribute} is {value}, the object {at}.",
            "Actually the {attribute} {at} is {value}.",
        ],
        "background": [
            "There is a {pattern} {ground} background.",
            "The background is a {pattern} {ground} one.",
            "A {pattern} {ground} background is behind the objects.",
        ],
        "remove": ["Please remove the {thing} {at}.", "{at}, delete the {thing}.", "Remove the {thing} that is {at}."],
        "add": ["Please add a {thing} {at}.", "{at}, insert a {thing}.", "Add one {thing} {at}."],
        "move": [
            "Please move the {thing} {at} to {target}.",
            "From {cell} to {target}, shift the {thing}.",
            "Relocate the {thing} from {cell} to {target}.",
        ],
        "change": [
            "Please change the {attribute} of the object {at} from {value} to {new}.",
            "Turn the object {at} from {value} to {new}.",
            "I want the {attribute} {at} to go from {value} to {new}.",
        ],
        "repaint": [
            "Please change the background from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Alter the {pattern} {ground} background to {new_pattern} {new_ground}.",
            "I want the background to go from {pattern} {ground} to {new_pattern} {new_ground}.",
        ],
    },
)
"""Known words in sentence forms of their own."""

FREE_FORMS = replace(
    TRAINING,
    openings=(),
    templates={
        "thing": ["Look, a {thing} sits {at}.", "The item {at} happens to be a {thing}.", "{at} we have a {thing}."],
        "missing": [
            "There ought to be a {thing} {at}, but it is missing.",
            "You forgot the {thing} {at}.",
            "The {thing} that is {at} is not mentioned.",
        ],
        "nothing": ["There are no objects {at}.", "{at} you find an empty cell.", "The {cell} cell holds nothing."],
        "attribute": [
            "The {attribute} of what is {at} is {value}.",
            "For the object {at} the {attribute} is {value}.",
            "The object that is {at} is {value}.",
        ],
        "background": [
            "All of the background is {pattern} {ground}.",
            "Its background is {ground}, {pattern}.",
            "The objects stand on a {pattern} {ground} background.",
        ],
        "remove": [
            "The {thing} should be removed {at}.",
            "Someone took the {thing} {at} away.",
            "Let the {thing} {at} be removed.",
        ],
        "add": ["Someone put a {thing} {at}.", "There is a new {thing} {at}.", "Let a {thing} be added {at}."],
        "move": [
            "Someone moved the {thing} from {cell} to {target}.",
            "Let the {thing} go from {cell} to {target}.",
            "The {thing} that was {at} is moved to {target}.",
        ],
        "change": [
            "Someone changed the {attribute} of the object {at} from {value} to {new}.",
            "Let the {attribute} {at} go from {value} to {new}.",
            "The object {at} was {value}, make it {new}.",
        ],
        "repaint": [
            "Someone changed the background from {pattern} {ground} to {new_pattern} {new_ground}.",
            "Let the background go from {pattern} {ground} to {new_pattern} {new_ground}.",
            "The background was {pattern} {ground} and is now {new_pattern} {new_ground}.",
        ],
    },
)
"""Freer sentences, written when the weights were there already; some are near another fact ("there is a new …")."""

NEW_WORDS = replace(
    NEW_FORMS,
    synonyms={
        "small": ["smallish", "minuscule"],
        "big": ["biggish", "massive"],
        "striped": ["stripey", "banded"],
        "dotted": ["dotty", "freckled"],
        "red": ["reddish", "scarlet"],
        "green": ["greenish", "lime"],
        "blue": ["bluish", "cobalt"],
        "circle": ["circular", "roundel"],
        "triangle": ["triangular", "wedge"],
        "square": ["squarish", "block"],
    },
)
"""New sentence forms, and words that training never used for these values."""
