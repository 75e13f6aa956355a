"""The transformers engine, tried with the tiny model."""

import random
from pathlib import Path

import pytest

from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest
from viper.errors import InputError
from viper.smallworld.drawing import STUDIO
from viper.smallworld.lessons import ALL_FORMS, Teacher

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from viper.engines.transformers_vlm import TransformersVlm  # noqa: E402
from viper.smallworld.model import build_model, build_processor, save  # noqa: E402


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
    alone = [TransformersVlm(directory, max_batch_rows=1).generate([request], greedy)[0] for request in requests[:6]]
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
