"""The reward function that verl is given: what it asks, when it asks again, and when it gives up. No silent zero."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from viper.errors import EngineError, InputError
from viper.training.verl.reward_function import compute_score, sentences_of

REWARD = {"reward": 0.5, "format": 1.0, "correctness": 0.5, "recall": 0.25, "items": 3, "duplicate_share": 0.0}
TRUTH = json.dumps({"sample_id": "a", "generator": "b", "sentences": ["A ring."]})


class Scripted(ThreadingHTTPServer):
    """Answers with a prepared list of (status, headers, body), the last one for ever; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], Any]] = [(200, {}, REWARD)]
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answers = self.server.answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def score(server: Scripted, truth: str = TRUTH, extra: dict[str, Any] | None = None, **settings: float) -> Any:
    return asyncio.run(compute_score("viper", "An output.", truth, extra, url=server.url, **settings))


def test_it_asks_for_one_output_and_returns_all_measures_as_numbers(scripted: Scripted) -> None:
    found = score(scripted, extra={"finished": False, "index": 3})
    assert scripted.asked == [{"output": "An output.", "ground_truth": ["A ring."], "finished": False, "detail": False}]
    assert found == {
        "score": 0.5,
        "format": 1.0,
        "correctness": 0.5,
        "recall": 0.25,
        "items": 3.0,
        "duplicates": 0.0,
        "finished": 0.0,
    }


def test_an_output_counts_as_finished_where_nobody_says_otherwise(scripted: Scripted) -> None:
    score(scripted)
    assert scripted.asked[0]["finished"] is True


def test_a_full_queue_is_asked_again(scripted: Scripted) -> None:
    scripted.answers = [(503, {"Retry-After": "0"}, {"error": "full"}), (503, {}, {}), (200, {}, REWARD)]
    assert score(scripted)["score"] == 0.5
    assert len(scripted.asked) == 3


def test_a_queue_that_stays_full_is_an_error_with_the_last_answer(scripted: Scripted) -> None:
    scripted.answers = [(503, {}, {"error": "the queue is full"})]
    with pytest.raises(EngineError, match=r"answered 503.*queue is full.*\d+ attempts in"):
        score(scripted, patience_s=0.2)


@pytest.mark.parametrize("status", [500, 422, 413, 404])
def test_what_will_not_change_is_an_error_at_once(scripted: Scripted, status: int) -> None:
    scripted.answers = [(status, {}, {"error": "no"})]
    with pytest.raises(EngineError, match=f"answered {status}"):
        score(scripted)
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(
    "answer", [{}, [], "text", REWARD | {"reward": None}, REWARD | {"reward": float("nan")}], ids=str
)
def test_an_answer_that_is_no_reward_is_an_error(scripted: Scripted, answer: Any) -> None:
    scripted.answers = [(200, {}, answer)]
    with pytest.raises(EngineError, match=r"no reward|not finite"):
        score(scripted)


@pytest.mark.parametrize("truth", ["", "The ring is red.", "{}", "[]", '{"sentences": []}', '{"sentences": [1]}'])
def test_a_sample_without_ground_truth_is_an_error_and_no_zero(scripted: Scripted, truth: str) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        score(scripted, truth)
    assert not scripted.asked


def test_a_ground_truth_may_be_a_list_alone() -> None:
    assert sentences_of('["A ring.", "A cross."]') == ["A ring.", "A cross."]
