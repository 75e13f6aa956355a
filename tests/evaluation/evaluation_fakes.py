"""A model that answers from a table, questions it can be asked, and minimal iterations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.spec import parse_resource
from viper.spec.iteration import ViperIteration
from viper.stage import StageContext

Opener = Callable[..., StageContext]


class FakeVlm:
    """Answers a prompt by its first line from a table; unknown questions get no answer."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers, self.batches, self.samplings = answers, [], set[Sampling]()
        self.batches: list[int]

    @property
    def engine_id(self) -> str:
        return "fake"

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        self.batches.append(len(requests))
        self.samplings.add(sampling)
        assert all(len(r.images) == 1 and r.images[0].mode == "RGB" for r in requests)
        said = [next((a for q, a in self.answers.items() if q in r.prompt), "") for r in requests]
        return [VlmOutput(f"<think>looks</think>{text}", True, 3) for text in said]


def question_file(folder: Path, count: int = 6) -> Path:
    """`count` questions `What is it, number i?` with answer `colour i`, in two domains."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        Image.new("RGB", (40, 40), (i * 20, 0, 0)).save(folder / f"{i}.png")
        rows.append(
            {
                "question_id": f"q{i}",
                "domain": "fine" if i % 2 else "coarse",
                "image": f"{i}.png",
                "question": f"What is it, number {i}?",
                "answer": f"colour {i}",
            }
        )
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def iteration(name: str = "it", **spec: Any) -> ViperIteration:
    """An iteration with `spec` fields over a minimal one."""
    found = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": name},
            "spec": {
                "model": "small",
                "images": {"uri": "file:///images"},
                "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake"),
                "recipe": {"prompts": "smallworld", **spec.pop("recipe", {})},
                **spec,
            },
        }
    )
    assert isinstance(found, ViperIteration)
    return found
