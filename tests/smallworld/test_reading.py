"""The lenient reader shared by the reconstructor and the editor."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.smallworld import language
from viper.smallworld.reading import Mention, Unreadable, read_caption, read_instruction, terms
from viper.smallworld.scenes import CELLS, scene_from_seed


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("in the upper-left corner", "top left"),
        ("Top Right", "top right"),
        ("at the left, top", "top left"),
        ("in the centre", "center"),
        ("in the middle right cell", "right"),
        ("at the top center", "top"),
        ("on the lower side", "bottom"),
    ],
)
def test_places_are_understood_in_other_words(text: str, cell: str) -> None:
    assert [term.value for term in terms(text) if term.kind == "cell"] == [cell]


def test_every_caption_of_the_language_is_read_without_loss() -> None:
    for seed in range(200):
        scene = scene_from_seed(seed)
        reading = read_caption(language.caption(scene))
        assert reading.background == {"pattern": scene.background.pattern, "color": scene.background.color}
        assert [mention.cell for mention in reading.things] == list(scene.occupied)
        for mention in reading.things:
            assert mention.cell is not None
            thing = scene.thing(mention.cell)
            assert mention.attributes == {
                "size": thing.size,
                "texture": thing.texture,
                "color": thing.color,
                "shape": thing.shape,
            }


def test_a_free_caption_is_read_as_far_as_it_goes() -> None:
    text = (
        "What a day! There is a large violet doughnut in the upper left and a spotted box at the bottom; grey backdrop."
    )
    reading = read_caption(text)
    assert reading.background == {"color": "gray"}
    assert reading.things == (
        Mention({"size": "big", "color": "purple", "shape": "ring"}, CELLS.index("top left")),
        Mention({"texture": "dotted", "shape": "square"}, CELLS.index("bottom")),
    )


def test_a_denied_thing_is_not_mentioned() -> None:
    assert read_caption("At left is nothing. There is no ring at top.").things == ()


def test_every_operation_of_the_language_is_readable() -> None:
    rng = random.Random(0)
    for seed in range(300):
        operation = language.random_operation(rng, scene_from_seed(seed))
        read = read_instruction(language.operation_sentence(operation))
        assert read.verb == {"Add": "add", "Remove": "remove", "Move": "move"}.get(type(operation).__name__, "change")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with an operation"),
        ("The small ring at left.", "does not start with an operation"),
        ("Remove it.", "what to remove"),
        ("Remove the red blue ring at left.", "both red and blue"),
        ("Remove the ring at left at bottom.", "both left and bottom"),
        ("Move the ring at left.", "where to move"),
        ("Add something at left.", "a shape and a place"),
        ("Change the color of the object at left from red to big.", "no known color"),
        ("Change the background.", "to a known colour or pattern"),
        ("Remove the background.", "only be changed"),
    ],
)
def test_an_unreadable_instruction_says_why(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_instruction(text)


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    read_caption(text)
    with contextlib.suppress(Unreadable):
        read_instruction(text)
