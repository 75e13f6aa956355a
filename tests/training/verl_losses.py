"""Run with the interpreter of verl's environment: verl's advantages and loss, as `main_ppo` would compute them.

The first line on standard input is {name: […]}, what viper hands to `main_ppo`, once or several times. Every further
line is a batch {"as": name, "logprobs", "old", "mask": B×T, "rewards": B, "groups": B, "advantages": B or null,
"passes": [[row, …], …]}, answered by {"loss", "gradient": B×T, "advantages": B, "clipped_below"}. Advantages are
verl's own of the rewards unless given.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass
from verl_resolve import compose


def answer(request: dict[str, Any], actor: Any, algorithm: Any) -> dict[str, Any]:
    """Gradient and loss of one optimiser step, its outputs in passes as given."""
    current = torch.tensor(request["logprobs"], dtype=torch.float64, requires_grad=True)
    old = torch.tensor(request["old"], dtype=torch.float64)
    mask = torch.tensor(request["mask"], dtype=torch.float64)
    scores = torch.zeros_like(mask, dtype=torch.float32)  # verl's rewards are float32, on the last token
    scores[:, 0] = torch.tensor(request["rewards"], dtype=torch.float32)
    token_advantages, _ = get_adv_estimator_fn(algorithm.adv_estimator)(
        token_level_rewards=scores,
        response_mask=mask.float(),
        index=np.array(request["groups"]),
        norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
        config=algorithm,
    )
    advantages = token_advantages[:, 0].double()  # the same on every token of an output
    if request["advantages"] is not None:
        advantages = torch.tensor(request["advantages"], dtype=torch.float64)
    loss, below = 0.0, 0.0
    for rows in request["passes"]:
        # As verl.workers.utils.losses.ppo_loss does: every pass is divided by the outputs of the whole step.
        actor.global_batch_info.update(
            dp_size=1, batch_num_tokens=None, global_batch_size=len(mask), loss_scale_factor=actor.loss_scale_factor
        )
        part, metrics = get_policy_loss_fn(actor.policy_loss.loss_mode)(
            old_log_prob=old[rows],
            log_prob=current[rows],
            advantages=advantages[rows, None].expand(-1, mask.shape[1]),
            response_mask=mask[rows],
            loss_agg_mode=actor.loss_agg_mode,
            config=actor,
            rollout_is_weights=None,
        )
        part.backward()
        loss += part.item()
        below += metrics["actor/pg_clipfrac_lower"]
    gradient = torch.zeros_like(current) if current.grad is None else current.grad
    return {
        "loss": loss,
        "gradient": gradient.tolist(),
        "advantages": advantages.tolist(),
        "clipped_below": below,
    }


def main() -> None:
    """Answers until standard input ends."""
    configured = {}
    for name, arguments in json.loads(sys.stdin.readline()).items():
        config = compose(arguments)
        configured[name] = (
            omega_conf_to_dataclass(config.actor_rollout_ref.actor),
            omega_conf_to_dataclass(config.algorithm),
        )
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(request, *configured[request["as"]])), flush=True)


if __name__ == "__main__":
    main()
