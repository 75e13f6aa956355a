"""A person moves the alias, and the move is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import world
from fakes.registry import MemoryRegistry
from viper.cli import main
from viper.errors import InputError
from viper.local import RunDirectory
from viper.registry.tags import PARENT_VERSION
from viper.store import DirectoryStore


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    """Three versions, each made from the one before, with the alias at the second."""
    memory = MemoryRegistry()
    for number in (1, 2, 3):
        memory.register("m", f"file:///{number}", f"sha256:{number}")
        if number > 1:
            memory.set_tags("m", number, {PARENT_VERSION: number - 1})
    memory.promote("m", "generator", 2, expected=None)
    monkeypatch.setattr("viper.registry.existing_registry", lambda _uri: memory)
    return memory


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    RunDirectory(tmp_path).open(world.iteration(), None, None)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "version"),
    [(["promote"], 3), (["promote", "1"], 1), (["rollback"], 1), (["rollback", "3"], 3)],
    ids=["promote", "promote-1", "rollback", "rollback-3"],
)
def test_the_alias_moves_to_the_version(
    run_dir: Path, registry: MemoryRegistry, arguments: list[str], version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *rest = arguments
    assert main([command, str(run_dir), *rest, "--reason", "looks better"]) == 0
    assert registry.get_alias("m", "generator") == version
    assert capsys.readouterr().out == f"m@generator: version 2 → version {version}\n"
    (note,) = [v for k, v in registry.get("m", version).tags.items() if k.startswith("viper.alias_move.")]
    assert f"generator: version 2 to {version}, {'promoted' if command == 'promote' else 'rolled back'} by " in note
    assert note.endswith("looks better")


def test_it_locks_in_the_store_of_the_run(run_dir: Path, registry: MemoryRegistry) -> None:
    (run_dir / "store").mkdir()
    assert main(["rollback", str(run_dir)]) == 0
    assert [info.key for info in DirectoryStore(run_dir / "store").list()] == ["locks/m@generator/000000001.json"]


def test_a_version_that_does_not_exist_is_refused(
    run_dir: Path, registry: MemoryRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["promote", str(run_dir), "9"]) == 5
    assert registry.get_alias("m", "generator") == 2
    assert "no version 9" in capsys.readouterr().err


def test_rolling_back_the_first_version_asks_for_a_version(run_dir: Path, registry: MemoryRegistry) -> None:
    main(["promote", str(run_dir), "1"])
    assert main(["rollback", str(run_dir)]) == InputError.exit_code
    assert registry.get_alias("m", "generator") == 1
