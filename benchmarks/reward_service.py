"""640 responses through verl's own reward loop: asking the reward service against computing in the loop.

    PYTHONPATH=.:benchmarks "$(tests/support/environment.sh verl)" benchmarks/reward_service.py [--model M]

verl's `RewardLoopWorker` (the class that its Ray actors run) decodes and scores one response a call, as its agent loops
ask it to. The same 640 responses, tokens included, are scored in one run

- in-process: the reward function that one would write holds the model and scores its response by itself;
- by the service: the reward function of this project asks `viper.reward.service`, a process of its own on the same
  machine, which starts without remembering any sentence; with 64 calls at a time, and with all at once, as they
  come when a batch has been generated.

All ways give the same scores as one `score_batch` over everything, which is asserted. Wall time, and CPU time of the
loop's process and the service's together (other work on the machine does not count in it); start-up and loading of the
models are left out. Models:

- `minilm`: 6 layers, width 384, random weights, as in benchmarks/reward.py: real work, on one core;
- `base`: 12 layers, width 768, likewise; minutes;
- `bge-m3`: 24 layers, width 1024, random weights, the real one's size; with `--device cuda`, or much patience;
- `latency`: no model at all, 15 ms for each pass of up to 256 sentences: what a GPU does with a model of that size,
  where a pass costs its kernel launches;
- `smallworld`: the small world's trained one, a fraction of a millisecond a sentence: what the detour itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import urllib3
from numpy.typing import NDArray
from reward import GROUP, MiniLmShape, responses

from viper.engines import factory
from viper.engines.base import SimilarityModel
from viper.reward.equations import RewardParameters, score_batch
from viper.reward.service.process import RewardServer, running
from viper.training.verl.reward_function import sentences_of

RESPONSE_TOKENS = 50
"""The limit: it cuts off about one response in ten."""


class BaseShape(MiniLmShape):
    """BERT of XLM-RoBERTa base's depth and width, random weights, in half precision on a GPU."""

    engine_id = "bert-12x768-random"
    layers, width = 12, 768

    def __init__(self, device: str = "cpu") -> None:
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            intermediate_size=4 * self.width,
        )
        model = BertModel(config, add_pooling_layer=False).eval().to(device)
        self._model = model.half() if device.startswith("cuda") else model
        self._device = device

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        import torch

        with torch.device(self._device):
            return super().embed(sentences)


class BgeM3Shape(BaseShape):
    """The same with BGE-M3's depth and width."""

    engine_id = "bert-24x1024-random"
    layers, width = 24, 1024


