"""vLLM as an offline batch engine inside the shard's own pod.

What vLLM is given is made by pure functions; tests/engines/vllm_check.py holds them against the classes of the vLLM
that images/synthesis/requirements.lock pins. vLLM itself is imported when an engine is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.memory import device_memory, empty_cache
from viper.engines.model_directory import check_model_directory, planned_memory
from viper.engines.weights import weights_id
from viper.errors import EngineError, InputError, UnfitEngineError
from viper.seeds import derive
from viper.spec.engines import GenerationSettings

_LENGTH = "spec.engines.generation.maxModelTokens"
_TOO_LONG = ("maximum model length", "maximum context length")


def engine_arguments(directory: Path, settings: GenerationSettings) -> dict[str, Any]:
    """Arguments of `vllm.LLM` (fields of `vllm.EngineArgs`).

    JSON is decoded without whitespace outside of strings: models loop on it. xgrammar is named because the setting
    holds for it; no code and no pickle of a model directory is run.
    """
    pixels = {"min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels}
    return {
        "model": str(directory),
        "dtype": "auto",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "seed": 0,
        "max_model_len": settings.max_model_tokens,
        "max_num_seqs": settings.batch,
        "gpu_memory_utilization": settings.memory_share,
        "tensor_parallel_size": settings.tensor_parallel,
        "limit_mm_per_prompt": {"image": settings.max_images, "video": 0},
        "mm_processor_kwargs": {key: value for key, value in pixels.items() if value is not None},
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "disable_log_stats": True,
    }


def sampling_arguments(request: VlmRequest, sampling: Sampling, position: int) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams` for the request at `position` of a batch.

    `structured_outputs` holds those of `StructuredOutputsParams`, None without a schema. The seed of a request is
    derived from the batch's, so that its answer does not depend on what else is in the batch.
    """
    schema = None if request.schema is None else {"json": dict(request.schema)}
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": derive(sampling.seed, "request", position) % 2**31,
        "structured_outputs": schema,
    }


