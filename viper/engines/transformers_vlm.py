"""Any Hugging Face image-text-to-text model directory as a `VisionLanguageModel`, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.memory import Batches, empty_cache, out_of_memory
from viper.engines.model_directory import check_model_directory, planned_memory
from viper.engines.vision_batching import batch_vision_attention
from viper.engines.weights import weights_id, weights_size
from viper.errors import EngineError, InputError
from viper.spec.engines import GenerationSettings
from viper.words import plural

#: Prompt tokens of one batch, images included; at least one row goes through.
BATCH_TOKENS = 32_768
_BATCH = "spec.engines.generation.batch"


class TransformersVlm:
    """Batches prompts of like length, pads on the left, samples with a seed.

    A batch that does not fit into memory is halved; a prompt that leaves no room for the output gives one with a note.

    Args:
        model_dir: a directory with config, safetensors, tokenizer and processor files.
        device: a torch device.
        settings: rows of a batch, tokens of prompt and output together, pixels of an image.

    Raises:
        InputError: the directory lacks files, or transformers cannot read them.
        EngineError: one request alone does not fit into memory.
    """

    def __init__(self, model_dir: Path | str, device: str = "cpu", settings: GenerationSettings | None = None) -> None:
        directory, self._settings = Path(model_dir), settings or GenerationSettings()
        check_model_directory(directory)
        transformers.utils.logging.disable_progress_bar()  # a bar is no line of a log
        try:
            self.processor: Any = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
            self.model: Any = AutoModelForImageTextToText.from_pretrained(
                directory, dtype="auto", use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"transformers cannot read the model: {error}", where=str(directory)) from error
        try:
            self.model.to(device).eval()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise EngineError(
                f"the model does not fit into memory: {str(error).splitlines()[0]}",
                where="spec.engines.vlm",
                fix="take a GPU with more memory, or engine `vllm` with generation.tensorParallel",
            ) from None
        batch_vision_attention(self.model)
        self.processor.tokenizer.padding_side = "left"
        limits = _limit_pixels(self.processor.image_processor, self._settings, directory)
        self._batches_that_fit = Batches(self._settings.batch, _BATCH, "lower generation.maxPixels or maxModelTokens")
        self._engine_id = f"transformers/{transformers.__version__}/{weights_id(directory)}{limits}"

    @property
    def engine_id(self) -> str:
        """`transformers/<version>/<weights id>` and the pixel limits that are set."""
        return self._engine_id

    @classmethod
    def memory_needed(cls, directory: Path, settings: GenerationSettings) -> int:
        """Bytes on the device: weights, a key-value cache, and 2 GiB for CUDA and activations.

        The cache is that of one full batch (`BATCH_TOKENS`, or one longest request) and of as much output again.
        """
        return planned_memory(Path(directory), 2 * max(BATCH_TOKENS, settings.max_model_tokens))

    @classmethod
    def weights_needed(cls, directory: Path, settings: GenerationSettings) -> int:
        """Bytes of `memory_needed` that weights take."""
        return weights_size(Path(directory))

    def close(self) -> None:
        """Drops the model."""
        self.model = None
        empty_cache()

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        """See `VisionLanguageModel.generate`. A row's sample depends on the rows it is batched with."""
        outputs: list[VlmOutput | None] = [None] * len(requests)
        texts = [self._text(request) for request in requests]

        def work(rows: Sequence[int]) -> list[VlmOutput]:
            return self._answer([requests[row] for row in rows], [texts[row] for row in rows], sampling)

        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(sampling.seed)
            for rows in self._batches(requests, texts):
                for row, output in zip(rows, self._batches_that_fit.run(rows, work), strict=True):
                    outputs[row] = output
        return [output for output in outputs if output is not None]

    def _answer(self, requests: Sequence[VlmRequest], texts: Sequence[str], sampling: Sampling) -> list[VlmOutput]:
        """The outputs of one batch; requests with too long a prompt get theirs without the model."""
        batch, most = self._inputs(requests, texts), self._settings.max_model_tokens
        lengths = batch["attention_mask"].sum(1).tolist()
        short = [i for i, length in enumerate(lengths) if length + sampling.max_tokens <= most]
        if len(short) < len(requests):
            batch = self._inputs([requests[i] for i in short], [texts[i] for i in short]) if short else None
        made = iter(self._sample(batch, sampling) if short else [])
        fits = set(short)
        return [
            next(made)
            if i in fits
            else VlmOutput(
                "",
                False,
                0,
                f"the prompt is too long: {plural(length, 'token')}, and {sampling.max_tokens} of output, where "
                f"spec.engines.generation.maxModelTokens is {most}",
            )
            for i, length in enumerate(lengths)
        ]

    def _text(self, request: VlmRequest) -> str:
        parts: list[dict[str, Any]] = [{"type": "image"} for _ in request.images]
        message = {"role": "user", "content": [*parts, {"type": "text", "text": request.prompt}]}
        text: str = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        return text

    def _batches(self, requests: Sequence[VlmRequest], texts: Sequence[str]) -> Iterator[list[int]]:
        """Row numbers of each batch, in order of length. Pictures are counted by their area, 28×28 pixels a token."""
        sizes = [
            len(text) // 4 + sum(image.width * image.height // 784 for image in request.images)
            for request, text in zip(requests, texts, strict=True)
        ]
        most_tokens, most_rows = BATCH_TOKENS, self._settings.batch
        batch: list[int] = []
        for row in sorted(range(len(requests)), key=lambda row: (sizes[row], row)):
            if batch and (len(batch) == most_rows or (len(batch) + 1) * sizes[row] > most_tokens):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _inputs(self, requests: Sequence[VlmRequest], texts: Sequence[str]) -> Any:
        images = [image for request in requests for image in request.images]
        batch = self.processor(text=list(texts), images=images or None, padding=True, return_tensors="pt")
        return batch.to(self.model.device)

    def _sample(self, batch: Any, sampling: Sampling) -> list[VlmOutput]:
        # Penalties that a model directory recommends are left out, as they are by vLLM: what is asked for is sampled.
        how: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
        if sampling.temperature > 0:
            how |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        produced = self.model.generate(**batch, max_new_tokens=sampling.max_tokens, **how)
        answers = produced[:, batch["input_ids"].shape[1] :]
        stops = torch.as_tensor(self.model.generation_config.eos_token_id, device=answers.device).reshape(-1)
        ends = torch.isin(answers, stops)
        lengths = torch.where(ends.any(1), ends.int().argmax(1), answers.shape[1]).tolist()
        kept = [answer[:length] for answer, length in zip(answers.tolist(), lengths, strict=True)]
        decoded = self.processor.tokenizer.batch_decode(kept, skip_special_tokens=True)
        return [
            VlmOutput(text, finished, length)
            for text, finished, length in zip(decoded, ends.any(1).tolist(), lengths, strict=True)
        ]


def _limit_pixels(processor: Any, settings: GenerationSettings, directory: Path) -> str:
    """Sets the pixel limits of an image processor; returns them for the engine id."""
    low, high = settings.min_pixels, settings.max_pixels
    if low is None and high is None:
        return ""
    size = dict(processor.size)
    if not {"shortest_edge", "longest_edge"} <= size.keys():
        raise InputError(
            "the model's image processor takes no number of pixels",
            where=str(directory),
            fix="remove spec.engines.generation.minPixels and maxPixels",
        )
    # Qwen's processors keep areas, not edges, under these names.
    low, high = low or min(size["shortest_edge"], high or size["shortest_edge"]), high or size["longest_edge"]
    processor.size = type(processor.size)(**{**size, "shortest_edge": low, "longest_edge": max(low, high)})
    return f"/pixels={settings.min_pixels or ''}-{settings.max_pixels or ''}"
