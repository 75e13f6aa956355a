"""The interfaces behind which every model stands. Implementations differ in size, never in meaning.

Images are `PIL.Image.Image` in mode RGB. An engine that holds memory worth freeing has a method `close()`, after which
it is not used again. Nothing here imports a deep-learning library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from viper.text import clean


def _clean(said: object, *fields: str) -> None:
    """Makes texts of a frozen result clean: whatever engine made it, its words come in here."""
    for name in fields:
        object.__setattr__(said, name, clean(getattr(said, name)))


@dataclass(frozen=True)
class Sampling:
    """How a batch of outputs is sampled. temperature 0 is greedy; `seed` makes a batch reproducible."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True)
class VlmRequest:
    """One prompt: images in order, then the text; `schema` is the JSON schema that the output should follow."""

    images: tuple[Image, ...]
    prompt: str
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class VlmOutput:
    """Its texts are clean (`viper.text`). `finished` is False when generation stopped at `max_tokens`.

    `note` says why there is no answer (a refusal, a prompt that is too long), in words; empty when there is one.
    """

    text: str
    finished: bool
    tokens: int
    note: str = ""

    def __post_init__(self) -> None:
        _clean(self, "text", "note")


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Writes text about images."""

    @property
    def engine_id(self) -> str:
        """Name, version and weights digest: enters the sample passport."""
        ...

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        """One output per request, in order. The same batch with the same seed gives the same outputs."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """`image` is None when there is none; `note` says why, in words; empty on success."""

    image: Image | None
    note: str = ""

    def __post_init__(self) -> None:
        _clean(self, "note")


@runtime_checkable
class Reconstructor(Protocol):
    """Text-to-image: draws what a caption says (the paper's Qwen-Image)."""

    @property
    def engine_id(self) -> str: ...

    def reconstruct(self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list[Reconstruction]:
        """One image of `size` (width, height) in pixels per caption; `seeds[i]` fixes image i.

        A caption that the model cannot take whole gets no image but a note: what is cut off would look like a flaw.
        """
        ...


@dataclass(frozen=True)
class EditResult:
    """`image` has the original's size. `note` says in words what the editor could not do; empty on success."""

    image: Image
    note: str = ""

    def __post_init__(self) -> None:
        _clean(self, "note")


@runtime_checkable
class Editor(Protocol):
    """Instruction-guided image editing (the paper's OmniGen2)."""

    @property
    def engine_id(self) -> str: ...

    def edit(self, images: Sequence[Image], instructions: Sequence[str], seeds: Sequence[int]) -> list[EditResult]:
        """One result per image; an instruction that cannot be carried out gives the image unchanged and a note."""
        ...


@runtime_checkable
class SimilarityModel(Protocol):
    """Sentence embeddings; the reward's `sim` is their cosine (the paper's BGE-M3)."""

    @property
    def engine_id(self) -> str: ...

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(sentences), d), rows of unit length."""
        ...


@runtime_checkable
class ImageSimilarityModel(Protocol):
    """Image embeddings for the CLIP filter and near-duplicate search."""

    @property
    def engine_id(self) -> str: ...

    def embed_images(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Shape (len(images), d), rows of unit length."""
        ...


@dataclass(frozen=True)
class RlSample:
    """One row of RL data. `ground_truth` are the sentences G of equation 6; `sample_id` is the passport id."""

    sample_id: str
    prompt: str
    images: tuple[Image, ...]
    ground_truth: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
