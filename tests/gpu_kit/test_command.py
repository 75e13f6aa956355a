"""The command and the file that it writes, without anything that a part needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import Starter, _at_most
from viper.costs.device import load_report
from viper.costs.table import default_table, load_table

FIGURE = {
    **{"name": "drawing", "what": "", "unit": "s", "value": 0.25, "low": 0.24, "high": 0.27, "repetitions": 3},
    **{"sure": "medium", "why": "", "rate": {"work": "reconstruct", "engine": "qwen-image"}},
}


def test_the_file_is_a_report_at_every_moment(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    results = Results(file, tiny=False)
    assert load_table(file).rates == default_table().rates
    results.part("drawing", "running", 0)
    results.take(
        "drawing", {"device": {"backend": "cuda", "name": "NVIDIA H100", "memory": 1}, "versions": {"torch": "9"}}
    )
    results.take("drawing", {"figure": FIGURE})
    results.take("drawing", {"leftOut": "more: no memory"})
    read = load_report(file)
    assert (read.device.name, read.versions, [p.state for p in read.parts]) == (
        "NVIDIA H100",
        {"torch": "9"},
        ["running"],
    )
    assert [f.part for f in read.figures] == ["drawing"]
    assert not json.loads(file.read_text("utf-8"))["finished"]
    assert [f.name for f in tmp_path.iterdir()] == ["report.json"]


def test_a_report_is_shown_to_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path / "report.json", tiny=False)
    results.part("drawing", "running", 0)
    results.take("drawing", {"figure": FIGURE})
    results.part("drawing", "killed", 7.5, "killed by SIGKILL")
    results.finish(8)
    assert main(["table", str(results.path)]) == 0
    out = capsys.readouterr().out
    assert "drawing  0.25 s  0.24 s – 0.27 s  3  medium" in out
    assert "drawing: killed after 7.5 s\n    killed by SIGKILL" in out


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"device": 1, "started": 2, "seconds": 3}'])
def test_what_is_no_report_is_refused(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    assert main(["table", str(file)]) == 2
    assert "no report of the kit" in capsys.readouterr().err


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--only", "captions-7b,poetry"])
    assert "there is no part 'poetry'" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    def hang() -> None:
        while True:
            pass

    with pytest.raises(TimeoutError), _at_most(0.05):
        hang()
    with _at_most(60):
        pass
    starter = Starter(preload=True)
    assert starter.methods == ["forkserver", "spawn"]
    assert starter.give_up()
    assert starter.methods == ["spawn"]
    assert not starter.give_up()
