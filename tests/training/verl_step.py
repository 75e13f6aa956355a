"""Run with the interpreter of verl's environment: one optimiser step by verl's FSDP engine on given outputs.

Standard input: {"arguments": what viper hands to `main_ppo`, "outputs": [{"prompt": ids, "response": ids, "old":
log-probabilities, "advantage", "images": [PNG files]}, …], "to": directory}. Writes `gradients.safetensors` and, after
the optimiser's step, `weights.safetensors`; prints {"loss", "grad_norm", "clipped", "clipped_below"}.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.utils import distributed, tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss
from verl_resolve import compose


def row(output: dict[str, Any], model: Any) -> dict[str, Any]:
    """An output as verl's agent loop puts it into the batch, images and rotary positions by verl's own code."""
    worker = SimpleNamespace(
        processor=model.processor, tokenizer=model.tokenizer, _get_mm_processor_kwargs=lambda *_: {}
    )
    prompt, response = torch.tensor(output["prompt"]), torch.tensor(output["response"])
    ids = torch.cat([prompt, response])
    images = [Image.open(path).convert("RGB") for path in output["images"]]
    sampled = SimpleNamespace(multi_modal_data={"images": images}, mm_processor_kwargs=None)
    inputs = AgentLoopWorker._compute_multi_modal_inputs(worker, sampled, ids)
    positions = AgentLoopWorker._compute_position_ids(worker, ids[None], torch.ones_like(ids)[None], inputs)
    ones = torch.ones_like(response)
    return {
        "prompts": prompt,
        "responses": response,
        "response_mask": ones,
        "loss_mask": ones,
        "input_ids": ids,
        "position_ids": positions[0],
        "multi_modal_inputs": inputs,
        "old_log_probs": torch.tensor(output["old"]),
        "advantages": torch.full(response.shape, output["advantage"]),
    }


def full(tensor: Any) -> torch.Tensor:
    """The whole of a sharded tensor."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().clone().contiguous()


def main() -> None:
    """Reads the request, takes the step."""
    request = json.load(sys.stdin)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.initialize_global_process_group_ray()
    config = compose(request["arguments"])
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    actor.optim.total_training_steps = config.trainer.total_training_steps
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor.engine.strategy,
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    engine.initialize()
    batch = tensordict_utils.list_of_dict_to_tensordict([row(output, model) for output in request["outputs"]])
    tensordict_utils.assign_non_tensor(
        batch,
        temperature=config.actor_rollout_ref.rollout.temperature,
        use_remove_padding=model.use_remove_padding,
        use_dynamic_bsz=actor.use_dynamic_bsz,
        micro_batch_size_per_gpu=actor.ppo_micro_batch_size_per_gpu,
        global_batch_size=actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n,
        calculate_entropy=False,
    )
    to = Path(request["to"])
    with engine.train_mode():
        tensordict_utils.maybe_fix_3d_position_ids(batch)
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(batch, partial(ppo_loss, config=actor))
        gradients = {name: full(p.grad) for name, p in engine.module.named_parameters() if p.grad is not None}
        save_file(gradients, to / "gradients.safetensors")
        norm = engine.optimizer_step()
        weights = {name: full(p) for name, p in engine.module.named_parameters()}
        save_file(weights, to / "weights.safetensors")
    metrics = {name: value for name, value in found["metrics"].items() if "pg_" in name}
    print(json.dumps({"loss": sum(found["loss"]), "grad_norm": float(norm), "metrics": metrics}, default=str))


if __name__ == "__main__":
    main()