class Latency:
    """Stands for a GPU: a pass of up to 256 sentences takes 15 ms; vectors are counts of words."""

    engine_id = "15 ms a pass (simulated)"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(0.015 * -(-len(sentences) // 256))
        rows = np.zeros((len(sentences), 256), np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            for word in sentence.lower().split():
                row[zlib.crc32(word.encode()) % 256] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


MODELS = {
    "minilm": "reward:MiniLmShape",
    "base": "reward_service:BaseShape",
    "bge-m3": "reward_service:BgeM3Shape",
    "latency": "reward_service:Latency",
    "smallworld": "smallworld",
}


@cache
def model_of_the_loop() -> SimilarityModel:
    """The model in the process of verl's loop, as a reward function would keep it."""
    return factory.similarity(os.environ["BENCHMARK_MODEL"], os.environ["BENCHMARK_DEVICE"])


async def in_process(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any], **_: Any
) -> dict[str, float]:
    """What verl is given where there is no service."""
    finished = bool(extra_info["finished"])
    truth = sentences_of(ground_truth)
    (found,) = score_batch([solution_str], [truth], model_of_the_loop(), RewardParameters(), [finished])
    return {"score": found.reward, "finished": float(finished)}


def loop_worker(tokenizer: Path, function: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """verl's reward loop with a reward function, by verl's own configuration."""
    import verl
    from hydra import compose, initialize_config_dir
    from omegaconf import open_dict
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer")
    with open_dict(config):
        config.actor_rollout_ref.model.path = str(tokenizer)
        config.actor_rollout_ref.rollout.response_length = RESPONSE_TOKENS
        function_settings = {"path": function, "name": name, "reward_kwargs": dict(arguments)}
        config.reward.custom_reward_function = function_settings
        config.reward.reward_manager.source = "importlib"
        config.reward.reward_manager.name = "FinishedRewardManager"
        config.reward.reward_manager.module.path = "pkg://viper.training.verl.reward_manager"
    return RewardLoopWorker(config)


def as_verl_has_it(tokenizer: Any, outputs: Sequence[str], truths: Sequence[Sequence[str]]) -> list[Any]:
    """One `DataProto` per response, as verl's agent loop makes it."""
    import torch
    from verl import DataProto

    prompt = torch.tensor([[tokenizer.eos_token_id]])
    rows = []
    for number, (output, truth) in enumerate(zip(outputs, truths, strict=True)):
        ids = [*tokenizer(output, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        found = torch.tensor([ids[:RESPONSE_TOKENS]])
        mask = torch.ones(1, 1 + found.shape[1], dtype=torch.long)
        others = {
            "data_source": np.array(["viper/captions"], dtype=object),
            "reward_model": np.array([{"ground_truth": json.dumps({"sentences": list(truth)})}], dtype=object),
            "extra_info": np.array([{"index": number}], dtype=object),
        }
        tensors = {"prompts": prompt, "responses": found, "attention_mask": mask}
        rows.append(DataProto.from_single_dict(tensors | others))
    return rows


@dataclass(frozen=True)
class Measured:
    """One way: what the loop returned for each row, seconds of each call, wall and CPU seconds of all."""

    found: list[dict[str, Any]]
    calls: list[float]
    wall_s: float
    cpu_s: float


async def scored(worker: Any, rows: Sequence[Any], callers: int, pid: int | None = None) -> Measured:
    """Scores all rows, `callers` at a time; `pid` is the service's process."""
    turn, found, calls = asyncio.Semaphore(callers), [{}] * len(rows), [0.0] * len(rows)

    async def one(i: int) -> None:
        async with turn:
            begun = time.perf_counter()
            found[i] = await worker.compute_score(rows[i])
            calls[i] = time.perf_counter() - begun

    start, cpu = time.perf_counter(), cpu_seconds(pid)
    await asyncio.gather(*map(one, range(len(rows))))
    return Measured(found, sorted(calls), time.perf_counter() - start, cpu_seconds(pid) - cpu)


def cpu_seconds(pid: int | None) -> float:
    """CPU time so far of this process, and of process `pid`."""
    spent = time.process_time()
    if pid is not None:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def queue_times(server: RewardServer) -> tuple[float, float, float]:
    """Of the service so far: outputs per batch, mean seconds that one waited, and the bucket that holds 95 %."""
    text = urllib3.request("GET", f"{server.url}/metrics").data.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("viper_reward"))
    batches, count = float(values["viper_reward_batch_items_count"]), float(values["viper_reward_queue_seconds_count"])
    buckets = {k: float(v) for k, v in values.items() if k.startswith("viper_reward_queue_seconds_bucket")}
    p95 = next(key.split('"')[1] for key, value in buckets.items() if value >= 0.95 * count)
    return count / batches, float(values["viper_reward_queue_seconds_sum"]) / count, float(p95)


async def measured(args: argparse.Namespace, work: Path) -> None:
    """All ways, one after the other, and the table. In one event loop: verl's manager keeps the one it is made in."""
    from transformers import AutoTokenizer

    from viper.smallworld.model import build_processor

    outputs, truths = responses(random.Random(0))
    build_processor().tokenizer.save_pretrained(work)
    tokenizer = AutoTokenizer.from_pretrained(work)
    rows = as_verl_has_it(tokenizer, outputs, truths)
    model = MODELS[args.model]
    ways: dict[str, Measured] = {}
    queues = []
    for callers in (64, len(rows)):
        with running(model, args.device, RewardParameters(), work) as server:
            asking = loop_worker(
                work, "pkg://viper.training.verl.reward_function", "compute_score", {"url": server.url}
            )
            await scored(asking, rows[:2], 2)
            name = f"service, {callers} calls at a time"
            ways[name] = await scored(asking, rows, callers, server.pid)
            queues.append(queue_times(server))
    computing = loop_worker(work, "pkg://reward_service", "in_process", {})
    await scored(computing, rows[:2], 2)
    alone = await scored(computing, rows, 64)
    texts = [tokenizer.decode(row.batch["responses"][0], skip_special_tokens=True) for row in rows]
    finished = [bool(found["reward_extra_info"]["finished"]) for found in alone.found]
    whole = score_batch(texts, truths, model_of_the_loop(), RewardParameters(), finished)
    for way in (alone, *ways.values()):
        np.testing.assert_allclose([f["reward_score"] for f in way.found], [w.reward for w in whole], atol=1e-6)
    assert 0 < sum(finished) < len(finished)
    print(f"{len(rows)} responses in groups of {GROUP}, {model_of_the_loop().engine_id}, {args.device}")
    print(f"{'':32}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}   a call takes")
    for name, way in {"in-process": alone, **ways}.items():
        median, most = statistics.median(way.calls), way.calls[int(0.95 * len(way.calls))]
        print(
            f"{name:32}{way.wall_s:>8.2f}{alone.wall_s / way.wall_s:>7.1f}{way.cpu_s:>8.2f}"
            f"{alone.cpu_s / way.cpu_s:>7.1f}   {median:.3f} s at the median, {most:.3f} s for 95 %"
        )
    for name, (per_batch, mean_s, p95_s) in zip(ways, queues, strict=True):
        print(f"{name}: {per_batch:.0f} a batch, in the queue {mean_s:.3f} s on average, at most {p95_s:g} s for 95 %")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="minilm")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    os.environ |= {"BENCHMARK_MODEL": MODELS[args.model], "BENCHMARK_DEVICE": args.device}
    with tempfile.TemporaryDirectory() as work:
        asyncio.run(measured(args, Path(work)))


if __name__ == "__main__":
    main()
