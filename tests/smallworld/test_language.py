"""The language loses nothing: every sentence reads back as what it was written from."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.smallworld import language
from viper.smallworld.language import Described
from viper.smallworld.scenes import Scene, random_scene, scene_from_seed

scenes = st.integers(0, 2**32).map(lambda seed: random_scene(random.Random(seed)))


@given(scenes)
def test_a_caption_reads_back_as_its_scene(scene: Scene) -> None:
    assert language.parse_caption(language.caption(scene)) == Described(scene.background, scene.things)


@given(scenes, scenes)
def test_correcting_every_flaw_of_any_caption_gives_the_truth(said: Scene, truth: Scene) -> None:
    described = Described(said.background, said.things)
    for flaw in language.flaws(said, truth):
        read = language.parse_flaw(language.flaw_sentence(flaw))
        assert read == flaw
        described = language.correct(described, read)
    assert described == Described(truth.background, truth.things)


@given(scenes)
def test_a_true_caption_has_no_flaw(scene: Scene) -> None:
    assert language.flaws(scene, scene) == []


@given(scenes, st.integers(0, 2**32), st.sampled_from(language.CATEGORIES))
def test_an_operation_is_recoverable_from_the_scenes_before_and_after(
    scene: Scene, seed: int, category: language.Category
) -> None:
    operation = language.random_operation(random.Random(seed), scene, category)
    assert language.category(operation) == category
    assert language.parse_operation(language.operation_sentence(operation)) == operation
    after = language.apply(scene, operation)
    assert after is not None
    assert language.difference(scene, after) == operation


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Remove the red ring at top left.",
        "Remove the small striped red ring.",
        "Move the small striped red ring at top left to top left.",
        "Change the background from smooth gray to smooth gray.",
        "Change the color of the object at top left from red to striped.",
        "Change the color of the object at top left from red to red.",
        "Please remove the small striped red ring at top left.",
    ],
)
def test_an_instruction_outside_the_language_reads_as_none(text: str) -> None:
    assert language.parse_operation(text) is None


def test_an_operation_on_what_is_not_there_gives_no_scene() -> None:
    scene = scene_from_seed(1)
    cell, other = scene.occupied[0], scene.occupied[1]
    absent = scene.thing(cell).changed("color", "red" if scene.thing(cell).color != "red" else "blue")
    assert language.apply(scene, language.Remove(cell, absent)) is None
    assert language.apply(scene, language.Add(cell, absent)) is None
    assert language.apply(scene, language.Move(cell, other, scene.thing(cell))) is None


def test_later_sentences_about_a_cell_win_and_foreign_sentences_are_skipped() -> None:
    read = language.parse_caption("At top is a big plain red ring. Hello there. At top is a small plain blue cross.")
    assert read.background is None
    assert [thing and language.thing_words(thing) for thing in read.things][1] == "small plain blue cross"
    assert sum(thing is not None for thing in read.things) == 1


@given(st.text())
def test_any_text_can_be_read_without_error(text: str) -> None:
    language.parse_caption(text)
    assert language.parse_flaw(text) is None
    assert language.parse_operation(text) is None
