"""A GRPO step of `viper.training.local.grpo` against `trl.GRPOTrainer.train()`: same configuration, model and prompts.

    python benchmarks/grpo.py [--prompts 64] [--steps 3] [--model DIRECTORY]

Without `--model`, an untrained model of the small world's shape is used. Its outputs run to the token limit and earn
nothing, so rewards are a hash of the text on both sides: nearly every group has signal, the dearest case, in which few
outputs are left out of the update. CPU time of one thread per step; the first step of each side is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import RlSample
from viper.smallworld.drawing import STUDIO
from viper.smallworld.making.lessons import Teacher
from viper.training.local.grpo import GrpoSettings, train_grpo


def noise(text: str) -> float:
    """A reward in [0, 1] that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


class Noise:
    """Similarity that makes `score_batch` about as random as `noise`, and costs next to nothing."""

    engine_id = "noise"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        angle = np.array([noise(s) for s in sentences], np.float32)
        return np.stack([np.cos(angle), np.sin(angle)], 1)


def samples(count: int) -> list[RlSample]:
    """Operation predicting: two pictures a prompt."""
    teacher = Teacher(random.Random(0), STUDIO)
    lessons = [teacher.operation_predicting() for _ in range(count)]
    return [RlSample(str(i), lesson.prompt, lesson.images, (lesson.answer,)) for i, lesson in enumerate(lessons)]


def ours(model: Path, data: Sequence[RlSample], settings: GrpoSettings, work: Path) -> list[float]:
    """CPU seconds of each step."""
    seconds, last = [], [time.process_time()]

    def on_step(_: Any) -> None:
        seconds.append(time.process_time() - last[0])
        last[0] = time.process_time()

    train_grpo(model, data, [], Noise(), settings, work, on_step=on_step)
    return seconds


def plain(model: Path, data: Sequence[RlSample], settings: GrpoSettings, work: Path) -> list[float]:
    """The same with TRL as it comes."""
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
    from trl import GRPOTrainer

    from viper.training.local.trl_loss import grpo_config

    seconds: list[float] = []
    updates = settings.batch_prompts // settings.mini_batch_prompts

    class Clock(TrainerCallback):  # type: ignore[misc]
        last = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % updates == 0:
                seconds.append(time.process_time() - self.last)
                self.last = time.process_time()

    def reward(completions: Sequence[Any], **_: Any) -> list[float]:
        return [noise(c[0]["content"]) for c in completions]

    class Quiet(GRPOTrainer):  # type: ignore[misc]
        def _send_telemetry(self) -> None: ...

    args = grpo_config(settings, work)
    args.max_steps = (settings.steps or 1) * updates
    loaded = AutoModelForImageTextToText.from_pretrained(model)
    # An image token without an image would break TRL's scoring pass.
    args.generation_kwargs = {"suppress_tokens": loaded.generation_config.suppress_tokens}
    rows = [{"prompt": [{"role": "user", "content": s.prompt}], "images": list(s.images)} for s in data]
    Quiet(
        model=loaded,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(model),
        callbacks=[Clock()],
    ).train()
    return seconds


def untrained(directory: Path) -> Path:
    """The small world's architecture with random weights."""
    from viper.smallworld.model import build_model, build_processor, save

    processor = build_processor()
    save(build_model(processor.tokenizer), processor, directory)
    return directory


def main() -> None:
    """Prints prompts per CPU second for both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=36)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    settings = GrpoSettings(
        steps=args.steps,
        batch_prompts=args.prompts,
        mini_batch_prompts=args.prompts // 2,
        max_response_tokens=args.tokens,
        tau=0.9,
        threads=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or untrained(Path(folder) / "model")
        data = samples(args.prompts)
        ways: dict[str, Callable[..., list[float]]] = {"viper": ours, "trl": plain}
        best = {name: min(way(model, data, settings, Path(folder) / name)[1:]) for name, way in ways.items()}
    for name, seconds in best.items():
        print(f"{name:6} {seconds:7.2f} CPU s a step   {args.prompts / seconds:6.1f} prompts/s")
    print(f"ratio  {best['trl'] / best['viper']:7.1f}")


if __name__ == "__main__":
    main()
