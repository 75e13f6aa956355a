"""The tiny Qwen2.5-VL: Hugging Face layout, one token a word, batching that changes nothing."""

import random
from pathlib import Path
from typing import Any

import pytest

from viper.smallworld.drawing import STUDIO
from viper.smallworld.scenes import ATTRIBUTES

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from viper.engines.vision_batching import batch_vision_attention  # noqa: E402
from viper.smallworld.making.batches import Coder  # noqa: E402
from viper.smallworld.making.lessons import ALL_FORMS, SEEING, Lesson, Teacher  # noqa: E402
from viper.smallworld.making.starter import Round, StarterPlan, train_starter  # noqa: E402
from viper.smallworld.model import build_model, build_processor, save  # noqa: E402


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor()


@pytest.fixture(scope="module")
def model(processor: Any) -> Any:
    return build_model(processor.tokenizer).eval()


def lessons(count: int) -> list[Lesson]:
    teacher = Teacher(random.Random(1), STUDIO)
    return [getattr(teacher, name)() for name in list(ALL_FORMS) * count]


def as_processed(processor: Any, lesson: Lesson) -> Any:
    content = [*({"type": "image", "image": image} for image in lesson.images), {"type": "text", "text": lesson.prompt}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )


def test_every_attribute_word_is_one_token_in_a_sentence(processor: Any) -> None:
    for word in (word for words in ATTRIBUTES.values() for word in words):
        assert len(processor.tokenizer(f" {word}")["input_ids"]) == 1


def test_any_text_survives_the_tokenizer(processor: Any) -> None:
    text = 'Ünïcode 漢字 <think>{"a": 1}</think>\n\ttabs'
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", list(ALL_FORMS))
def test_fast_batches_equal_the_processors(processor: Any, name: str) -> None:
    lesson = getattr(Teacher(random.Random(2), STUDIO), name)()
    coder = Coder(processor.tokenizer)
    fast, _ = coder.batch([lesson.images], [coder.prompt(len(lesson.images), lesson.prompt)])
    slow = as_processed(processor, lesson)
    assert slow["input_ids"].tolist() == fast["input_ids"].tolist()
    assert slow["image_grid_thw"].tolist() == fast["image_grid_thw"].tolist()
    torch.testing.assert_close(slow["pixel_values"], fast["pixel_values"], atol=1e-6, rtol=0)


def test_batched_vision_attention_equals_one_picture_at_a_time(processor: Any) -> None:
    lesson = lessons(1)[list(ALL_FORMS).index("operation_predicting")]
    inputs, model = as_processed(processor, lesson), build_model(processor.tokenizer).eval()
    with torch.no_grad():
        before = model(**inputs).logits
        assert batch_vision_attention(model) == 2
        torch.testing.assert_close(model(**inputs).logits, before, atol=2e-5, rtol=1e-5)


def test_a_saved_model_reloads_with_equal_outputs(processor: Any, model: Any, tmp_path: Path) -> None:
    save(model, processor, tmp_path)
    again, tool = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    inputs = as_processed(tool, lessons(1)[0])
    assert inputs["input_ids"].tolist() == as_processed(processor, lessons(1)[0])["input_ids"].tolist()
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert not list(tmp_path.glob("*.bin"))
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000_000


def test_image_tokens_are_never_sampled(processor: Any, model: Any) -> None:
    inputs = as_processed(processor, lessons(1)[0])
    torch.manual_seed(0)
    made = model.generate(**inputs, max_new_tokens=200, do_sample=True, temperature=5.0, min_new_tokens=200)
    banned = {processor.tokenizer.convert_tokens_to_ids(t) for t in ("<|image_pad|>", "<|vision_start|>")}
    assert not banned & set(made[0, inputs["input_ids"].shape[1] :].tolist())


def test_a_round_takes_its_phases_in_order_and_warms_up_and_decays() -> None:
    plan = Round(((2, SEEING), (3, ALL_FORMS)), seed=0, decay=0.4)
    assert [plan.mix(step) is SEEING for step in range(1, 6)] == [True, True, False, False, False]
    longer = Round(((1000, SEEING),), seed=0, decay=0.2)
    assert [longer.rate(step) for step in (1, 50, 100, 800)] == [0.01, 0.5, 1.0, 1.0]
    assert longer.rate(1000) == pytest.approx(0.1)


def test_starter_training_lowers_the_loss_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    losses: list[float] = []
    plan = StarterPlan((Round(((40, SEEING), (10, ALL_FORMS)), seed=0),), batch=8)
    train_starter(tmp_path / "a", plan, lambda step, steps, loss: losses.append(loss))
    train_starter(tmp_path / "b", plan, lambda step, steps, loss: losses.append(loss))
    assert losses[0] == losses[1] < 5.5
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
