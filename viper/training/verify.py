"""Does a stored model say what the trained one said? Imported only by training stages: this module needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from viper.engines.base import RlSample
from viper.errors import StageError
from viper.training.local.policy import Policy

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit; equal float32 weights give 0."""


def verify_model(stored: Path, reference: Path, weights: Path | None, probes: Sequence[RlSample], tokens: int) -> float:
    """Compares next-token logits after the probes' prompts; returns the largest relative difference.

    Args:
        stored: the model directory as it is read back from the store.
        reference: a model directory of the same architecture.
        weights: safetensors of the trained weights, loaded over the reference's; None: the reference's own count.
        probes: a few training samples.
        tokens: longest prompt.

    Raises:
        StageError: the logits are not finite, or differ by more than `TOLERANCE`.
        InputError: one of the directories does not load.
    """
    trained, reloaded = Policy(reference), Policy(stored)
    if weights is not None:
        from safetensors.torch import load_model

        load_model(trained.model, str(weights))
    expected, found = (_logits(policy, probes, tokens) for policy in (trained, reloaded))
    if not bool(torch.isfinite(found).all()):
        raise StageError("the trained model gives logits that are not finite", where=str(stored))
    difference = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not difference <= TOLERANCE:
        raise StageError(
            f"the stored model does not agree with the trained one: its logits differ by {difference:.2g} (relative)",
            where=str(stored),
            fix="run the stage again; if it happens again, the library that saved the model lost weights",
        )
    return difference


@torch.no_grad()
def _logits(policy: Policy, probes: Sequence[RlSample], tokens: int) -> torch.Tensor:
    """Shape (probes, vocabulary)."""
    policy.model.eval()
    last, _ = policy.prefix(policy.encode(probes, tokens))
    logits: torch.Tensor = policy.model.lm_head(last)
    return logits.float()
