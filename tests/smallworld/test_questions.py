"""Held-out questions: fixed, balanced, disjoint, and about scenes that no training picture shows."""

import random
from collections import Counter

from viper.smallworld import questions
from viper.smallworld.making.lessons import fresh_scene
from viper.smallworld.questions import DOMAINS, FINE_GRAINED, is_held_out


def test_the_test_set_has_a_thousand_questions_of_which_six_hundred_are_fine_grained() -> None:
    domains = Counter(question.domain for question in questions.questions("test"))
    assert sum(domains.values()) == 1000
    assert domains[FINE_GRAINED] == 600
    assert set(domains) == set(DOMAINS)


def test_kinds_are_balanced_within_every_domain() -> None:
    kinds = Counter((question.domain, question.kind) for question in questions.questions("test"))
    for domain, names in DOMAINS.items():
        counts = [kinds[domain, name] for name in names]
        assert max(counts) - min(counts) <= 1


def test_no_attribute_value_dominates_the_answers() -> None:
    answers = Counter(question.answer for question in questions.questions("test") if question.kind == "shape")
    assert len(answers) == 6
    assert max(answers.values()) / 120 < 0.3


def test_selection_and_test_share_no_scene_and_no_id() -> None:
    selection, test = questions.questions("selection"), questions.questions("test")
    assert not {question.scene for question in selection} & {question.scene for question in test}
    assert len({question.question_id for question in selection + test}) == len(selection) + len(test)


def test_no_scene_that_trains_is_held_out() -> None:
    rng = random.Random(0)
    assert not any(is_held_out(fresh_scene(rng)) for _ in range(3000))
    assert all(is_held_out(question.scene) for question in questions.questions("selection"))


def test_answers_follow_from_the_scene() -> None:
    for question in questions.questions("test"):
        scene = question.scene
        if question.kind == "count":
            assert questions.NUMBERS[len(scene.occupied)] == question.answer
        elif question.kind in ("color", "shape", "size", "texture"):
            place = question.question.split(" at ")[1].rstrip("?")
            assert getattr(scene.things[questions.CELLS.index(place)], question.kind) == question.answer
        elif question.kind == "present":
            shape = question.question.rstrip("?").split()[-1]
            there = any(scene.thing(cell).shape == shape for cell in scene.occupied)
            assert question.answer == ("yes" if there else "no")
