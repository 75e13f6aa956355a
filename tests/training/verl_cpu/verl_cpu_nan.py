"""A fault for tests: in the processes of verl that load this module, the loss of the policy is not a number."""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo import core_algos

_vanilla = core_algos.POLICY_LOSS_REGISTRY["vanilla"]


def _lost(*arguments: Any, **named: Any) -> Any:
    loss, metrics = _vanilla(*arguments, **named)
    return loss * float("nan"), metrics


core_algos.POLICY_LOSS_REGISTRY["vanilla"] = _lost