def conversation(request: VlmRequest) -> list[dict[str, Any]]:
    """The messages of `LLM.chat`: images in order, then the text, as the processor's chat template takes them."""
    images = [{"type": "image_pil", "image_pil": image} for image in request.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": request.prompt}]}]


def by_images(requests: Sequence[VlmRequest]) -> list[int]:
    """Positions in an order in which requests with the same images (the same objects) follow each other.

    Caches of prefixes and of encoded images then need to hold little. Otherwise the order stays.
    """
    first: dict[tuple[int, ...], int] = {}
    most = max((len(request.images) for request in requests), default=0)
    keys = []
    for position, request in enumerate(requests):
        images = tuple(id(image) for image in request.images)
        keys.append(tuple(first.setdefault(images[:n], position) for n in range(1, most + 1)))
    return sorted(range(len(requests)), key=lambda position: (keys[position], position))


def reading(text: str, reason: str | None, tokens: int) -> VlmOutput:
    """The output for a `CompletionOutput`: anything but `stop` as reason of its end is an unfinished one."""
    return VlmOutput(text, reason == "stop", tokens)


def remedy(problem: str) -> tuple[str, str]:
    """Setting and advice for an error with which vLLM did not start."""
    said = problem.casefold()
    if "kv cache" in said or "max seq len" in said or "max_model_len" in said:
        return _LENGTH, "lower it, or raise memoryShare or tensorParallel"
    if "memory" in said:
        return (
            "spec.engines.generation.memoryShare",
            "free the GPU, lower memoryShare below its free share, or raise tensorParallel",
        )
    return "spec.engines.vlm", "see vLLM's log above"


class VllmOffline:
    """Answers whole batches by `vllm.LLM`.

    Args:
        model_dir: config, safetensors, tokenizer and processor in Hugging Face layout.
        settings: lengths, pixels, sequences at once, share of the GPU, GPUs that the model spans.

    Raises:
        InputError: the directory lacks files.
        UnfitEngineError: vLLM is not installed, or has no room for that many tokens; names the setting to change.
        EngineError: it does not start for another reason.
    """

    def __init__(self, model_dir: Path | str, settings: GenerationSettings | None = None) -> None:
        directory, self._settings = Path(model_dir), settings or GenerationSettings()
        check_model_directory(directory)
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            import vllm
            from vllm.exceptions import VLLMError
        except ImportError as error:
            raise UnfitEngineError(
                f"vLLM cannot be imported: {error}",
                where="spec.engines.vlm",
                fix="use the image `synthesis` for this stage (spec.profile.stages), or engine `transformers`",
            ) from error
        self._vllm: Any = vllm
        self._refusals: tuple[type[Exception], ...] = (ValueError, VLLMError)  # VLLMError is no ValueError
        version, limits = vllm.__version__, (self._settings.min_pixels, self._settings.max_pixels)
        pixels = "" if limits == (None, None) else f"/pixels={limits[0] or ''}-{limits[1] or ''}"
        self._engine_id = f"vllm/{version}/{weights_id(directory)}{pixels}"
        try:
            self._llm: Any = vllm.LLM(**engine_arguments(directory, self._settings))
        except (RuntimeError, OSError, *self._refusals) as error:
            where, fix = remedy(str(error))
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            # The GPU's memory may still be held by a process that is ending; lengths do not change by waiting.
            kind = UnfitEngineError if where == _LENGTH else EngineError
            raise kind(f"vLLM does not start: {problem}", where=where, fix=fix) from error

    @property
    def engine_id(self) -> str:
        """`vllm/<version>/<weights id>` and the pixel limits."""
        return self._engine_id

    @classmethod
    def memory_needed(cls, directory: Path, settings: GenerationSettings) -> int:
        """Bytes on each GPU: vLLM takes its share of a GPU whatever it needs.

        Where there is no GPU to ask: what weights and one longest request take, over the share.
        """
        least = planned_memory(Path(directory), settings.max_model_tokens, settings.tensor_parallel)
        there = _gpu_memory()
        return max(int(least / settings.memory_share), int((there or 0) * settings.memory_share))

    def close(self) -> None:
        """Ends vLLM's process, and with it what it holds of the GPU."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        empty_cache()

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        """See `VisionLanguageModel.generate`. A prompt that is too long gives an output with a note."""
        outputs: list[VlmOutput | None] = [None] * len(requests)
        order = by_images(requests)
        work = [(conversation(requests[i]), sampling_arguments(requests[i], sampling, i)) for i in order]
        for position, output in zip(order, self._answers(work), strict=True):
            outputs[position] = output
        return [output for output in outputs if output is not None]

    def _answers(self, work: Sequence[tuple[list[dict[str, Any]], Mapping[str, Any]]]) -> list[VlmOutput]:
        """vLLM refuses a batch for one prompt that is too long: halves find it."""
        if not work:
            return []
        try:
            made = self._llm.chat(
                [messages for messages, _ in work],
                [self._parameters(arguments) for _, arguments in work],
                use_tqdm=False,
            )
        except self._refusals as error:
            if not any(mark in str(error) for mark in _TOO_LONG):
                raise InputError(f"vLLM does not take a request: {error}") from error
            if len(work) == 1:
                return [VlmOutput("", False, 0, f"the prompt is too long: {str(error)[:200]}")]
        else:
            ends = [one.outputs[0] for one in made]
            return [reading(end.text, end.finish_reason, len(end.token_ids)) for end in ends]
        middle = len(work) // 2
        return self._answers(work[:middle]) + self._answers(work[middle:])

    def _parameters(self, arguments: Mapping[str, Any]) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        schema = arguments["structured_outputs"]
        structured = None if schema is None else StructuredOutputsParams(**schema)
        return self._vllm.SamplingParams(**{**arguments, "structured_outputs": structured})


def _gpu_memory() -> int | None:
    try:
        return device_memory("cuda")
    except (ImportError, RuntimeError, AssertionError):
        return None
