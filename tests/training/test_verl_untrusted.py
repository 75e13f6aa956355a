"""What came from the store is looked at before verl, which would execute it, sees it."""

from __future__ import annotations

import collections
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from viper.errors import InputError  # noqa: E402
from viper.training.verl.untrusted import check_checkpoint, check_model  # noqa: E402


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def harmless() -> dict[str, Any]:
    """What verl keeps: weights, AdamW's state, learning rate, random numbers, the position in the data."""
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    return {
        "weights": collections.OrderedDict(a=torch.ones(2, 3), b=parameter, c=torch.zeros(2)[::2]),
        "optimiser": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "lr": 1e-6},
        "scheduler": {"last_epoch": 3, "_last_lr": [1e-6], "base_lrs": (1e-6,), "verbose": False},
        "rng": {"cpu": torch.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()},
        "data": {
            "_snapshot": {"_num_yielded": 3},
            "shape": torch.Size([2]),
            "device": torch.device("cpu"),
            "none": None,
        },
    }


MARK = "executed"

#: Pickles that run something, or try to. None of it may leave the file `executed`.
CODE: dict[str, Callable[[], object]] = {
    "a command": lambda: Calls(os.system, f"touch {MARK}"),
    "python": lambda: Calls(exec, f"open({MARK!r}, 'w')"),
    "an expression": lambda: Calls(eval, f"open({MARK!r}, 'w')"),
    "a file": lambda: Calls(open, MARK, "w"),
    "a folder": lambda: Calls(os.mkdir, MARK),
    "deep inside": lambda: {"state": [{"a": (1, [Calls(os.mkdir, MARK)])}]},
    "as a key": lambda: {Calls(os.getcwd): 1},
    "beside tensors": lambda: {**harmless(), "x": Calls(os.mkdir, MARK)},
    "another pickle": lambda: Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, MARK))),
    "torch's own loader": lambda: Calls(torch.load, MARK),
    "torch.hub": lambda: Calls(torch.hub.load, "a/b", "c"),
    "an import": lambda: Calls(__import__, "antigravity"),
    "an attribute": lambda: Calls(getattr, os.PathLike, "mro"),
    "a partial": lambda: __import__("functools").partial(os.mkdir, MARK),
    "numpy's loader": lambda: Calls(np.load, MARK),
    "a class of ours": lambda: Path(MARK),
    "a module": lambda: torch.nn.Linear(1, 1),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(tmp_path: Path, value: object, name: str = "optim_world_size_1_rank_0.pt") -> Path:
    folder = tmp_path / "global_step_4"
    (folder / "actor").mkdir(parents=True, exist_ok=True)
    torch.save(value, folder / "actor" / name)
    return folder


def test_what_verl_keeps_is_taken(tmp_path: Path) -> None:
    folder = saved(tmp_path, harmless())
    torch.save({"_sampler_iter_yielded": 3}, folder / "data.pt")
    (folder / "actor" / "fsdp_config.json").write_text("{}")
    check_checkpoint(folder)


@pytest.mark.parametrize("what", CODE)
def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path: Path, what: str) -> None:
    folder = saved(tmp_path, CODE[what]())
    with pytest.raises(InputError, match=r"rank_0\.pt: the checkpoint is damaged, or holds more than data"):
        check_checkpoint(folder)
    assert not (tmp_path / MARK).exists()


def test_the_refusal_names_what_would_have_been_called(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"GLOBAL.*(posix|nt)\.system"):
        check_checkpoint(saved(tmp_path, Calls(os.system, "true")))


