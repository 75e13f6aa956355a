"""`viper-registry`, the program that moves an alias for a person."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.registry import MemoryRegistry
from viper.registry import Registry, sqlite_uri
from viper.registry.tags import PARENT_VERSION
from viper.store import DirectoryStore
from viper_jobs.registry import main

COMMON = ["--tracking", "http://mlflow", "--model", "m", "--alias", "generator", "--by", "jane"]


@pytest.fixture
def memory() -> MemoryRegistry:
    made = MemoryRegistry()
    for number in (1, 2):
        made.register("m", f"file:///{number}", f"sha256:{number}")
    made.set_tags("m", 2, {PARENT_VERSION: 1})
    made.promote("m", "generator", 2, expected=None)
    return made


@pytest.mark.parametrize(
    ("arguments", "version", "done"),
    [
        (["rollback"], 1, "rolled back by jane: charts"),
        (["rollback", "--version", "1"], 1, "rolled back by jane: charts"),
        (["promote", "--version", "1"], 1, "promoted by jane: charts"),
    ],
)
def test_it_moves_the_alias_and_says_so(
    memory: MemoryRegistry, arguments: list[str], version: int, done: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = [*arguments, *COMMON, "--reason", "charts", "--request", "r"]
    assert main(wish, registry=lambda _: memory) == 0  # type: ignore[arg-type, return-value]
    assert main(wish, registry=lambda _: memory) == 0  # type: ignore[arg-type, return-value]
    assert memory.get_alias("m", "generator") == version
    assert capsys.readouterr().out == "m@generator: version 2 → version 1\n" * 2
    assert memory.get("m", version).tags["viper.alias_move.r"].endswith(done)


def test_it_locks_in_the_store_of_the_installation(
    memory: MemoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPER_STORE", tmp_path.as_uri())
    assert main(["rollback", *COMMON], registry=lambda _: memory) == 0  # type: ignore[arg-type, return-value]
    (held,) = (
        json.loads((tmp_path / info.key).read_text()) for info in DirectoryStore(tmp_path).list("locks/m@generator/")
    )
    assert held["owner"].startswith("rolled back by jane (process ")
    assert held["released"] is True


def test_its_error_is_left_for_whoever_started_it(memory: MemoryRegistry, tmp_path: Path) -> None:
    log = tmp_path / "log"
    wish = ["promote", "--version", "9", *COMMON, "--termination-log", str(log)]
    assert main(wish, registry=lambda _: memory) == 5  # type: ignore[arg-type, return-value]
    assert json.loads(log.read_text()) == {"reason": "MissingError", "message": "m: no version 9"}


def test_it_moves_an_alias_of_mlflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sqlite_uri(tmp_path)
    registry = Registry(uri)
    for number in (1, 2):
        registry.register("m", f"file:///{number}", f"sha256:{number}", tags={PARENT_VERSION: number - 1})
    registry.promote("m", "generator", 2, expected=None)
    wish = ["rollback", "--tracking", uri, "--model", "m", "--alias", "generator", "--by", "jane", "--request", "r"]
    assert main(wish) == 0
    assert main(wish) == 0
    assert registry.get_alias("m", "generator") == 1
    assert capsys.readouterr().out == "m@generator: version 2 → version 1\n" * 2
