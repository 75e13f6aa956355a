"""The command line as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import world
from fakes.local import run_here
from viper.cli import VIPER, main
from viper.cli.explain import reference
from viper.local import LocalRun, RunDirectory, Stopped
from viper.spec import ViperIteration, parse_resource
from viper.store import open_store

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "mlflow", "pyarrow", "numpy", "trl", "pandas", "pydantic", "yaml")


def write(path: Path, **spec: Any) -> Path:
    file = path / "it.yaml"
    file.write_text(yaml.safe_dump(world.iteration(**spec).dump()), "utf-8")
    return file


@pytest.mark.process
def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom viper.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in sys.argv[1:] if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert all(f"\n    {name}" in done.stdout for name in VIPER.commands)
    assert done.stderr.strip() == "[]"


@pytest.mark.process
def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, viper\nprint([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rnu"])
    assert "'run'" in capsys.readouterr().err


def test_an_error_is_printed_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "it.yaml").write_text("kind: ViperIteratoin\n")
    assert main(["render", str(tmp_path / "it.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "did you mean 'ViperIteration'?" in error
    assert "Traceback" not in error


def test_render_prints_the_resolved_iteration_that_can_be_run_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", str(write(tmp_path, recipe={"seed": 4}))]) == 0
    out = capsys.readouterr().out
    rendered = parse_resource(yaml.safe_load(out))
    assert rendered == world.iteration(recipe={"seed": 4})
    assert "7. train-operations: after validate-operations, train-captions; policy: from train-captions" in out
    assert "viper-job synthesize-captions --iteration file:///" in out


def test_render_prints_every_setting_that_verl_will_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(ROOT / "examples" / "qwen-viper-7b.yaml"), "--dir", "/runs/seven"]) == 0
    out = capsys.readouterr().out
    captions, operations = out.split("python -m verl.trainer.main_ppo")[1:]
    for part, steps in ((captions, 312), (operations, 134)):  # 6 passes over 6,650 and 2,850 samples of 128 a step
        lines = [line.removeprefix("#").strip() for line in part.splitlines()]
        assert f"trainer.total_training_steps={steps}" in lines
        assert "actor_rollout_ref.actor.clip_ratio_high=0.28" in lines
        assert "actor_rollout_ref.actor.loss_agg_mode='seq-mean-token-mean'" in lines
        assert "trainer.n_gpus_per_node=8" in lines


def test_render_refuses_what_verl_could_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load((ROOT / "examples" / "qwen-viper-7b.yaml").read_text("utf-8"))
    spec["spec"]["engines"]["training"] = {"overrides": {"algorithm.adv_estimator": "gae"}}
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(spec))
    assert main(["render", str(tmp_path / "it.yaml")]) == 2
    assert "algorithm.adv_estimator is decided by the specification" in capsys.readouterr().err


def test_render_prints_every_iteration_of_a_loop_and_every_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = world.iteration(profile={"stages": {"synthesize-captions": {"shards": 2}}}).dump()["spec"]
    loop = {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {"name": "l"},
        "spec": {"iterations": 2, "template": template},
    }
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    assert main(["render", str(tmp_path / "loop.yaml")]) == 0
    out = capsys.readouterr().out
    assert [d["metadata"]["name"] for d in yaml.safe_load_all(out)] == ["l-1", "l-2"]
    assert out.count("--shard 1/2") == 2


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("spec.recipe.reward.tau", "default: 0.85"),
        ("spec.recipe.captions.training.groupSize", "outputs · ≥ 2, ≤ 64 · default: 5"),
        ("spec.promotion.policy", "Automatic | Manual | Never"),
        ("spec.model", "required"),
        ("spec.recipe.seed", "[not given in the paper; our choice]"),
    ],
)
def test_explain_tells_type_unit_default_limits_and_source(
    field: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", field]) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("more", [["spec.model"], ["--kind", "ViperLoop"], ["spec", "--kind", "ViperIteration"]])
def test_explain_has_no_part_of_the_whole_reference(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--markdown", *more]) == 2
    assert "leave out FIELD and --kind" in capsys.readouterr().err


def test_explain_suggests_the_nearest_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "groupsize"]) == 2
    assert "did you mean spec.recipe." in capsys.readouterr().err


def test_every_field_is_documented() -> None:
    from viper.cli.explain import documented
    from viper.spec.load import KINDS

    bare = [e.path for kind in KINDS.values() for e in documented(kind) if not e.description]
    assert bare == []


def test_the_written_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert written == reference(), "run `viper explain --markdown > docs/reference.md`"


class Given:
    """Stands in for the run itself: what comes before and after it is under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def run(_self: LocalRun) -> None:
            raise error

        monkeypatch.setattr(LocalRun, "run", run)


@pytest.mark.parametrize(
    ("error", "status"), [(Stopped(2), 130), (Stopped(15), 143), (KeyboardInterrupt(), 130)], ids=str
)
def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    Given(monkeypatch, error)
    file = write(tmp_path)
    assert main(["run", str(file), "--dir", str(tmp_path / "run")]) == status
    assert f"viper run {file} --dir {tmp_path / 'run'}" in capsys.readouterr().out


def test_a_second_run_in_a_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDirectory(tmp_path / "run").lock():
        assert main(["run", str(write(tmp_path)), "--dir", str(tmp_path / "run")]) == 6
    assert "another `viper run` works in this directory" in capsys.readouterr().err


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run directory of fake stages in which one synthesis was held."""
    store = open_store(tmp_path / "store")
    one = world.frozen("it")
    world.write(store, one)
    store.put("settings/reject-validate-operations", b"")
    RunDirectory(tmp_path).open(one.iteration, None, None)
    assert run_here(tmp_path).outcome == "held"
    return tmp_path


def test_status_shows_every_stage_and_why_it_is_held(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "nothing runs here now" in out
    assert "synthesize-captions    Succeeded" in out
    assert "9 of 12 accepted (odd 3)" in out
    assert "validate-operations    Held" in out
    assert "0 accepted training samples" in out


def test_status_is_machine_readable(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished), "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)["iterations"]
    stages: Mapping[str, Any] = {s["name"]: s for s in state["stages"]}
    assert state["outcome"] == "held"
    assert stages["synthesize-captions"]["rejected"] == {"odd": 3}
    assert stages["promote"]["state"] == "Waiting"


def test_status_tells_an_interrupted_run_from_one_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = world.frozen("it")
    world.write(open_store(tmp_path / "store"), one)
    RunDirectory(tmp_path).open(one.iteration, None, None)
    assert main(["status", str(tmp_path)]) == 0
    assert "\nit  interrupted" in capsys.readouterr().out
    with RunDirectory(tmp_path).lock():
        assert main(["status", str(tmp_path)]) == 0
    assert "\nit  running" in capsys.readouterr().out


def test_status_of_a_directory_without_a_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 3
    assert "nothing was started in this directory" in capsys.readouterr().err


def test_the_demo_is_valid() -> None:
    from viper.spec import ViperLoop, load_resource

    demo = load_resource(ROOT / "examples" / "demo.yaml")
    assert isinstance(demo, ViperLoop)
    assert isinstance(demo.iteration(3), ViperIteration)
    assert demo.spec.iterations == 3