def _zip(*entries: tuple[str, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name, data in entries:
                file.writestr(name, data)

    return write


EVIL = pickle.dumps(Calls(os.mkdir, MARK), protocol=2)
GOOD = pickle.dumps({"a": 1}, protocol=2)
#: Files that are not the archive of torch.save.
FORMS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("<html>"),
    "a bare pickle": lambda path: path.write_bytes(EVIL),
    "the format of old": lambda path: torch.save(Calls(os.mkdir, MARK), path, _use_new_zipfile_serialization=False),
    "cut off": lambda path: (torch.save(harmless(), path), path.write_bytes(path.read_bytes()[:-400])),
    "an archive without a pickle": _zip(("archive/x", b"1")),
    "a program": _zip(("archive/data.pkl", GOOD), ("archive/constants.pkl", EVIL), ("archive/version", b"3\n")),
    "a pickle that never ends": _zip(("archive/data.pkl", GOOD[:-1]), ("archive/version", b"3\n")),
    "unknown opcodes": _zip(("archive/data.pkl", b"\x80\x02\xff."), ("archive/version", b"3\n")),
    "an extension": _zip(("archive/data.pkl", b"\x80\x02\x82\x01."), ("archive/version", b"3\n")),
}


@pytest.mark.parametrize("what", FORMS)
def test_what_is_no_archive_of_tensors_is_refused(tmp_path: Path, what: str) -> None:
    folder = saved(tmp_path, {})
    FORMS[what](folder / "actor" / "model_world_size_1_rank_0.pt")
    with pytest.raises(InputError, match=r"model_world_size_1_rank_0\.pt: the checkpoint is damaged"):
        check_checkpoint(folder)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("name", ["x.py", "x.pkl", "x.pth", "x.bin", "x.so", "sub/modeling.py", "x.npy", "run", ".pt"])
def test_other_files_do_not_belong_to_a_checkpoint(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path, {})
    (folder / "actor" / name).parent.mkdir(exist_ok=True)
    (folder / "actor" / name).write_bytes(EVIL)
    with pytest.raises(InputError, match="does not belong to a checkpoint"):
        check_checkpoint(folder)


@pytest.mark.parametrize("what", ["a link to a folder", "a link to a file", "a link to nothing", "a pipe"])
def test_a_checkpoint_consists_of_files_and_folders(tmp_path: Path, what: str) -> None:
    """A link could lead to what is not looked at, and is loaded; a pipe is never read to its end."""
    folder = saved(tmp_path, {})
    place = folder / "actor" / "extra_state_world_size_1_rank_0.pt"
    if what == "a link to a folder":
        place = folder / "actor2"
        saved(tmp_path / "elsewhere", Calls(os.mkdir, MARK))
        place.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    elif what == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(folder / "actor" / ("optim_world_size_1_rank_0.pt" if what == "a link to a file" else "none"))
    with pytest.raises(InputError, match="neither a file nor a folder of a checkpoint"):
        check_checkpoint(folder)


#: Files of a model directory, and whether it would run code.
MODELS: dict[str, tuple[dict[str, str], bool]] = {
    "a plain one": ({"config.json": '{"model_type": "qwen2_5_vl"}', "tokenizer_config.json": "{}"}, False),
    "a word that looks like it": ({"tokenizer_config.json": '{"chat_template": "auto_map"}'}, False),
    "classes in the tokenizer": ({"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["a.B", null]}}'}, True),
    "classes in the processor": ({"preprocessor_config.json": '{"x": [{"auto_map": {}}]}'}, True),
    "classes of another repository": ({"config.json": '{"auto_map": {"AutoConfig": "o/r--m.C"}}'}, True),
    "a Python file": ({"config.json": "{}", "tokenization_x.py": ""}, True),
    "a Python file further down": ({"config.json": "{}", "a/b.py": ""}, True),
    "no JSON": ({"tokenizer_config.json": "{"}, True),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_model_with_code_is_not_given_to_verl(tmp_path: Path, what: str) -> None:
    files, refused = MODELS[what]
    for name, text in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(text, "utf-8")
    if not refused:
        check_model(tmp_path / "model")
        return
    with pytest.raises(InputError, match=r"code|is not JSON"):
        check_model(tmp_path / "model")


def test_names_of_a_deep_file_are_found_without_recursion(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    deep = '{"a":' * 200 + json.dumps({"auto_map": 1}) + "}" * 200
    (tmp_path / "model" / "config.json").write_text(deep)
    with pytest.raises(InputError, match="auto_map"):
        check_model(tmp_path / "model")
