"""The transformers engine, tried with the tiny model."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from viper.engines.base import Sampling, VisionLanguageModel, VlmOutput, VlmRequest
from viper.engines.model_directory import GIB
from viper.engines.weights import weights_id, weights_size
from viper.errors import EngineError, InputError
from viper.smallworld.drawing import STUDIO
from viper.smallworld.making.lessons import ALL_FORMS, Teacher
from viper.spec.engines import GenerationSettings

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from viper.engines.transformers_vlm import TransformersVlm  # noqa: E402
from viper.smallworld.model import build_model, build_processor, save  # noqa: E402

ONE = GenerationSettings(batch=1)
GREEDY = Sampling(temperature=0, max_tokens=8)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    processor = build_processor()
    save(build_model(processor.tokenizer), processor, path)
    return path


@pytest.fixture(scope="module")
def engine(directory: Path) -> TransformersVlm:
    return TransformersVlm(directory)


@pytest.fixture(scope="module")
def requests() -> list[VlmRequest]:
    teacher = Teacher(random.Random(1), STUDIO)
    made = [getattr(teacher, name)() for name in list(ALL_FORMS) * 3]
    return [VlmRequest(one.images, one.prompt) for one in made] + [VlmRequest((), "Describe nothing.")]


def test_it_is_a_vision_language_model(engine: TransformersVlm) -> None:
    assert isinstance(engine, VisionLanguageModel)
    assert engine.engine_id.startswith("transformers/")


def test_the_same_batch_and_seed_give_the_same_outputs(engine: TransformersVlm, requests: list[VlmRequest]) -> None:
    first, second, other = (engine.generate(requests, Sampling(max_tokens=12, seed=seed)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_sampling_leaves_the_callers_random_state_alone(engine: TransformersVlm, requests: list[VlmRequest]) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    engine.generate(requests[:2], Sampling(max_tokens=3))
    assert torch.equal(torch.rand(1), expected)


def test_greedy_outputs_come_in_order_whatever_the_batching(directory: Path, requests: list[VlmRequest]) -> None:
    greedy = Sampling(temperature=0, max_tokens=8)
    together = TransformersVlm(directory).generate(requests, greedy)
    alone = [TransformersVlm(directory, settings=ONE).generate([request], greedy)[0] for request in requests[:6]]
    assert together[:6] == alone


def test_an_output_that_reaches_the_limit_is_not_finished(engine: TransformersVlm, requests: list[VlmRequest]) -> None:
    (output,) = engine.generate(requests[:1], Sampling(temperature=0, max_tokens=1))
    assert output.tokens <= 1
    assert output.finished == (output.tokens == 0)


def test_no_requests_give_no_outputs(engine: TransformersVlm) -> None:
    assert engine.generate([], Sampling()) == []


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json", "processor_config.json"])
def test_a_directory_that_lacks_a_file_is_refused_by_name(directory: Path, tmp_path: Path, missing: str) -> None:
    for file in directory.iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="lacks"):
        TransformersVlm(tmp_path)


def test_a_damaged_configuration_is_refused_with_its_place(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text("{", "utf-8")
    with pytest.raises(InputError) as caught:
        TransformersVlm(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_the_engine_id_changes_with_the_weights(directory: Path, tmp_path: Path, engine: TransformersVlm) -> None:
    processor = build_processor()
    save(build_model(processor.tokenizer, seed=1), processor, tmp_path)
    assert TransformersVlm(tmp_path).engine_id != engine.engine_id


def test_the_engine_id_names_the_weights_and_the_pixels(directory: Path, engine: TransformersVlm) -> None:
    assert engine.engine_id.endswith(f"/{weights_id(directory)}")
    limited = TransformersVlm(directory, settings=GenerationSettings(max_pixels=9216))
    assert limited.engine_id == f"{engine.engine_id}/pixels=-9216"


@pytest.mark.parametrize(("low", "high", "tokens"), [(None, 2048, 2), (4 * 9216, 8 * 9216, 36), (None, None, 9)])
def test_pixel_limits_decide_how_many_tokens_an_image_takes(
    directory: Path, low: int | None, high: int | None, tokens: int
) -> None:
    limited = TransformersVlm(directory, settings=GenerationSettings(min_pixels=low, max_pixels=high))
    request = VlmRequest((Image.new("RGB", (96, 96)),), "Describe the image.")
    batch = limited._inputs([request], [limited._text(request)])
    assert abs(int((batch["input_ids"] == limited.model.config.image_token_id).sum()) - tokens) <= 1
    assert limited.generate([request], GREEDY)[0].tokens <= 8


def test_a_prompt_that_leaves_no_room_gets_a_note_and_the_others_their_answers(directory: Path) -> None:
    small = TransformersVlm(directory, settings=GenerationSettings(max_model_tokens=256))
    requests = [VlmRequest((), "Describe nothing."), VlmRequest((), "object " * 300), VlmRequest((), "What is the")]
    outputs = small.generate(requests, GREEDY)
    assert [bool(output.note) for output in outputs] == [False, True, False]
    assert "maxModelTokens is 256" in outputs[1].note
    assert (outputs[1].text, outputs[1].finished) == ("", False)
    assert [outputs[0], outputs[2]] == small.generate([requests[0], requests[2]], GREEDY)
    assert small.generate([requests[1]], GREEDY) == [outputs[1]]


class Cramped(TransformersVlm):
    """Has memory for so many rows."""

    room = 2

    def _sample(self, batch: Any, sampling: Sampling) -> list[VlmOutput]:
        if len(batch["input_ids"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super()._sample(batch, sampling)


def test_a_batch_that_does_not_fit_is_made_smaller(
    directory: Path, engine: TransformersVlm, requests: list[VlmRequest]
) -> None:
    assert Cramped(directory).generate(requests, GREEDY) == engine.generate(requests, GREEDY)


def test_one_request_that_does_not_fit_names_the_settings(directory: Path, requests: list[VlmRequest]) -> None:
    cramped = Cramped(directory)
    cramped.room = 0
    with pytest.raises(EngineError, match=r"spec\.engines\.generation\.batch: (.|\n)*maxPixels"):
        cramped.generate(requests, GREEDY)


def test_what_a_directory_recommends_for_sampling_changes_nothing(
    directory: Path, tmp_path: Path, engine: TransformersVlm, requests: list[VlmRequest]
) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "generation_config.json").read_text("utf-8"))
    recommended = config | {"repetition_penalty": 1.9, "temperature": 0.01, "top_k": 1, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(recommended), "utf-8")
    other = TransformersVlm(tmp_path)
    for sampling in (GREEDY, Sampling(max_tokens=8, seed=4)):
        assert other.generate(requests, sampling) == engine.generate(requests, sampling)


def test_memory_is_planned_from_files_and_settings_without_loading(directory: Path) -> None:
    # 4 layers, 4 key-value heads of 32, float32: 4 KiB a token, for 32,768 tokens of prompts and as many of output.
    needed = TransformersVlm.memory_needed(directory, GenerationSettings())
    assert needed == weights_size(directory) + 65536 * 4096 + 2 * GIB


def test_a_closed_engine_holds_no_model(directory: Path) -> None:
    closed = TransformersVlm(directory)
    closed.close()
    assert closed.model is None
