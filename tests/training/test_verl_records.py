"""What is read out of verl's files: metrics, checkpoints, dumps, logs. Pure, or on files that were written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from viper.errors import StageError
from viper.training.verl import checkpoints as cp
from viper.training.verl.metrics import Tail, diverged, recorded, step_of, step_values
from viper.training.verl.rollouts import dump_row, missing_outputs, read_dump, rollout_rows, rollout_values
from viper.training.verl.watchdog import Signs, disk_full, explain, last_error, verdict

# -- metrics -----------------------------------------------------------------------------------------------------------


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert list(tail.rows()) == []
    path.write_bytes(b'{"step": 1}\n{"st')
    assert list(tail.rows()) == [{"step": 1}]
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert list(tail.rows()) == [{"step": 2}]
    assert list(tail.rows()) == []


def test_verls_names_become_ours_and_what_is_not_finite_is_found() -> None:
    data = {
        "training/global_step": 3,
        "actor/pg_loss": 0.5,
        "actor/grad_norm": None,
        "a@1:b": 2,
        "text": "x",
        "yes": True,
    }
    values = step_values(data)
    assert values["loss"] == 0.5
    assert values["verl/a_1_b"] == 2.0
    assert {"verl/text", "verl/yes"}.isdisjoint(values)
    assert diverged(values) == "grad_norm nan"
    assert diverged({"loss": 1.0}) == "grad_norm nan"
    assert diverged({"loss": 1.0, "grad_norm": float("inf")}) == "grad_norm inf"
    assert diverged({"loss": 1.0, "grad_norm": 0.0}) == ""
    assert "grad_norm" not in recorded(values)
    assert step_of({"step": 0, "data": {"val-core/x": 1}}) is None
    assert step_of({"step": 3, "data": data}) == 3


# -- checkpoints -------------------------------------------------------------------------------------------------------


def write_checkpoint(root: Path, step: int, world_size: int = 2) -> Path:
    folder = cp.step_dir(root, step)
    (folder / "actor" / "huggingface").mkdir(parents=True)
    names = [
        f"actor/{k}_world_size_{world_size}_rank_{r}.pt" for k in ("model", "optim", "extra_state") for r in (0, 1)
    ]
    for name in (*names, "data.pt", "actor/huggingface/config.json", "actor/huggingface/model.safetensors"):
        (folder / name).write_bytes(f"{name} {step}".encode())
    (folder / "actor" / "fsdp_config.json").write_text(json.dumps({"world_size": world_size}), "utf-8")
    return folder


STATE = {"fingerprint": "f", "metrics": 0, "rollouts": 0}


@pytest.mark.parametrize(
    "name",
    [
        "data.pt",
        "actor/fsdp_config.json",
        "actor/model_world_size_2_rank_1.pt",
        "actor/extra_state_world_size_2_rank_0.pt",
        "actor/huggingface/config.json",
        "actor/huggingface/model.safetensors",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_checkpoint_that_lacks_a_file_is_not_declared_good(tmp_path: Path, name: str, damage: str) -> None:
    folder = write_checkpoint(tmp_path, 4)
    (folder / name).unlink()
    if damage == "empty":
        (folder / name).touch()
    with pytest.raises(StageError, match="the checkpoint of step 4 lacks"):
        cp.confirm(tmp_path, 4, STATE)
    assert cp.confirmed(tmp_path, "f") is None


def test_the_newest_one_that_is_still_as_it_was_counts(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        folder = write_checkpoint(tmp_path, step)
        cp.confirm(tmp_path, step, STATE)
    write_checkpoint(tmp_path, 12)  # saved, not in the log
    assert (cp.confirmed(tmp_path, "f") or {})["step"] == 10
    with (folder / "actor" / "optim_world_size_2_rank_1.pt").open("ab") as file:
        file.write(b"overwritten half way")
    assert (cp.confirmed(tmp_path, "f") or {})["step"] == 4
    with pytest.raises(StageError, match="other settings"):
        cp.confirmed(tmp_path, "g")


#: What a file of a checkpoint that came from the store may hold, in place of what we or verl wrote.
NOT_OURS = ["", "[]", "null", '"x"', "1", "{", "[" * 50_000, '{"a":' * 50_000, '{"world_size": 1e400}', "\0", "{}"]
WORLD_SIZES = ["null", '"2"', "-1", "0", "1", "[2]", "2.5", "true", "1e400", "9" * 30, "9" * 9, "{}"]
STATES = [
    *({**STATE, "step": 4, "files": files} for files in (None, [], {}, 1)),
    *({**STATE, "step": step} for step in (None, "4", -4, 5, 4.5, True, [4])),
    *({**STATE, name: size} for name in ("metrics", "rollouts") for size in (None, "0", -1, 0.5, [])),
    *(
        {**STATE, "scores": scores}
        for scores in ([], None, {"a": 1}, {"-1": 1}, {"1": "x"}, {"1": None}, {"9" * 99: 1})
    ),
    {"fingerprint": "f"},
]


@pytest.mark.parametrize("name", ["state.json", "actor/fsdp_config.json"])
@pytest.mark.parametrize("text", NOT_OURS, ids=lambda text: repr(text[:9]))
def test_a_checkpoint_with_a_file_that_is_not_ours_is_passed_over(tmp_path: Path, name: str, text: str) -> None:
    if (name, text) == ("state.json", "{}"):
        text = '{"fingerprint": "f"}'
    _passed_over(tmp_path, lambda folder: (folder / name).write_text(text, "utf-8"))


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_checkpoint_of_so_many_gpus_is_passed_over(tmp_path: Path, size: str) -> None:
    _passed_over(tmp_path, lambda folder: (folder / "actor/fsdp_config.json").write_text(f'{{"world_size": {size}}}'))


@pytest.mark.parametrize("changed", STATES, ids=str)
def test_a_checkpoint_whose_state_is_none_is_passed_over(tmp_path: Path, changed: dict[str, object]) -> None:
    def change(folder: Path) -> None:
        path = folder / "state.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed} if len(changed) > 1 else changed))

    _passed_over(tmp_path, change)


def _passed_over(root: Path, change: Callable[[Path], object]) -> None:
    """The one before it counts. Files that were changed are taken into the state, as whoever changes them could."""
    for step in (2, 4):
        write_checkpoint(root, step)
        cp.confirm(root, step, STATE)
    folder = cp.step_dir(root, 4)
    change(folder)
    with suppress(ValueError, RecursionError, TypeError, KeyError):
        state = json.loads((folder / "state.json").read_text())
        if state["files"] and isinstance(state["files"], dict):
            (folder / "state.json").write_text(json.dumps({**state, "files": cp.sizes(folder)}))
    assert (cp.confirmed(root, "f") or {})["step"] == 2


def test_verl_is_pointed_at_a_checkpoint_and_finds_none_that_is_newer(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step)
    for step in (2, 4):
        cp.confirm(tmp_path, step, STATE)
    cp.point_at(tmp_path, 4)
    assert (tmp_path / cp.TRACKER).read_text("utf-8") == "4"
    assert cp.steps(tmp_path) == [2, 4]
    cp.point_at(tmp_path, 0)
    assert (cp.steps(tmp_path), (tmp_path / cp.TRACKER).exists()) == ([], False)


def test_pruning_needs_no_memory_of_what_was_written(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        write_checkpoint(tmp_path, step)
    for step in (2, 4, 6):
        cp.confirm(tmp_path, step, STATE)
    cp.prune(tmp_path)
    assert cp.steps(tmp_path) == [4, 6, 8]  # 8 may be in the making


def test_kept_weights_outlive_their_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", 2)
    kept = tmp_path / "candidates" / "global_step_2"
    cp.keep_weights(tmp_path / "c", 2, kept)
    cp.keep_weights(tmp_path / "c", 2, kept)
    names = sorted(p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file())
    assert names == [
        "fsdp_config.json",
        "huggingface/config.json",
        "huggingface/model.safetensors",
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    ]
    import shutil

    shutil.rmtree(folder)
    assert (kept / "huggingface" / "model.safetensors").read_bytes() == b"actor/huggingface/model.safetensors 2"
    cp.drop_others(tmp_path / "candidates", [])
    assert not kept.exists()


# -- what was sampled --------------------------------------------------------------------------------------------------


def row(prompt: int, output: int, score: float, **measures: float) -> dict[str, object]:
    named = {"format": 1, "correctness": score, "recall": 0.5, "items": 2, "duplicates": 0, "finished": 1, **measures}
    truth = json.dumps({"sample_id": f"s{prompt}", "generator": "g", "sentences": ["a", "b"]})
    text = f"o{output}"
    return dump_row(f"uid-{prompt}_{output}_0", output=text, tokens=4, score=score, measures=named, ground_truth=truth)


def test_outputs_are_joined_to_their_samples_with_the_advantage_they_had() -> None:
    dump = [row(0, 0, 0.0), row(0, 1, 1.0, finished=0), row(1, 0, 0.5), row(1, 1, 0.5)]
    rows = rollout_rows(dump, 7, 2)
    assert [(r["sample_id"], r["generator"], r["ground_truth"]) for r in rows[1:3]] == [
        ("s0", "g", ["a", "b"]),
        ("s1", "g", ["a", "b"]),
    ]
    assert [r["finished"] for r in rows] == [True, False, True, True]
    assert rows[0]["advantage"] == pytest.approx(-(0.5**0.5), abs=1e-3)
    assert [r["advantage"] for r in rows[2:]] == [0.0, 0.0]
    values = rollout_values(dump, 2)
    assert (values["reward/mean"], values["groups/signal"], values["output/finished"]) == (0.5, 0.5, 0.75)
    assert values["shadow/distinct"] == 0.5


@pytest.mark.parametrize(
    ("keys", "whole"),
    [
        (["a_0_0", "a_1_0", "b_0_0", "b_1_0"], True),
        (["a_0_0", "a_1_0", "b_0_0"], False),
        (["a_0_0", "a_1_0", "b_0_0", "a_2_0"], False),
        (["a_0_0", "a_1_0"], False),
        ([], False),
    ],
)
def test_a_batch_without_all_its_outputs_is_not_trained_on(keys: list[str], whole: bool) -> None:
    assert (missing_outputs(keys, prompts=2, group=2) == "") is whole


def test_a_dump_that_is_not_whole_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="0 of 2 outputs"):
        read_dump(tmp_path / "1.jsonl", 2)


# -- the watchdog ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        (Signs(1, None, True), "wait"),
        (Signs(99, None, True), "stalled"),
        (Signs(99, 0, True), "ended"),
        (Signs(1, None, False), "reward"),
        (Signs(1, 1, False), "ended"),
    ],
)
def test_when_a_run_is_stopped(signs: Signs, expected: str) -> None:
    assert verdict(signs, 60) == expected


def test_what_is_said_about_a_run() -> None:
    assert (
        explain("stalled", None, 60, "at step 3 of 9")
        == "verl made no progress for 60 s and was stopped at step 3 of 9"
    )
    log = [
        "(TaskRunner pid=1) Traceback (most recent call last):",
        "(TaskRunner pid=1) ValueError: the first",
        "ray.exceptions.RayTaskError: the last",
        "(pid=2) progress: 3 of 4",
    ]
    assert last_error(log) == "ray.exceptions.RayTaskError: the last"
    assert last_error(log[:2]) == "ValueError: the first"
    assert last_error(["step:1 - loss:0.1"]) == ""
    assert disk_full(["(x pid=1) OSError: [Errno 28] No space left on device"], 1 << 40, 0)
    assert disk_full(["RuntimeError: [enforce fail] . PytorchStreamWriter failed writing file data/1"], 1 << 25, 0)
    assert not disk_full(["RuntimeError: [enforce fail] . PytorchStreamWriter failed writing file data/1"], 1 << 40, 0)
    assert disk_full(["Error execut"], 1 << 25, 1 << 26)  # the log is on that disk, too
    assert not disk_full(["ValueError"], 1 << 26, 1 << 26)
    assert disk_full([], 0, 0)


def test_the_size_of_a_checkpoint_is_that_of_the_newest_good_one(tmp_path: Path) -> None:
    assert cp.size_of_newest(tmp_path) == 0
    for step in (2, 4):
        folder = write_checkpoint(tmp_path, step)
        cp.confirm(tmp_path, step, STATE)
    write_checkpoint(tmp_path, 6)
    assert cp.size_of_newest(tmp_path) == sum(cp.sizes(folder).values()) > 0
