"""Batch scoring of 640 responses against the per-sample loops that one would write without it: same model, same scores.

    python benchmarks/reward.py [--rounds 3]

The responses are 128 prompts with 5 outputs each, from the small world's lessons: some sentences of an output are
right, some belong to another picture, one response in ten has no think block. Three ways to score them, each timed in
turn in the same process (CPU time, one thread, so that other work on the machine does not count), the best of
`--rounds` counting for each, and asserted to give the same 640 scores:

- batch: `viper.reward.equations.score_batch`;
- per response: one call of the model for a response's sentences, one for its ground truth;
- per sentence: one call of the model for each sentence and each ground truth.

Two models: the small world's own embedder (a fraction of a millisecond a sentence, so that everything around it
shows), and a BERT encoder of MiniLM's shape (6 layers, width 384) with random weights: its scores mean nothing, its
cost is real.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import SimilarityModel
from viper.reward.equations import score_batch
from viper.reward.sentences import parse_output
from viper.smallworld import language
from viper.smallworld.making.lessons import fresh_scene, slip
from viper.smallworld.similarity import SmallWorldSimilarity

PROMPTS, GROUP, TAU = 128, 5, 0.85


class MiniLmShape:
    """Mean-pooled BERT of MiniLM's size from a configuration; words are hashed to ids."""

    engine_id = "bert-6x384-random"

    def __init__(self) -> None:
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        self._model = BertModel(config, add_pooling_layer=False).eval()

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        import torch

        rows = [[1000 + sum(map(ord, word)) % 29_000 for word in s.split()] or [100] for s in sentences]
        found = np.empty((len(rows), self._model.config.hidden_size), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for begin in range(0, len(order), 64):
            batch = order[begin : begin + 64]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[i]) for i in batch], batch_first=True)
            mask = (ids > 0).long()
            with torch.inference_mode():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            found[batch] = torch.nn.functional.normalize(mean.float(), dim=1).cpu().numpy()
        return found


class Timed:
    """A model that adds up the CPU seconds spent in it."""

    def __init__(self, model: SimilarityModel) -> None:
        self.model, self.seconds, self.engine_id = model, 0.0, model.engine_id

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        start = time.process_time()
        rows = self.model.embed(sentences)
        self.seconds += time.process_time() - start
        return rows


def responses(rng: random.Random) -> tuple[list[str], list[list[str]]]:
    """640 outputs and their ground truths."""
    outputs, truths = [], []
    for _ in range(PROMPTS):
        truth, others = _flaws(rng), _flaws(rng)
        for _ in range(GROUP):
            said = [s for s in truth if rng.random() < 0.6] + [s for s in others if rng.random() < 0.3]
            thought = "" if rng.random() < 0.1 else f"<think>{' '.join(others)}</think>"
            outputs.append(thought + " ".join(said))
            truths.append(truth)
    return outputs, truths


def _flaws(rng: random.Random) -> list[str]:
    scene = fresh_scene(rng)
    found = language.flaws(slip(rng, scene, rng.randint(2, 4)), scene)
    return [language.flaw_sentence(flaw) for flaw in found] or [language.background_sentence(scene.background)]


def per_response(outputs: Sequence[str], truths: Sequence[Sequence[str]], model: SimilarityModel) -> list[float]:
    """The careful loop: two model calls a response."""
    return [_one(o, g, model.embed, model) for o, g in zip(outputs, truths, strict=True)]


def per_sentence(outputs: Sequence[str], truths: Sequence[Sequence[str]], model: SimilarityModel) -> list[float]:
    """The plain loop: a model call a sentence."""

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([model.embed([s])[0] for s in sentences])

    return [_one(o, g, embed, model) for o, g in zip(outputs, truths, strict=True)]


def _one(output: str, truth: Sequence[str], embed: Callable[[Sequence[str]], Any], model: SimilarityModel) -> float:
    parsed = parse_output(output)
    score = 0.05 * parsed.has_expected_form
    if parsed.sentences:
        left, right = embed(parsed.sentences), embed(truth)
        hits = [max(float(a @ b) for b in right) >= TAU for a in left]
        lengths = [len(s) for s in parsed.sentences]
        kept = sum(n for n, h in zip(lengths, hits, strict=True) if h)
        score += 0.95 * sum(hits) / len(hits) * kept / sum(lengths)
    return score


def batched(outputs: Sequence[str], truths: Sequence[Sequence[str]], model: SimilarityModel) -> list[float]:
    """This project's function."""
    return [r.reward for r in score_batch(outputs, truths, model)]


def main() -> None:
    """Prints a table per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    outputs, truths = responses(random.Random(0))
    sentences = sum(len(parse_output(o).sentences) for o in outputs)
    distinct = len({s for o, g in zip(outputs, truths, strict=True) for s in (*parse_output(o).sentences, *g)})
    print(f"{len(outputs)} responses, {sentences} sentences, {distinct} distinct ones with the ground truth")
    ways = {"batch": batched, "per response": per_response, "per sentence": per_sentence}
    models: list[SimilarityModel] = [SmallWorldSimilarity(), MiniLmShape()]
    for model in models:
        model.embed(["warm up"])
        best: dict[str, tuple[float, float]] = {}
        expected: list[float] = []
        for _ in range(args.rounds):
            for name, way in ways.items():
                timed, start = Timed(model), time.process_time()
                scores = way(outputs, truths, timed)
                took = time.process_time() - start
                best[name] = min(best.get(name, (np.inf, 0.0)), (took, took - timed.seconds))
                expected = expected or scores
                np.testing.assert_allclose(scores, expected, atol=1e-6, err_msg=f"{name} scores differently")
        print(f"\n{model.engine_id}   mean reward {np.mean(expected):.3f}")
        print(f"{'':14}{'CPU ms':>9}{'× batch':>9}{'outside the model':>19}")
        for name, (took, outside) in best.items():
            print(f"{name:14}{took * 1e3:>9.1f}{took / best['batch'][0]:>9.1f}{outside / took:>18.1%}")


if __name__ == "__main__":
    main()
