"""The endpoint engine against a real HTTP server: with the tiny model behind it, and with every fault of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from engines.chat_server import KEY, MODEL, ChatServer, Fault, answers, hangs, hangs_up, says, serving
from engines.contracts import VisionLanguageModelContract, drawn
from viper.engines.base import Sampling, VisionLanguageModel, VlmOutput, VlmRequest
from viper.engines.chat_api import NotAnAnswerError, read_completion, retry_after, server_message
from viper.engines.endpoints import endpoint
from viper.engines.openai_endpoint import Clock, OpenAiEndpoint
from viper.errors import EngineError, SpecError, UnfitEngineError
from viper.spec.engines import GenerationSettings
from viper.tasks.structured import Critique, ask, reader, request_schema

PATIENT = GenerationSettings(timeout_seconds=60)


class Time:
    """A clock that a pause moves on, and nothing else."""

    def __init__(self) -> None:
        self.now, self.pauses = 1_000_000.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now, self.sleep)


class Echo:
    """Answers with the prompt, the sizes of the images and the seed."""

    engine_id = "echo/1"

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        return [
            VlmOutput(f"{r.prompt} {[i.size for i in r.images]} {sampling.seed}", True, sampling.max_tokens)
            for r in requests
        ]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(Echo()) as running:
        yield running


@pytest.fixture
def time() -> Time:
    return Time()


def one(engine: OpenAiEndpoint, prompt: str = "Say it.") -> VlmOutput:
    (output,) = engine.generate([VlmRequest((), prompt)], Sampling(max_tokens=5))
    return output


@pytest.mark.torch
class TestTinyModelBehindAnEndpoint(VisionLanguageModelContract):
    """A tiny Qwen2.5-VL with random weights, served over HTTP."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
        from viper.engines.transformers_vlm import TransformersVlm
        from viper.smallworld.model import build_model, build_processor, save

        directory = tmp_path_factory.mktemp("tiny-vlm")
        processor = build_processor()
        save(build_model(processor.tokenizer), processor, directory)
        return TransformersVlm(directory)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: VisionLanguageModel) -> Iterator[VisionLanguageModel]:
        with serving(model) as running:
            yield OpenAiEndpoint(running.place, PATIENT)

    def test_greedy_answers_are_those_of_the_model_itself(
        self, engine: VisionLanguageModel, model: VisionLanguageModel
    ) -> None:
        greedy = Sampling(temperature=0, max_tokens=6)
        alone = [model.generate([request], greedy)[0] for request in self.requests]
        assert engine.generate(self.requests, greedy) == alone


# ---- what is asked ----


def test_a_request_carries_images_before_text_schema_sampling_and_a_seed_of_its_own(server: ChatServer) -> None:
    engine = OpenAiEndpoint(server.place, GenerationSettings(max_pixels=1000))
    schema = request_schema(Critique)
    requests = [VlmRequest((drawn((100, 50), "red"), drawn((8, 8), "blue")), "Compare.", schema)] * 2
    outputs = engine.generate(requests, Sampling(0.3, 0.8, 17, seed=5))
    assert outputs[0].text.startswith("Compare. [(44, 22), (8, 8)]")
    first, second = server.bodies
    assert {part["type"] for part in first["messages"][0]["content"][:2]} == {"image_url"}
    assert first["messages"][0]["content"][2] == {"type": "text", "text": "Compare."}
    assert first["response_format"]["json_schema"]["schema"] == schema
    assert (first["model"], first["temperature"], first["top_p"], first["max_tokens"]) == (MODEL, 0.3, 0.8, 17)
    assert first["seed"] != second["seed"]
    assert engine.generate(requests, Sampling(0.3, 0.8, 17, seed=5)) == outputs
    assert engine.generate(requests, Sampling(0.3, 0.8, 17, seed=6)) != outputs


def test_answers_keep_the_order_of_many_requests_at_once_and_the_bound_holds(server: ChatServer) -> None:
    engine = OpenAiEndpoint(server.place, GenerationSettings(batch=3))
    outputs = engine.generate([VlmRequest((), f"<{i}>") for i in range(40)], Sampling())
    assert [output.text.split()[0] for output in outputs] == [f"<{i}>" for i in range(40)]
    assert server.most_at_once <= 3


