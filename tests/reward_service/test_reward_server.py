"""The reward service as a process, asked by the reward function that verl is given."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3

from engines import tiny_bge_m3
from viper.engines.bge_m3 import BgeM3
from viper.errors import EngineError
from viper.reward.equations import RewardParameters, score_batch
from viper.reward.service.app import MAX_BODY_BYTES
from viper.reward.service.batching import BatchLimits
from viper.reward.service.process import RewardServer, running
from viper.smallworld import language
from viper.smallworld.making.lessons import fresh_scene, slip
from viper.smallworld.similarity import SmallWorldSimilarity
from viper.training.verl.reward_function import compute_score

pytestmark = [pytest.mark.torch, pytest.mark.server]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RewardServer]:
    with running("smallworld", "cpu", RewardParameters(), tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine name that a process can import."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
    return "fake_similarity:FakeSimilarity"


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What holds a batch with the word `wait`."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    monkeypatch.setenv("FAKE_SIMILARITY_GATE", str(path))
    return path


def ask(server: RewardServer, output: str) -> urllib3.BaseHTTPResponse:
    body = {"output": output, "ground_truth": ["A ring."]}
    return urllib3.request("POST", f"{server.url}/score", json=body, retries=False)


def responses(count: int, seed: int = 0) -> tuple[list[str], list[list[str]], list[bool]]:
    """Outputs of the small world with right and wrong sentences, their ground truths, whether they ended."""
    rng, outputs, truths, finished = random.Random(seed), [], [], []
    while len(outputs) < count:
        said = [flaw_sentences(rng) for _ in range(2)]
        for _ in range(5):
            sentences = [s for s in said[0] if rng.random() < 0.6] + [s for s in said[1] if rng.random() < 0.3]
            thought = "" if rng.random() < 0.1 else "<think>I look.</think>"
            outputs.append(thought + " ".join(sentences))
            truths.append(said[0])
            finished.append(rng.random() < 0.9)
    return outputs[:count], truths[:count], finished[:count]


def flaw_sentences(rng: random.Random) -> list[str]:
    scene = fresh_scene(rng)
    found = language.flaws(slip(rng, scene, rng.randint(2, 4)), scene)
    return [language.flaw_sentence(flaw) for flaw in found] or [language.background_sentence(scene.background)]


def truth_of(sentences: Sequence[str]) -> str:
    return json.dumps({"sample_id": "x", "generator": "models:/viper/1", "sentences": list(sentences)})


def scores_of_callers(url: str, callers: int, seed: int, count: int) -> list[dict[str, float]]:
    """Each caller asks for one output after the other, all of them at once."""
    outputs, truths, finished = responses(count, seed)

    async def caller(first: int) -> list[tuple[int, dict[str, float]]]:
        return [
            (i, await compute_score("viper", outputs[i], truth_of(truths[i]), {"finished": finished[i]}, url=url))
            for i in range(first, count, callers)
        ]

    async def all_of_them() -> list[list[tuple[int, dict[str, float]]]]:
        return await asyncio.gather(*(caller(i) for i in range(callers)))

    found = dict(pair for pairs in asyncio.run(all_of_them()) for pair in pairs)
    return [found[i] for i in range(count)]


def metric(server: RewardServer, name: str) -> float:
    text = urllib3.request("GET", f"{server.url}/metrics").data.decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_64_concurrent_callers_get_the_scores_of_one_batch_in_process(server: RewardServer) -> None:
    outputs, truths, finished = responses(640, seed=1)
    expected = score_batch(outputs, truths, SmallWorldSimilarity(), finished=finished)
    before = metric(server, "viper_reward_batch_items_count")
    found = scores_of_callers(server.url, 64, seed=1, count=640)
    assert [f["score"] for f in found] == [e.reward for e in expected]
    assert [f["correctness"] for f in found] == [e.correctness for e in expected]
    assert [f["format"] for f in found] == [e.format for e in expected]
    assert [f["recall"] for f in found] == [e.recall for e in expected]
    assert [(f["items"], f["duplicates"]) for f in found] == [(e.items, e.duplicate_share) for e in expected]
    assert len({f["score"] for f in found}) > 5
    # One by one would be 640 batches.
    assert metric(server, "viper_reward_batch_items_count") - before < 320


def test_a_sentence_is_embedded_once_however_often_it_comes(server: RewardServer) -> None:
    scores_of_callers(server.url, 4, seed=7, count=20)
    embedded = metric(server, "viper_reward_sentences_embedded")
    scores_of_callers(server.url, 4, seed=7, count=20)
    assert metric(server, "viper_reward_sentences_embedded") == embedded


def test_verl_can_tell_that_the_reward_function_is_asynchronous() -> None:
    assert inspect.iscoroutinefunction(compute_score)


def test_the_reward_comes_with_its_sentences_where_they_are_asked_for(server: RewardServer) -> None:
    body = {"output": "<think>x</think>The ring is red.", "ground_truth": ["The ring is red."], "finished": True}
    answer = urllib3.request("POST", f"{server.url}/score", json=body).json()
    assert answer["reward"] == 1.0
    assert answer["sentences"][0]["best_ground_truth"] == "The ring is red."


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 422, "JSON"),
        (b'{"output": "A ring."}', 422, "ground_truth"),
        (b'{"output": "A ring.", "ground_truth": "A ring."}', 422, "ground_truth"),
        (b'{"output": "A ring.", "ground_truth": [], "finished": "yes"}', 422, "finished"),
        (b'{"output": "A ring.", "ground_truth": [], "tau": 0.1}', 422, "tau"),
        (b"x" * (MAX_BODY_BYTES + 1), 413, "longer than"),
    ],
    ids=["no JSON", "no ground truth", "not a list", "not a flag", "unknown field", "too long"],
)
def test_what_is_no_request_is_refused_with_the_reason(
    server: RewardServer, body: bytes, status: int, said: str
) -> None:
    answer = urllib3.request("POST", f"{server.url}/score", body=body, retries=False)
    assert answer.status == status
    assert said in answer.json()["error"]


def test_bge_m3_stands_behind_the_service_as_any_similarity(tmp_path: Path) -> None:
    directory = tiny_bge_m3.build(tmp_path / "bge-m3")
    outputs, truths, finished = responses(60, seed=9)
    with running(f"bge-m3:{directory}", "cpu", RewardParameters(tau=0.95), tmp_path) as server:
        assert server.similarity == BgeM3(directory).engine_id
        found = scores_of_callers(server.url, 16, seed=9, count=60)
    expected = score_batch(outputs, truths, BgeM3(directory), RewardParameters(tau=0.95), finished)
    assert [f["score"] for f in found] == pytest.approx([e.reward for e in expected])
    assert len({e.reward for e in expected}) > 5


def test_health_names_the_similarity_and_the_parameters(server: RewardServer) -> None:
    answer = urllib3.request("GET", f"{server.url}/healthz")
    assert answer.status == 200
    assert answer.json()["similarity"] == SmallWorldSimilarity().engine_id == server.similarity
    assert answer.json()["parameters"]["tau"] == 0.85


def test_a_service_that_was_killed_is_no_reward_but_an_error(tmp_path: Path, fake: str) -> None:
    with running(fake, "cpu", RewardParameters(), tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        assert not server.alive()
        assert "code -9" in server.last_words()
        with pytest.raises(EngineError, match=r"cannot be reached.*\d+ attempts in"):
            asyncio.run(compute_score("viper", "A ring.", truth_of(["A ring."]), url=server.url, patience_s=0.3))


def test_callers_that_wait_go_on_when_the_service_is_started_again(tmp_path: Path, fake: str) -> None:
    async def killed_and_restarted(server: RewardServer) -> dict[str, float]:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        waits = asyncio.create_task(
            compute_score("viper", "<think>.</think>A red ring.", truth_of(["A red ring."]), url=server.url)
        )
        await asyncio.to_thread(server.restart)
        return await waits

    with running(fake, "cpu", RewardParameters(), tmp_path) as server:
        url = server.url
        found = asyncio.run(killed_and_restarted(server))
        assert (server.url, server.restarts, server.alive()) == (url, 1, True)
    assert found["score"] == 1.0
    assert not server.alive()


def test_what_is_in_work_is_answered_before_the_service_ends(tmp_path: Path, gate: Path, fake: str) -> None:
    with running(fake, "cpu", RewardParameters(), tmp_path) as server, ThreadPoolExecutor(1) as caller:
        answer = caller.submit(ask, server, "Please wait.")
        with gate.open("w"):
            os.kill(server.pid, signal.SIGTERM)
        assert answer.result().status == 200
        assert server.wait() == 0


def test_what_finds_the_queue_full_is_told_when_to_come_again(tmp_path: Path, gate: Path, fake: str) -> None:
    limits = BatchLimits(batch=1, waiting=1, linger_s=0)
    with (
        running(fake, "cpu", RewardParameters(), tmp_path, limits=limits) as server,
        ThreadPoolExecutor(2) as callers,
    ):
        first = callers.submit(ask, server, "Please wait.")
        with gate.open("w"):  # the first is in work now
            second = callers.submit(ask, server, "A ring.")
            while metric(server, "viper_reward_waiting") == 0:
                pass
            third = ask(server, "A cross.")
            assert third.status == 503
            assert int(third.headers["Retry-After"]) >= 1
        assert (first.result().status, second.result().status) == (200, 200)
        assert metric(server, 'viper_reward_answers_total{status="503"}') == 1


def test_a_model_that_fails_is_an_error_to_the_caller_at_once_and_the_service_goes_on(
    tmp_path: Path, fake: str
) -> None:
    with running(fake, "cpu", RewardParameters(), tmp_path) as server:
        with pytest.raises(EngineError, match=r"answered 500.*the model failed"):
            asyncio.run(compute_score("viper", "It will fail.", truth_of(["A ring."]), url=server.url))
        assert ask(server, "A ring.").status == 200


def test_the_service_ends_with_the_process_that_started_it(tmp_path: Path, fake: str) -> None:
    program = (
        "import os, sys; from pathlib import Path; from viper.reward.service.process import running;"
        "from viper.reward.equations import RewardParameters;"
        f"c = running({fake!r}, 'cpu', RewardParameters(), Path({str(tmp_path)!r})); s = c.__enter__();"
        "print(s.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    descriptor = -1
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(int(done.stdout))
    assert descriptor < 0 or select.select([descriptor], [], [], 60)[0]


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match="there is no engine 'smalworld'"),
        running("smalworld", "cpu", RewardParameters(), tmp_path),
    ):
        pass
