"""The vLLM engine: what vLLM is given, held against the installed vLLM's own classes, and what becomes of its answers.

There is no GPU here, so that `vllm.LLM` itself does not run: a stand-in with its interface answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import viper.smallworld
from engines.contracts import VisionLanguageModelContract, drawn
from support.environments import interpreter
from viper.engines import vllm_offline
from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest
from viper.engines.model_directory import GIB, cache_bytes_per_token
from viper.engines.vllm_offline import (
    VllmOffline,
    by_images,
    conversation,
    engine_arguments,
    reading,
    remedy,
    sampling_arguments,
)
from viper.engines.weights import weights_id, weights_size
from viper.errors import EngineError, InputError, UnfitEngineError
from viper.spec.engines import GenerationSettings
from viper.tasks.structured import Critique, request_schema

STARTER = Path(viper.smallworld.__file__).parent / "assets" / "starter"
RED, BLUE = drawn((16, 16), "red"), drawn((16, 16), "blue")


# ---- what vLLM is given ----


@pytest.mark.slow
def test_the_installed_vllm_takes_what_it_is_given_and_decodes_without_whitespace_or_end() -> None:
    here = Path(__file__).parent
    made = subprocess.run(
        [interpreter("vllm"), here / "vllm_check.py", STARTER],
        env={**os.environ, "PYTHONPATH": str(here.parents[1]), "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    report = json.loads(made.stdout.splitlines()[-1])
    pinned = (here.parents[1] / "images/synthesis/requirements.lock").read_text("utf-8")
    assert f"\nvllm=={report['version']} " in pinned
    assert report["engine"] == {
        "architecture": ["Qwen2_5_VLForConditionalGeneration"],
        "max_model_len": 512,
        "images": 2,
        "videos": 0,
        "pixels": {"min_pixels": 784, "max_pixels": 9216},
        "load_format": "safetensors",
        "whitespace": False,
        "sequences": 7,
        "share": 0.5,
        "prefix_caching": True,
    }
    assert report["sampling"] == [[0.7, 0.9, 33, 0, 1.0]] * 5
    assert report["critique"] == [True, True]
    assert not any(report["whitespace"])
    assert report["flaws"] == report["length"] == report["verdict"] == [True, False]


def test_settings_become_engine_arguments() -> None:
    settings = GenerationSettings(max_pixels=1_000_000, tensor_parallel=2, memory_share=0.8, batch=64)
    made = engine_arguments(Path("/models/m"), settings)
    assert made["mm_processor_kwargs"] == {"max_pixels": 1_000_000}
    assert (made["tensor_parallel_size"], made["gpu_memory_utilization"], made["max_num_seqs"]) == (2, 0.8, 64)
    assert (made["trust_remote_code"], made["load_format"]) == (False, "safetensors")


def test_each_request_has_a_seed_of_its_own_that_the_batch_around_it_does_not_change() -> None:
    def seed(batch_seed: int, position: int) -> Any:
        return sampling_arguments(VlmRequest((), "x"), Sampling(seed=batch_seed), position)["seed"]

    assert seed(1, 0) == seed(1, 0)
    assert len({seed(1, 0), seed(1, 1), seed(2, 0)}) == 3
    assert all(0 <= seed(2**62, i) < 2**31 for i in range(50))


def test_a_schema_constrains_decoding() -> None:
    schema = request_schema(Critique)
    assert sampling_arguments(VlmRequest((), "x", schema), Sampling(), 0)["structured_outputs"] == {"json": schema}
    assert sampling_arguments(VlmRequest((), "x"), Sampling(), 0)["structured_outputs"] is None


def test_images_come_in_order_before_the_text() -> None:
    (message,) = conversation(VlmRequest((RED, BLUE), "Compare."))
    assert [part.get("image_pil") or part["text"] for part in message["content"]] == [RED, BLUE, "Compare."]


def test_requests_that_share_images_come_together_and_the_others_keep_their_order() -> None:
    pairs = [(RED,), (BLUE,), (RED, BLUE), (), (BLUE,), (RED,), (RED, RED), ()]
    order = by_images([VlmRequest(images, "x") for images in pairs])
    assert order == [0, 5, 2, 6, 1, 4, 3, 7]


def test_only_a_stop_is_an_end() -> None:
    assert [reading("x", reason, 1).finished for reason in ("stop", "length", "abort", None)] == [True] + [False] * 3


@pytest.mark.parametrize(
    ("problem", "setting"),
    [
        ("Free memory on device (3/80 GiB) on startup is less than desired GPU memory utilization", "memoryShare"),
        ("CUDA out of memory. Tried to allocate", "memoryShare"),
        ("To serve at least one request with the models's max seq len (16384), 2 GiB KV cache", "maxModelTokens"),
        ("Engine core initialization failed", "engines.vlm"),
    ],
)
def test_an_error_at_the_start_names_the_setting_to_change(problem: str, setting: str) -> None:
    where, fix = remedy(problem)
    assert setting in where
    assert fix


def test_memory_is_weights_and_a_longest_request_or_the_share_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerationSettings(max_model_tokens=1000, memory_share=0.5)
    monkeypatch.setattr(vllm_offline, "device_memory", lambda device: None)
    least = weights_size(STARTER) + 1000 * cache_bytes_per_token(STARTER) + 2 * GIB
    assert VllmOffline.memory_needed(STARTER, settings) == 2 * least
    monkeypatch.setattr(vllm_offline, "device_memory", lambda device: 80 * GIB)
    assert VllmOffline.memory_needed(STARTER, settings) == 40 * GIB


def test_the_cache_of_a_token_is_read_from_the_configuration(tmp_path: Path) -> None:
    # Qwen2.5-VL-7B: 28 layers, 4 key-value heads of 128, bfloat16: 56 KiB a token.
    config = {
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "hidden_size": 3584,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert cache_bytes_per_token(tmp_path) == 56 * 1024
    (tmp_path / "config.json").write_text("[]", "utf-8")
    with pytest.raises(InputError, match="not the configuration"):
        cache_bytes_per_token(tmp_path)


# ---- what becomes of its answers ----


class RefusedError(Exception):
    """As vLLM's own, which is no ValueError."""


