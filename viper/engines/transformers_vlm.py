"""Any Hugging Face image-text-to-text model directory as a `VisionLanguageModel`, on one device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.vision_batching import batch_vision_attention
from viper.errors import InputError

_NEEDED = ("config.json", "*.safetensors", "tokenizer.json", "*processor_config.json")
_HASHED = ("*.safetensors", "*.json", "*.jinja")


def check_model_directory(directory: Path) -> None:
    """Raises `InputError` naming what a model directory lacks (configuration, safetensors, tokenizer, processor)."""
    if not directory.is_dir():
        raise InputError("there is no model directory", where=str(directory), fix="give the path of a saved model")
    missing = [pattern for pattern in _NEEDED if not any(directory.glob(pattern))]
    if missing:
        raise InputError(
            f"the model directory lacks {', '.join(missing)}",
            where=str(directory),
            fix="save model and processor together with save_pretrained(..., safe_serialization=True)",
        )


def model_digest(directory: Path) -> str:
    """sha256 over names and bytes of weights, configuration and tokenizer, hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _HASHED for file in directory.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class TransformersVlm:
    """Batches prompts of like length, pads on the left, samples with a seed.

    Args:
        model_dir: a directory with config, safetensors, tokenizer and processor files.
        device: a torch device.
        max_batch_tokens: upper bound on rows × prompt tokens of one batch; at least one row goes through.
        max_batch_rows: upper bound on the rows of one batch.

    Raises:
        InputError: the directory lacks files, or transformers cannot read them.
    """

    def __init__(
        self, model_dir: Path | str, device: str = "cpu", max_batch_tokens: int = 32_768, max_batch_rows: int = 256
    ) -> None:
        directory = Path(model_dir)
        check_model_directory(directory)
        try:
            self.processor: Any = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
            self.model: Any = AutoModelForImageTextToText.from_pretrained(
                directory, dtype="auto", use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"transformers cannot read the model: {error}", where=str(directory)) from error
        self.model.to(device).eval()
        batch_vision_attention(self.model)
        self.processor.tokenizer.padding_side = "left"
        self._limits = max_batch_tokens, max_batch_rows
        self._engine_id = f"transformers/{transformers.__version__}/{model_digest(directory)[:16]}"

    @property
    def engine_id(self) -> str:
        """`transformers/<version>/<first 16 digits of the weights digest>`."""
        return self._engine_id

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        """See `VisionLanguageModel.generate`. A row's sample depends on the rows it is batched with."""
        outputs: list[VlmOutput | None] = [None] * len(requests)
        texts = [self._text(request) for request in requests]
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(sampling.seed)
            for rows in self._batches(requests, texts):
                batch = self._inputs([requests[row] for row in rows], [texts[row] for row in rows])
                for row, output in zip(rows, self._sample(batch, sampling), strict=True):
                    outputs[row] = output
        return [output for output in outputs if output is not None]

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
        most_tokens, most_rows = self._limits
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
        how: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            how = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
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
