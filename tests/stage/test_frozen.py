"""What `iteration.json` is known by."""

from __future__ import annotations

import json

from fakes import world
from viper.stage import FrozenIteration

FROZEN = world.frozen("it")


def test_an_iteration_has_the_same_identity_before_and_after_it_is_stored() -> None:
    stored = FROZEN.model_dump_json(by_alias=True)
    assert FrozenIteration.read(stored.encode()).identity == FROZEN.identity
    assert FrozenIteration.of(json.loads(stored)) == FROZEN


def test_fields_that_a_later_version_adds_do_not_make_it_another_iteration() -> None:
    stored = FROZEN.dump()
    del stored["iteration"]["spec"]["profile"]["offline"]
    del stored["iteration"]["spec"]["recipe"]["partSize"]
    earlier = FrozenIteration.of(stored)
    assert earlier.iteration == FROZEN.iteration
    assert earlier.identity != FROZEN.identity
    content = {k: v for k, v in stored.items() if k != "tracking"}
    again = FrozenIteration.of({**content, "tracking": {"uri": "sqlite:////elsewhere", "parentRun": "s"}})
    assert again.identity == earlier.identity


def test_another_spec_is_another_iteration() -> None:
    assert world.frozen("it", recipe={"seed": 5}).identity != FROZEN.identity


def test_a_copy_with_another_generator_is_another_iteration_and_known_by_what_is_stored_of_it() -> None:
    other = FROZEN.generator.model_copy(update={"digest": "sha256:other"})
    copy = FROZEN.model_copy(update={"generator": other})
    assert copy.identity != FROZEN.identity
    assert FrozenIteration.read(copy.to_bytes()).identity == copy.identity
    assert FROZEN.model_copy().identity == FROZEN.identity