class StandIn:
    """`vllm.LLM`: answers with prompt, number of images and seed; refuses a batch with a prompt over `max_model_len`.

    A character is a token.
    """

    failure: Exception | None = None

    def __init__(self, **arguments: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.arguments, self.batches, self.ended = arguments, list[int](), 0
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=self._end))

    def _end(self) -> None:
        self.ended += 1

    def chat(self, messages: Sequence[Any], sampling_params: Sequence[Any], use_tqdm: bool) -> list[Any]:
        self.batches.append(len(messages))
        prompts = [m[0]["content"][-1]["text"] for m in messages]
        longest = self.arguments["max_model_len"]
        if any(len(prompt) > longest for prompt in prompts):
            raise RefusedError(f"The decoder prompt (length 999) is longer than the maximum model length of {longest}.")
        made = []
        for message, prompt, params in zip(messages, prompts, sampling_params, strict=True):
            text = f"{len(message[0]['content']) - 1}:{params.temperature and params.seed}:{prompt}"[
                : params.max_tokens
            ]
            reason = "length" if len(text) == params.max_tokens else "stop"
            made.append(SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason=reason, token_ids=text)]))
        return made


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    return stand_in(monkeypatch)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    made = type("LLM", (StandIn,), {})
    names = {"LLM": made, "SamplingParams": SimpleNamespace, "__version__": "0"}
    for name, content in {
        "vllm": names,
        "vllm.exceptions": {"VLLMError": RefusedError},
        "vllm.sampling_params": {"StructuredOutputsParams": SimpleNamespace},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return made


class TestStandIn(VisionLanguageModelContract):
    @pytest.fixture
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> VisionLanguageModel:
        stand_in(monkeypatch)
        return VllmOffline(STARTER)


def test_a_prompt_that_is_too_long_is_found_and_the_others_are_answered(vllm: type[StandIn]) -> None:
    engine = VllmOffline(STARTER, GenerationSettings(max_model_tokens=256))
    prompts = ["a", "b", "x" * 300, "c", "d", "e"]
    outputs = engine.generate([VlmRequest((), prompt) for prompt in prompts], Sampling(temperature=0))
    assert [output.text for output in outputs] == ["0:0:a", "0:0:b", "", "0:0:c", "0:0:d", "0:0:e"]
    assert outputs[2].note.startswith("the prompt is too long")
    assert not any(output.note for output in outputs[:2] + outputs[3:])


def test_another_refusal_is_an_error(vllm: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: StandIn, *_: Any, **__: Any) -> list[Any]:
        raise RefusedError("structured_outputs are not supported")

    monkeypatch.setattr(vllm, "chat", refuses)
    with pytest.raises(InputError, match="structured_outputs"):
        VllmOffline(STARTER).generate([VlmRequest((), "x")], Sampling())


def test_the_engine_id_names_version_weights_and_pixels(vllm: type[StandIn]) -> None:
    assert VllmOffline(STARTER).engine_id == f"vllm/0/{weights_id(STARTER)}"
    assert VllmOffline(STARTER, GenerationSettings(max_pixels=9216)).engine_id.endswith("/pixels=-9216")


def test_closing_ends_vllm_once(vllm: type[StandIn]) -> None:
    engine = VllmOffline(STARTER)
    llm = engine._llm
    engine.close()
    engine.close()
    assert llm.ended == 1


def test_a_start_that_fails_says_what_to_change(vllm: type[StandIn]) -> None:
    vllm.failure = RuntimeError("CUDA out of memory.\nmore")
    with pytest.raises(EngineError, match=r"memoryShare: vLLM does not start: CUDA out of memory\.\n") as caught:
        VllmOffline(STARTER)
    assert type(caught.value) is EngineError, "another process may be letting go of it"
    vllm.failure = ValueError("The model's max seq len (128000) is larger than the KV cache can hold")
    with pytest.raises(UnfitEngineError, match="maxModelTokens"):
        VllmOffline(STARTER)


def test_a_directory_that_is_not_a_model_is_refused_before_vllm_is_imported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks"):
        VllmOffline(tmp_path)


def test_without_vllm_the_image_to_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UnfitEngineError, match="image `synthesis`"):
        VllmOffline(STARTER)
