"""From validated rows to RL samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_fakes import SCHEMA, model_directory, open_stage, validated

from viper.errors import StageError
from viper.methods.stages import TRAIN_CAPTIONS, TRAIN_MIXED, TRAIN_OPERATIONS, VALIDATE_CAPTIONS, StageNode
from viper.prompts import PromptSet
from viper.stage import StageContext
from viper.stage.rows import row_of
from viper.store import open_store
from viper.tasks.captions.validation import CaptionSample
from viper.tasks.operations.validation import OperationSample
from viper.training.data import Split, caption_sample, interleave, operation_sample, training_data

PROMPTS = PromptSet.load("smallworld")


def load(folder: Path, stage: str, rows: int = 20, **recipe: str) -> Split:
    ctx = open_stage(open_store(folder), folder / "work", stage, model_directory(folder / "m"), rows, recipe)
    return training_data(ctx, ctx.frozen.node(ctx.stage), PROMPTS)


def test_a_caption_row_asks_for_its_flaws() -> None:
    sample = caption_sample(row_of(CaptionSample, validated(3)), PROMPTS).decoded()
    assert "At top is a small plain red ring." in sample.prompt
    assert sample.prompt == PROMPTS.render("caption_refining", caption="At top is a small plain red ring.")
    assert sample.ground_truth == ("At top the color is blue.", "At left is nothing.")
    assert (len(sample.images), sample.images[0].size, sample.images[0].mode) == (1, (96, 96), "RGB")
    assert (sample.sample_id, sample.extra["task"]) == ("sample-3", "captions")


def test_a_caption_with_a_models_marks_in_it_stands_for_no_image_and_ends_no_message() -> None:
    caption = (
        "A sign says <|image_pad|>, <image> and <|im_end|>; 3 <| 4 |> 2. [INST] <<SYS>><｜User｜><IMG_CONTEXT> <s>"
    )
    prompt = caption_sample(row_of(CaptionSample, validated(3, caption=caption)), PROMPTS).prompt
    assert "A sign says < |image_pad|>, < image> and < |im_end|>; 3 <| 4 |> 2." in prompt
    assert "2. [ INST] < <SYS>>< ｜User｜>< IMG_CONTEXT> <s>" in prompt


def test_an_operation_row_shows_both_images_and_asks_for_the_instruction_in_sentences() -> None:
    row = row_of(OperationSample, validated(3))
    sample = operation_sample(row, PROMPTS).decoded()
    assert sample.ground_truth == ("Remove the ring.", "Then stop.")
    assert [i.getpixel((0, 0)) for i in sample.images] == [
        operation_sample(row_of(OperationSample, validated(3, image=data)), PROMPTS)
        .decoded()
        .images[0]
        .getpixel((0, 0))
        for data in (row.image, row.edited)
    ]


def test_accepted_rows_are_split_as_validation_split_them(tmp_path: Path) -> None:
    split = load(tmp_path, TRAIN_CAPTIONS)
    numbers = [i for i in range(20) if i % 7 != 6]
    assert [s.sample_id for s in split.train] == [f"sample-{i}" for i in numbers if i % 5 != 4]
    assert [s.sample_id for s in split.held_out] == [f"sample-{i}" for i in numbers if i % 5 == 4]


def test_slices_are_datasets_too(tmp_path: Path) -> None:
    train = load(tmp_path, TRAIN_OPERATIONS).train
    assert [s.sample_id for s in train[1:3]] == [train[1].sample_id, train[2].sample_id]
    assert len(train[:0]) == 0


def test_mixed_training_spreads_both_tasks_evenly_and_always_alike(tmp_path: Path) -> None:
    first = load(tmp_path, TRAIN_MIXED, stages="mixed").train
    tasks = [s.extra["task"] for s in first]
    assert tasks.count("captions") == 14
    assert tasks.count("operations") == 14
    assert abs(tasks[:10].count("captions") - 5) <= 1
    again = load(tmp_path, TRAIN_MIXED, stages="mixed").train
    assert [s.sample_id for s in first] == [s.sample_id for s in again]


def test_interleaving_keeps_the_order_of_each_source() -> None:
    assert interleave("abcd", "12") == ["a", "1", "b", "c", "2", "d"]
    assert interleave([], [1, 2]) == [1, 2]
    assert interleave([1], []) == [1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"refinement": []}, "sample-3 has no ground truth"), ({"split": "test"}, "sample-3 has the split 'test'")],
)
def test_a_row_that_cannot_be_learnt_from_is_named(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    ctx = open_stage(open_store(tmp_path), tmp_path / "work", TRAIN_CAPTIONS, model_directory(tmp_path / "m"))
    (tmp_path / "iterations/it/stages/validate-captions/manifest.json").unlink()
    validation = StageContext(ctx.frozen, ctx.store, VALIDATE_CAPTIONS, tmp_path)
    validation.write_part(1, [validated(3, **fields)], SCHEMA)
    validation.finish((), parts=2)
    with pytest.raises(StageError, match=words):
        training_data(ctx, ctx.frozen.node(ctx.stage), PROMPTS)


@pytest.mark.parametrize("task", ["", "mixed", "somebody's"])
def test_rows_for_a_task_that_nobody_here_learns_from_are_refused_before_any_is_read(tmp_path: Path, task: str) -> None:
    ctx = open_stage(open_store(tmp_path), tmp_path / "work", TRAIN_CAPTIONS, model_directory(tmp_path / "m"))
    nodes = [replace(n, stage=replace(n.stage, task=task)) if n.stage.quota else n for n in ctx.frozen.nodes]
    ctx.frozen = ctx.frozen.model_copy(update={"graph": tuple(nodes)})
    with pytest.raises(StageError, match=f"{VALIDATE_CAPTIONS}: its task {task!r} is none to learn from"):
        training_data(ctx, ctx.frozen.node(ctx.stage), PROMPTS)


def test_the_reader_of_rows_is_chosen_by_their_task_whatever_the_stage_is_called(tmp_path: Path) -> None:
    """A graph of somebody's own, in which the stage of the captions has another name."""
    ctx = open_stage(open_store(tmp_path), tmp_path / "work", TRAIN_CAPTIONS, model_directory(tmp_path / "m"))
    theirs = replace(ctx.frozen.node(VALIDATE_CAPTIONS).stage, name="somebodys")
    node = replace(ctx.frozen.node(ctx.stage), data=("somebodys",))
    ctx.frozen = ctx.frozen.model_copy(update={"graph": (StageNode(theirs), node)})
    validation = StageContext(ctx.frozen, ctx.store, "somebodys", tmp_path)
    validation.write_part(0, [validated(3)], SCHEMA)
    validation.finish((), parts=1)
    found = training_data(ctx, node, PROMPTS)
    assert [s.sample_id for s in (*found.train, *found.held_out)] == ["sample-3"]