def test_the_key_comes_from_the_environment_and_its_lack_is_said(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert one(OpenAiEndpoint(server.place)).finished
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with pytest.raises(UnfitEngineError, match=r"401: Incorrect API key(.|\n)*OPENAI_API_KEY") as caught:
        OpenAiEndpoint(server.place)
    assert "another" not in str(caught.value)


def test_a_model_that_the_server_does_not_offer_is_refused_at_once(server: ChatServer) -> None:
    with pytest.raises(UnfitEngineError, match=rf"'huge'(.|\n)*{MODEL}"):
        OpenAiEndpoint(f"{server.url}#huge")


def test_a_url_that_is_not_the_apis_is_refused_at_once(server: ChatServer, time: Time) -> None:
    with pytest.raises(UnfitEngineError, match=r"404(.|\n)*/v1"):
        OpenAiEndpoint(f"{server.url}/wrong#{MODEL}", clock=time.clock)
    assert time.pauses == []


@pytest.mark.parametrize("place", ["https://host/v1", "host/v1#m", "ftp://host#m", "https://me:secret@host/v1#m"])
def test_an_address_of_another_form_is_a_mistake_in_the_specification(place: str) -> None:
    with pytest.raises(SpecError, match="openai:https://host/v1#model-name") as caught:
        OpenAiEndpoint(place)
    assert "secret" not in str(caught.value)


def test_an_endpoint_is_known_by_its_url_and_model_alone() -> None:
    place = endpoint("openai:https://host/v1/#org/model")
    assert (place.url, place.model, place.uri) == ("https://host/v1", "org/model", "openai:https://host/v1#org/model")
    assert place.digest == endpoint(place.uri).digest != endpoint("openai:https://host/v1#other").digest


# ---- faults of the server ----

ERROR = {"error": {"message": "The server is overloaded", "type": "server_error"}}


@pytest.mark.parametrize(
    "fault",
    [
        says(429, ERROR),
        says(429, ERROR, Retry_After="0"),
        says(500, ERROR),
        says(503, b"<html>no upstream</html>"),
        says(200, b'{"choices": ['),
        says(200, {"choices": []}),
        says(200, b"[]"),
        hangs_up,
    ],
)
def test_a_passing_fault_is_tried_again(server: ChatServer, time: Time, fault: Fault) -> None:
    engine = OpenAiEndpoint(server.place, PATIENT, time.clock)
    server.faults += [fault, fault]
    assert one(engine).text.startswith("Say it.")
    assert len(time.pauses) == 2
    assert server.bodies[0] == server.bodies[2]


def test_pauses_grow_and_last_at_least_as_long_as_the_server_says(server: ChatServer, time: Time) -> None:
    engine = OpenAiEndpoint(server.place, PATIENT, time.clock)
    server.faults += [says(429, ERROR, Retry_After="0")] * 4 + [says(429, ERROR, Retry_After="20")]
    one(engine)
    assert time.pauses[-1] == 20
    assert all(later > earlier / 1.01 for earlier, later in zip(time.pauses[:-2], time.pauses[1:-1], strict=True))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (says(429, ERROR), "429: The server is overloaded"),
        (says(429, ERROR, Retry_After="3600"), "429: The server is overloaded"),
        (says(500, ERROR), "500: The server is overloaded"),
        (says(200, b"<html>"), "not of the OpenAI API"),
        (hangs_up, "no answer: "),
    ],
)
def test_a_fault_that_stays_ends_within_the_timeout_with_place_and_remedy(
    server: ChatServer, time: Time, fault: Fault, message: str
) -> None:
    engine = OpenAiEndpoint(server.place, PATIENT, time.clock)
    server.faults += [fault] * 100
    with pytest.raises(EngineError, match=rf"{server.url}/chat/completions: (.|\n)*{message}") as caught:
        one(engine)
    assert "timeoutSeconds" in caught.value.fix
    assert type(caught.value) is EngineError, "another attempt may find it well"
    assert sum(time.pauses) < PATIENT.timeout_seconds


def test_a_server_that_never_answers_is_given_up_after_the_timeout(server: ChatServer) -> None:
    engine = OpenAiEndpoint(server.place, GenerationSettings(timeout_seconds=0.3))
    server.faults += [hangs] * 5
    with pytest.raises(EngineError, match=r"no answer: .*timed out"):
        one(engine)
    assert len(server.bodies) == 1


def test_a_server_that_is_not_there_is_an_error_with_its_address(time: Time) -> None:
    with serving(Echo()) as gone:
        place = gone.place
    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*no answer: .*refused"):
        OpenAiEndpoint(place, PATIENT, time.clock)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_that_the_server_does_not_take_is_not_repeated(server: ChatServer, time: Time, status: int) -> None:
    engine = OpenAiEndpoint(server.place, PATIENT, time.clock)
    server.faults += [says(status, {"error": {"message": "Unknown parameter: seed"}})]
    with pytest.raises(UnfitEngineError, match=f"{status}: Unknown parameter: seed"):
        one(engine)
    assert (len(server.bodies), time.pauses) == (1, [])


def test_one_request_that_fails_ends_the_batch_without_sending_the_rest(server: ChatServer, time: Time) -> None:
    engine = OpenAiEndpoint(server.place, GenerationSettings(batch=1, timeout_seconds=60), time.clock)
    server.faults += [says(401, ERROR)]
    with pytest.raises(EngineError, match="401"):
        engine.generate([VlmRequest((), "x")] * 200, Sampling())
    assert len(server.bodies) < 200


