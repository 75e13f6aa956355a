"""What is measured, in the order of its worth: what the time does not suffice for is worth least."""

from typing import Any

from benchmarks.gpu.runner import Part

PARTS = (
    Part("start", "benchmarks.gpu.parts:start", 150),
    Part("embeddings", "benchmarks.gpu.parts.similarity:embeddings", 40),
    Part("clip", "benchmarks.gpu.parts.similarity:clip", 40),
    Part("captions-7b", "benchmarks.gpu.parts.captions:seven", 110, 20),
    Part("qwen-image", "benchmarks.gpu.parts.diffusion:qwen_image", 130, 30),
    Part("sample-7b", "benchmarks.gpu.parts.training:sample", 110, 25),
    Part("grpo-3b", "benchmarks.gpu.parts.training:grpo", 80, 25),
    Part("captions-3b", "benchmarks.gpu.parts.captions:three", 60, 20),
    Part("klein", "benchmarks.gpu.parts.diffusion:klein", 40),
    Part("qwen-image-edit", "benchmarks.gpu.parts.diffusion:qwen_image_edit", 70, 25),
)


def start(kit: Any) -> None:
    """Imports what all parts need, and has the device do something once."""
    import torch

    square = torch.ones(256, 256, device=kit.device)
    (square @ square).sum().item()
