"""What is measured, in the order of its worth: what the time does not suffice for is worth least."""

from typing import Any

from benchmarks.gpu.runner import Part

PARTS = (
    Part("start", "benchmarks.gpu.parts:start", 150),
    Part("embeddings", "benchmarks.gpu.parts.similarity:embeddings", 40),
    Part("clip", "benchmarks.gpu.parts.similarity:clip", 40),
)


def start(kit: Any) -> None:
    """Imports what all parts need, and has the device do something once."""
    import torch

    square = torch.ones(256, 256, device=kit.device)
    (square @ square).sum().item()
