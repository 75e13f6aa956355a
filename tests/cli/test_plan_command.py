"""`viper plan` as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from viper.cli import main
from viper.costs import Measurement
from viper.costs.demand import acceptance_key, speed_key
from viper.costs.table import default_table
from viper.methods.stages import stage_graph
from viper.spec import ViperIteration, load_resource
from viper.store import DirectoryStore

EXAMPLES = Path(__file__).parents[2] / "examples"
SEVEN, EIGHT_STEPS, DEMO = (EXAMPLES / f"{n}.yaml" for n in ("qwen-viper-7b", "qwen-viper-8step", "demo"))


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["plan", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def data(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(planned(capsys, *arguments, "-o", "json"))


def hours(plan: Any, stage: str = "") -> list[float]:
    one = plan["iteration"]
    found = next(s for s in one["stages"] if s["name"] == stage) if stage else one
    return list(found["gpuHours"])


def altered(tmp_path: Path, source: Path, **spec: Any) -> Path:
    document = yaml.safe_load(source.read_text())
    document["spec"] |= spec
    file = tmp_path / "altered.yaml"
    file.write_text(yaml.safe_dump({**document, "spec": {k: v for k, v in document["spec"].items() if v is not None}}))
    return file


def test_it_shows_every_stage_and_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    out = planned(capsys, SEVEN, "--questions", 1000)
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    for stage in ("ingest-images", "synthesize-captions", "validate-operations", "train-operations", "evaluate"):
        assert stage in lines
    assert lines["synthesize-captions"].split()[-1].count("–") == 1
    assert "8×1" in lines["synthesize-captions"]
    assert "1×8" in lines["train-captions"]
    assert "GB" in lines["in"]
    assert "train-captions: train published for H100" in out
    assert "validate-operations: compare assumed; write assumed; acceptance assumed" in out


def test_the_sum_of_the_stages_is_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    one = data(capsys, SEVEN)["iteration"]
    for what in ("gpuHours", "money", "bytes", "wallSeconds"):
        for end in (0, 1):
            amounts = [s[what][end] for s in one["stages"] if s[what] is not None]
            assert one[what][end] == pytest.approx(sum(amounts), rel=1e-4)


def test_a_loop_is_held_against_its_budget(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = planned(capsys, EIGHT_STEPS)
    assert "All 3 iterations:" in out
    assert "Budget: 600 GPU-hours, enough for" in out
    small = altered(tmp_path, EIGHT_STEPS, budget={"gpuHours": 1})
    assert "not enough for a single iteration; raise budget.gpuHours" in planned(capsys, small)
    assert data(capsys, small)["budget"] == {"gpuHours": 1, "iterations": [0, 0]}
    large = altered(tmp_path, EIGHT_STEPS, budget={"gpuHours": 1e6})
    assert "enough for all iterations" in planned(capsys, large)


def test_distilled_weights_make_synthesis_many_times_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    printed, distilled = data(capsys, SEVEN), data(capsys, EIGHT_STEPS)
    assert hours(distilled, "synthesize-captions")[1] < hours(printed, "synthesize-captions")[1] / 5
    assert hours(distilled, "train-captions") == hours(printed, "train-captions")


def test_the_profile_can_be_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert data(capsys, DEMO)["iteration"]["gpuHours"] == [0, 0]
    assert data(capsys, SEVEN, "--profile", "a100-8x")["gpu"] == "A100"
    assert data(capsys, SEVEN, "--gpu", "H100")["gpu"] == "H100"


def test_a_profile_that_is_only_named_is_looked_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    named = altered(tmp_path, SEVEN, profile=None, profileRef="a100-8x")
    assert hours(data(capsys, named)) == hours(data(capsys, SEVEN))
    unknown = altered(tmp_path, SEVEN, profile=None, profileRef="ours")
    assert main(["plan", str(unknown)]) == 2
    assert "profileRef: 'ours' is neither" in capsys.readouterr().err


def test_a_price_of_ones_own_makes_the_bill(capsys: pytest.CaptureFixture[str]) -> None:
    one = data(capsys, SEVEN, "--price-per-gpu-hour", "2.5")["iteration"]
    assert one["money"] == pytest.approx([2.5 * h for h in one["gpuHours"]], rel=1e-4)


def test_what_a_store_measured_replaces_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    resource = load_resource(SEVEN)
    assert isinstance(resource, ViperIteration)
    graph = stage_graph(resource.spec.recipe)
    node = next(n for n in graph if n.name == "synthesize-captions")
    made = Measurement(
        stage="synthesize-captions",
        iteration="before",
        identity="i",
        when=1.0,
        items=7000,
        rows=7000,
        accepted=6650,
        seconds=7000 * 50.0,
        shards=8,
        gpus=1,
        speed=speed_key(resource.spec, node, default_table()),
        quality=acceptance_key(resource.spec, node, graph),
    )
    DirectoryStore(tmp_path).put(made.key, made.model_dump_json(by_alias=True).encode())
    found = data(capsys, SEVEN, "--store", tmp_path.as_uri())
    stage = next(s for s in found["iteration"]["stages"] if s["name"] == "synthesize-captions")
    assert stage["secondsPerItem"] == pytest.approx([45, 55])
    assert stage["sources"][0] == "measured in before (n=7,000)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "abacus"], "'abacus' is not in the table"),
        (["--profile", "b100"], "'b100' is neither a profile"),
        (["--rates", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
    ],
)
def test_what_cannot_be_used_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["plan", str(SEVEN), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--price-per-gpu-hour", "-1"], ["--questions", "-1"], ["--questions", "many"]])
def test_amounts_are_numbers_that_make_sense(option: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", str(SEVEN), *option])


def test_a_profile_is_nothing_to_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    meta = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperProfile", "metadata": {"name": "p"}, "spec": {}}
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(meta))
    assert main(["plan", str(file)]) == 2
    assert "nothing to run" in capsys.readouterr().err


def test_questions_of_a_file_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text("{}\n{}\n\n{}\n")
    found = data(capsys, altered(tmp_path, SEVEN, evaluation={"questions": str(questions)}))
    assert next(s for s in found["iteration"]["stages"] if s["name"] == "evaluate")["items"] == [9, 12]


@pytest.mark.process
def test_planning_needs_no_deep_learning() -> None:
    code = (
        "import sys\nfrom viper.cli import main\n"
        f"main(['plan', {str(SEVEN)!r}])\n"
        "print([m for m in ('torch', 'mlflow', 'transformers') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
