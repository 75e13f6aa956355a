"""lmms-eval's seven task definitions on small data sets in their schemas, in lmms-eval's own environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import benchmark_data
import pytest
from evaluation_fakes import Opener

from viper.spec.evaluation import BENCHMARKS
from viper.spec.stages import EVALUATE, TRAIN_CAPTIONS
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.store.transfer import directory_digest

pytest.importorskip("datasets")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Every task's longest answer of its own is below it.
MAX_TOKENS = 2000


@pytest.fixture(scope="session")
def lmms_python() -> str:
    """The interpreter of lmms-eval's environment, installed when it is not there."""
    made = subprocess.run([HERE / "lmms_environment.sh"], check=True, capture_output=True, text=True)
    return made.stdout.strip()


@dataclass
class Data:
    """The data sets and the right answers."""

    root: Path
    key: benchmark_data.Key

    def model(self, folder: Path, wrong: Callable[[int], bool]) -> ResolvedModel:
        """A scripted model that errs in the questions whose number `wrong` holds for."""
        folder.mkdir(parents=True)
        said = dict(benchmark_data.answers(self.key, wrong))
        (folder / "answers.json").write_text(json.dumps(said), "utf-8")
        return ResolvedModel(uri=folder.as_uri(), digest=directory_digest(folder))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("benchmarks")
    return Data(root, benchmark_data.write(root))


@dataclass
class Job:
    """Runs a stage in lmms-eval's environment, with no way to the network."""

    python: str
    tmp_path: Path
    asked: Path = field(init=False)

    def __post_init__(self) -> None:
        self.asked = self.tmp_path / "asked.jsonl"

    def run(self, ctx: StageContext, **environment: str) -> subprocess.CompletedProcess[str]:
        ctx.store.put(f"{ctx.frozen.prefix}/iteration.json", ctx.frozen.model_dump_json(by_alias=True).encode())
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        return subprocess.run(
            [
                self.python,
                HERE / "lmms_job.py",
                EVALUATE,
                "--iteration",
                f"{ctx.store.uri}/{ctx.frozen.prefix}",
                "--work-dir",
                self.tmp_path / "scratch",
            ],
            env={
                **os.environ,
                **nowhere,
                "NO_PROXY": "",
                "PYTHONPATH": f"{ROOT}:{ROOT / 'jobs'}:{HERE}",
                "VIPER_TEST_LOG": str(self.asked),
                "VIPER_CACHE": str(self.tmp_path / "cache"),
                "HF_HOME": str(self.tmp_path / "hf"),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def prompts(self) -> list[tuple[int, int, str]]:
        """Images, token limit and text of every request so far."""
        return [tuple(json.loads(line)) for line in self.asked.read_text("utf-8").splitlines()]


@pytest.fixture
def job(lmms_python: str, tmp_path: Path) -> Job:
    return Job(lmms_python, tmp_path)


def settings(data: Data, tasks: Any = BENCHMARKS, **more: Any) -> dict[str, Any]:
    benchmarks = {"tasks": {t: {} for t in tasks}, "datasets": str(data.root), **more}
    return {
        "recipe": {"stages": "captions"},
        "engines": {
            **dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake"),
            "vlm": "scripted_vlm:ScriptedVlm",
        },
        "evaluation": {"benchmarks": benchmarks, "batch": 5, "maxTokens": MAX_TOKENS},
    }


def done(ctx: StageContext, job: subprocess.CompletedProcess[str]) -> Manifest:
    assert job.returncode == 0, job.stderr[-3000:]
    manifest = ctx.done()
    assert manifest is not None
    return manifest


def test_killed_and_resumed_the_seven_tasks_count_what_the_questions_say(
    tmp_path: Path, open_context: Opener, data: Data, job: Job
) -> None:
    theta0 = data.model(tmp_path / "theta0", lambda n: n % 3 == 0)
    theta1 = data.model(tmp_path / "theta1", lambda n: n % 5 == 0)
    ctx = open_context(EVALUATE, generator=theta0, models={TRAIN_CAPTIONS: theta1}, **settings(data))
    killed = job.run(ctx, VIPER_TEST_KILL="4")
    assert killed.returncode == -signal.SIGKILL
    assert ctx.done() is None
    before = len(job.prompts())
    manifest = done(ctx, job.run(ctx))
    asked = job.prompts()
    assert before == 13 + 5  # all of the first benchmark, and one batch of the second
    assert len(asked) == 2 * len(data.key)
    assert set(Counter(text for _, _, text in asked).values()) == {2}  # once by each model
    assert {tokens for _, tokens, _ in asked} == {MAX_TOKENS}

    numbers = {question_id: number for number, (question_id, _) in enumerate(data.key.values())}
    by_hand: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in ctx.rows(EVALUATE):
        wrong = numbers[row["question_id"]] % (3 if row["model"] == "theta0" else 5) == 0
        assert row["correct"] is not wrong, row
        by_hand[row["model"], row["suite"]].append(row["correct"])
    assert {suite for _, suite in by_hand} == set(BENCHMARKS)
    scores = manifest.outputs["benchmarks"]["scores"]
    for (model, suite), right in by_hand.items():
        score = scores[model][suite]
        assert (score["n"], score["correct"]) == (len(right), sum(right))
        if suite != "hallusion_bench_image":
            assert score["score"] == sum(right) / len(right)
