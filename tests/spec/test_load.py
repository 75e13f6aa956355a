"""Specification files: what is accepted, and what a person reads when one is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from viper.errors import SpecError
from viper.spec import ViperIteration, ViperLoop, load_resource, parse_resource
from viper.spec.load import KINDS, field_paths

MINIMAL: dict[str, Any] = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperIteration",
    "metadata": {"name": "first"},
    "spec": {
        "model": "small",
        "images": {"uri": "smallworld:scenes?count=10&seed=1"},
        "engines": {
            "reconstructor": "smallworld",
            "editor": "smallworld",
            "similarity": "smallworld",
            "imageSimilarity": "smallworld",
        },
    },
}


def edited(edit: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(MINIMAL))
    edit(data)
    return data


def message(data: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_resource(data, where="it.yaml")
    return str(caught.value)


def test_defaults_are_the_papers_values() -> None:
    iteration = parse_resource(MINIMAL)
    assert isinstance(iteration, ViperIteration)
    recipe = iteration.spec.recipe
    assert (recipe.captions.samples, recipe.operations.samples) == (7000, 3000)
    assert (recipe.stages, recipe.schedule, recipe.cold_start) == ("both", "interleaved", None)
    assert (recipe.reward.tau, recipe.reward.format_weight, recipe.reward.correct_weight) == (0.85, 0.05, 0.95)
    for training in (recipe.captions.training, recipe.operations.training):
        assert (training.batch_prompts, training.mini_batch_prompts, training.micro_batch) == (128, 64, 4)
        assert (training.group_size, training.temperature, training.learning_rate) == (5, 1.0, 1e-6)
        assert (training.max_prompt_tokens, training.max_response_tokens) == (10240, 4096)
        assert (training.clip_low, training.clip_high) == (0.2, 0.28)
    assert iteration.spec.promotion.policy == "Automatic"


def test_a_resolved_iteration_reads_back_as_itself() -> None:
    iteration = parse_resource(MINIMAL)
    assert parse_resource(iteration.dump()) == iteration


def test_unknown_field_is_named_with_its_path_and_nearest_name() -> None:
    text = message(edited(lambda d: d["spec"].update(recipe={"captions": {"training": {"learningrate": 1}}})))
    assert "spec.recipe.captions.training.learningrate: unknown field" in text
    assert "did you mean spec.recipe.captions.training.learningRate?" in text


def test_snake_case_is_not_silently_accepted() -> None:
    text = message(edited(lambda d: d["spec"].update(recipe={"cold_start": None})))
    assert "did you mean spec.recipe.coldStart?" in text


def test_field_at_the_wrong_level_is_found_elsewhere() -> None:
    text = message(edited(lambda d: d["spec"].update(editsPerImage=3)))
    assert "spec.editsPerImage: unknown field; did you mean spec.recipe.operations.editsPerImage?" in text


def test_every_problem_is_listed_at_once() -> None:
    def break_it(d: dict[str, Any]) -> None:
        d["spec"]["images"]["limit"] = -3
        d["spec"]["recipe"] = {"reward": {"tau": "high"}}
        del d["spec"]["engines"]["editor"]

    text = message(edited(break_it))
    assert text.startswith("it.yaml: 3 problems in ViperIteration")
    assert "spec.images.limit: Input should be greater than or equal to 1 (got -3)" in text
    assert "spec.recipe.reward.tau" in text
    assert "spec.engines.editor: required field is missing" in text


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda d: d.update(kind="ViperIterations"), "did you mean 'ViperIteration'?"),
        (lambda d: d.update(apiVersion="viper.dev/v1"), "use 'viper.dev/v1alpha1'"),
        (lambda d: d["metadata"].update(name="Not_A_Name"), "metadata.name"),
        (lambda d: d["spec"].update(generator={"alias": "a", "version": 1}), "exactly one of alias, version, uri"),
        (
            lambda d: d["spec"].update(generator={"version": 1, "initialUri": "file:///x"}),
            "initialUri only makes sense",
        ),
        (
            lambda d: d["spec"].update(recipe={"captions": {"training": {"batchPrompts": 100}}}),
            "batchPrompts (100) must be a multiple of miniBatchPrompts (64)",
        ),
        (
            lambda d: d["spec"].update(
                recipe={"operations": {"categoryBalance": {"targets": {"Attribute Tuning": 0.5}}}}
            ),
            "sum to 1",
        ),
        (lambda d: d["spec"].update(recipe={"validation": {"judge": {"votes": 2}}}), "votes must be odd"),
        (lambda d: d["spec"].update(profile={"stages": {"train": {}}}), "profile.stages names unknown stages"),
        (lambda d: d["spec"].update(recipe={"reward": {"tau": float("nan")}}), "spec.recipe.reward.tau"),
    ],
)
def test_impossible_values_say_what_is_possible(edit: Callable[[dict[str, Any]], Any], expected: str) -> None:
    assert expected in message(edited(edit))


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_anything_but_a_mapping_is_refused(data: Any) -> None:
    assert "expected one resource" in message(data)


def test_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no such file"):
        load_resource(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("spec: [1, 2")
    with pytest.raises(SpecError, match="is not valid YAML"):
        load_resource(broken)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is UTF-16"):
        load_resource(binary)


def loop(**spec: Any) -> ViperLoop:
    template = {**MINIMAL["spec"], "images": {"uri": "smallworld:scenes?count=1000", "limit": 100, "offset": 7}}
    resource = parse_resource({**MINIMAL, "kind": "ViperLoop", "spec": {"iterations": 3, "template": template, **spec}})
    assert isinstance(resource, ViperLoop)
    return resource


def test_a_loop_gives_each_iteration_its_own_name_seed_and_images() -> None:
    made = [loop().iteration(i) for i in (1, 2, 3)]
    assert [m.metadata.name for m in made] == ["first-1", "first-2", "first-3"]
    assert [m.spec.images.offset for m in made] == [7, 107, 207]
    assert [m.spec.recipe.seed for m in made] == [0, 1, 2]
    assert all(parse_resource(m.dump()) == m for m in made)


def test_a_loop_can_keep_the_same_images() -> None:
    assert loop(rotateImages=False).iteration(3).spec.images.offset == 7


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_is_documented(kind: str) -> None:
    def undocumented(model: Any, prefix: str = "") -> list[str]:
        from viper.spec.load import submodel

        found = []
        for name, field in model.model_fields.items():
            if not field.description:
                found.append(prefix + name)
            if (inner := submodel(field.annotation)) is not None:
                found += undocumented(inner, f"{prefix}{name}.")
        return found

    assert undocumented(KINDS[kind]) == []
    assert len(set(field_paths(KINDS[kind]))) > 50


def test_a_partial_block_keeps_the_greedy_default() -> None:
    recipe = {"captions": {"critique": {"maxTokens": 9}}, "validation": {"judge": {"sampling": {"maxTokens": 9}}}}
    iteration = parse_resource(edited(lambda d: d["spec"].update(recipe=recipe)))
    assert isinstance(iteration, ViperIteration)
    assert iteration.spec.recipe.captions.critique.temperature == 0.0
    assert iteration.spec.recipe.validation.judge.sampling.temperature == 0.0


def test_a_null_stands_for_a_field_that_is_not_set() -> None:
    written = edited(lambda d: d["spec"].update(recipe=None, suspend=None, images={"uri": "file:///i", "offset": None}))
    assert parse_resource(written) == parse_resource(edited(lambda d: d["spec"].update(images={"uri": "file:///i"})))
    resources = edited(lambda d: d["spec"].update(profile={"defaults": {"resources": {"limits": {"cpu": None}}}}))
    assert parse_resource(resources) == parse_resource(MINIMAL)
    assert "spec.model: required field is missing" in message(edited(lambda d: d["spec"].update(model=None)))


def test_numbers_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(
        yaml.safe_dump(MINIMAL) + "  recipe: {captions: {training: {learningRate: 1e-4, clipLow: 2.5E-1}}}\n"
    )
    iteration = load_resource(path)
    assert isinstance(iteration, ViperIteration)
    training = iteration.spec.recipe.captions.training
    assert (training.learning_rate, training.clip_low) == (1e-4, 0.25)
    text = message(edited(lambda d: d["spec"].update(recipe={"captions": {"training": {"learningRate": "1e-4"}}})))
    assert "valid number (got '1e-4')" in text


def test_a_whole_number_may_be_written_with_a_point() -> None:
    written = edited(lambda d: d["spec"]["images"].update(limit=3.0))
    assert parse_resource(written) == parse_resource(edited(lambda d: d["spec"]["images"].update(limit=3)))
    assert "spec.images.limit" in message(edited(lambda d: d["spec"]["images"].update(limit=3.5)))


def test_text_of_the_wrong_form_is_told_the_right_one_in_words() -> None:
    assert "spec.promotion.alias: must be letters, digits, '_' and '-', beginning with a letter (got 'a b')" in message(
        edited(lambda d: d["spec"].update(promotion={"alias": "a b"}))
    )


@pytest.mark.parametrize(
    ("length", "iterations", "fits"), [(48, 9, True), (49, 9, False), (46, 100, True), (46, 1000, False)]
)
def test_the_names_of_all_iterations_of_a_loop_fit(length: int, iterations: int, fits: bool) -> None:
    data = {**MINIMAL, "kind": "ViperLoop", "metadata": {"name": "a" * length}}
    data["spec"] = {"iterations": iterations, "template": MINIMAL["spec"]}
    if fits:
        assert isinstance(made := parse_resource(data), ViperLoop)
        assert parse_resource(made.iteration(iterations).dump()).metadata.name == f"{'a' * length}-{iterations}"
    else:
        assert "shorten it by 1" in message(data)


def test_a_suspended_loop_has_suspended_iterations() -> None:
    assert loop(suspend=True).iteration(1).spec.suspend
    assert not loop().iteration(1).spec.suspend


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", "small"),
        ("recipe.captions.samples", 7000),
        ("recipe.validation.nearDuplicateSimilarity", None),
        ("recipe.coldStart", None),
        ("recipe.coldStart.samplesUri", None),  # something on the way is not set
    ],
)
def test_a_path_says_what_is_set_there(path: str, value: object) -> None:
    assert parse_resource(MINIMAL).spec.value_at(path) == value


@pytest.mark.parametrize(
    "path", ["", "recipe.", "recipe.cold_start", "recipe.captions.sample", "model.name", "images.uri.x"]
)
def test_a_path_that_no_specification_has_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="there is no setting"):
        parse_resource(MINIMAL).spec.value_at(path)