def test_a_redirect_is_not_followed(server: ChatServer, time: Time) -> None:
    engine = OpenAiEndpoint(server.place, PATIENT, time.clock)
    server.faults += [says(307, b"", Location=f"{server.url}/elsewhere")]
    with pytest.raises(EngineError, match="307"):
        one(engine)
    assert len(server.bodies) == 1


# ---- faults of the model, which are counted, not raised ----


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (answers("{'refinement': nothing"), "no JSON object"),
        (answers(""), "no JSON object"),
        (answers(None), "no JSON object"),
        (answers('{"refinement": [' + " \n" * 4000, "length", 4096), "cut off at the token limit"),
        (answers('{"refinement": "no dog"}'), "refinement"),
        (answers(None, refusal="I can't help with that."), "refused: I can't help with that."),
        (answers("I'm", "content_filter"), "refused: content filter"),
        (says(400, {"error": {"message": "flagged", "code": "content_filter"}}), "refused: flagged"),
        (
            says(400, {"object": "error", "message": "This model's maximum context length is 4096 tokens."}),
            "too long: This model's maximum context length",
        ),
    ],
)
def test_an_output_that_cannot_be_used_is_counted_and_the_others_are_kept(
    server: ChatServer, fault: Fault, problem: str
) -> None:
    from viper.spec.recipe import SamplingSettings

    engine = OpenAiEndpoint(server.place, GenerationSettings(batch=1))
    server.faults += [answers('{"refinement": ["No dog."]}'), fault, fault]
    sampling = SamplingSettings(temperature=1, max_tokens=64, attempts=2)
    requests = [VlmRequest((), "a"), VlmRequest((), "b")]
    good, bad = ask(engine, requests, reader(Critique), sampling, lambda attempt: attempt)
    assert good.value == Critique(refinement=["No dog."])
    assert (bad.value, bad.attempts) == (None, 2)
    assert problem in bad.problem


def test_an_answer_cut_off_at_the_limit_is_not_finished_and_tokens_are_counted(server: ChatServer) -> None:
    engine = OpenAiEndpoint(server.place)
    server.faults += [answers("half a", "length", 7), answers("no usage", tokens=None)]
    assert one(engine) == VlmOutput("half a", False, 7)
    assert one(engine) == VlmOutput("no usage", True, 2)


# ---- the API ----


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("12", 12), ("-3", 0), ("soon", None), ("inf", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 90)],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=10) == seconds


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too  many"}}', "too many"),
        (b'{"message": "no"}', "no"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>\n gone", "<html> gone"),
        (b"x" * 1000, "x" * 300),
    ],
)
def test_what_a_server_says_of_an_error_is_found_and_kept_short(body: bytes, said: str) -> None:
    assert server_message(body) == said


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b'{"choices": [{}]}', b'{"choices":[{"message":{"content":1}}]}']
)
def test_a_body_of_another_form_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotAnAnswerError):
        read_completion(body)


def test_an_image_is_sent_without_loss(server: ChatServer) -> None:
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    seen: list[Image.Image] = []

    class Looks(Echo):
        def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
            seen.extend(requests[0].images)
            return super().generate(requests, sampling)

    server.model = Looks()
    OpenAiEndpoint(server.place).generate([VlmRequest((image,), "Look.")], Sampling())
    assert seen[0].tobytes() == image.tobytes()


@pytest.mark.process
def test_importing_the_engine_needs_no_deep_learning_library() -> None:
    import subprocess
    import sys

    code = "import sys, viper.engines.openai_endpoint; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0


# ---- texts ----


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'"half \\ud83d"', "half \ufffd"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"nul \\u0000"', "nul \ufffd"),
        (b'"no UTF-8 \xff"', "no UTF-8 \ufffd"),
        (b'"a raw\x01 control\nand a line"', "a raw\ufffd control\nand a line"),
        (b'"\\ufffe \\u0085"', "\ufffd \n"),
    ],
)
def test_what_a_server_says_is_clean_and_its_bytes_are_no_reason_to_ask_again(
    server: ChatServer, content: bytes, text: str
) -> None:
    engine = OpenAiEndpoint(server.place)
    body = b'{"\\udc00": 1, "choices": [{"message": {"content": ' + content + b'}, "finish_reason": "stop"}]}'
    server.faults.append(says(200, body))
    assert one(engine).text == text
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("reason", "finished"),
    [
        ("stop", True),
        (None, True),
        ("eos", True),
        ("tool_calls", True),
        ("length", False),
        ("max_tokens", False),
        ("abort", False),
        ("error", False),
    ],
)
def test_the_reason_of_the_end_says_whether_it_is_one(server: ChatServer, reason: str | None, finished: bool) -> None:
    choice = {"message": {"content": "A red ring."}, "finish_reason": reason}
    server.faults.append(says(200, {"choices": [choice]}))
    assert one(OpenAiEndpoint(server.place)).finished is finished
