"""A rollout for tests: a Ray actor that samples with `generate`, one output at a time, in place of vLLM."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput


class GenerateServer:
    """What verl's agent loop asks for tokens; weights come from the trainer before every step."""

    def __init__(self, path: str) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(path)
        self.model = AutoModelForImageTextToText.from_pretrained(path).float().eval()
        config = self.model.config
        # An output with an image token has no image to go with it: verl drops such a sample without a word.
        vision = (
            config.image_token_id,
            config.video_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        )
        own = self.model.generation_config.suppress_tokens or []
        self.suppressed = sorted({t for t in (*vision, *own) if t is not None})
        self.step: int | None = None
        self.lock = asyncio.Lock()

    async def address(self) -> str:
        return "127.0.0.1:0"

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: list[Any] | None = None,
        video_data: list[Any] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """One output with the log-probability of each of its tokens at the sampling temperature."""
        async with self.lock:
            longest = int(sampling_params.get("max_tokens") or sampling_params.get("max_new_tokens") or 16)
            temperature = float(sampling_params.get("temperature", 1.0))
            ids = torch.tensor([list(prompt_ids)])
            inputs: dict[str, Any] = {}
            if image_data:
                inputs = dict(self.processor.image_processor(images=list(image_data), return_tensors="pt"))
                inputs["mm_token_type_ids"] = (ids == self.model.config.image_token_id).long()
            sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
            with torch.no_grad():
                made = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=longest,
                    top_k=0,
                    top_p=1.0,
                    suppress_tokens=self.suppressed or None,
                    return_dict_in_generate=True,
                    output_logits=True,
                    **sampling,
                    **inputs,
                )
            tokens = made.sequences[0, ids.shape[1] :]
            logits = torch.cat(made.logits).float() / (temperature if temperature > 0 else 1.0)
            logprobs = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
            return TokenOutput(
                token_ids=tokens.tolist(),
                log_probs=logprobs.tolist(),
                stop_reason="completed",
                extra_fields={"global_steps": self.step},
            )

    async def load(self, weights: dict[str, Any], step: int | None) -> int:
        """Takes the trainer's weights; every name must be one of the model's."""
        own = self.model.state_dict()
        if unknown := [name for name in weights if name not in own]:
            raise KeyError(f"the trainer's weights have other names than the model's: {unknown[:3]}")
        self.model.load_state_dict(
            {name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False
        )
        self.model.tie_weights()
        self.step = step
        return len(weights)

    async def wake_up(self, *_: Any, **__: Any) -> None: ...

    async def sleep(self, *_: Any, **__: Any) -> None: ...

    async def clear_kv_cache(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...

    async def abort_all_requests(self, **_: Any) -> dict[str, Any]:
        return {}

    async def resume_generation(self) -> None: ...

    async def start_profile(self, **_: Any) -> None: ...

    async def stop_profile(self) -> None: ...


class GenerateReplica(RolloutReplica):
    """Starts the server as an actor that takes no CPU of Ray's count."""

    async def launch_servers(self) -> None:
        path = getattr(self.model_config, "local_path", None) or self.model_config["path"]
        server = (
            ray.remote(GenerateServer)
            .options(name=_name(self.replica_rank), num_cpus=0, max_concurrency=self.max_concurrency)
            .remote(path)
        )
        self.servers.append(server)
        self._server_handle = server
        self._server_address = await server.address.remote()


class WeightSender(BaseRollout):
    """The trainer's side: sends the weights of this rank's replica."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(self, weights: Any, global_steps: int | None = None, **_: Any) -> None:
        taken: dict[str, Any] = {}
        if hasattr(weights, "__aiter__"):
            async for name, tensor in weights:
                taken[name] = tensor.detach().float().cpu().numpy().copy()
        else:
            for name, tensor in weights:
                taken[name] = tensor.detach().float().cpu().numpy().copy()
        server = ray.get_actor(_name(int(os.environ.get("RANK", "0"))))
        await server.load.remote(taken, global_steps)


def _name(rank: int) -> str:
    return f"hf_cpu_server_{rank}"
