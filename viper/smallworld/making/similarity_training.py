"""Trains and measures the small world's similarity model: `viper smallworld train-similarity`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from viper.engines.base import SimilarityModel
from viper.smallworld.paraphrase import KINDS, Difference, Fact, Kind, Phrasing, counterfactual, random_fact, replaced
from viper.smallworld.similarity import WordTokenizer, padded
from viper.smallworld.similarity_network import EncoderConfig, SentenceEncoder
from viper.smallworld.wordings import CANONICAL, TRAINING, disturbed, unrelated

TAU: Final = 0.85
WAYS: Final[tuple[Difference, ...]] = get_args(Difference)
_NEGATIVES: Final[tuple[Difference, ...]] = ("replaced", "replaced", "swapped", "dropped", "hedged", "kind")
_RARE_NEGATIVES: Final[tuple[Difference, ...]] = ("related", "related", "negated", "joined")
_ANCHORS: Final = 40
_STRANGERS: Final = 24
_SHARPNESS: Final = 24.0
_SAME: Final = 0.95
_OTHER: Final = 0.65
_UNKNOWN_SHARE: Final = 0.04
"""Share of the known words that a training step reads by their spelling only, so that spelling is learnt too."""


def train_similarity(
    out: Path, seed: int = 0, steps: int = 6000, *, log: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Trains an encoder and writes `config.json`, `tokenizer.json` and `model.safetensors` to `out`.

    Contrastive with margins: two wordings of a fact are pulled above 0.95, counterfactuals, other facts and unrelated
    sentences pushed below 0.65, so that τ = 0.85 lies between. The same seed on the same machine gives the same
    weights. Returns the last step's measures.
    """
    rng = random.Random(f"similarity-{seed}")
    torch.manual_seed(seed)
    tokenizer = WordTokenizer(_vocabulary(rng), buckets=1024)
    config = EncoderConfig(
        words=len(tokenizer.words) + 1, buckets=1024, width=48, window=5, channels=128, hidden=192, dimensions=96
    )
    network = SentenceEncoder(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    spelling = tokenizer.ngrams(tokenizer.words)
    measures: dict[str, float] = {}
    for step in range(steps):
        loss, measures = _loss(network, tokenizer, spelling, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if log is not None and (step % 100 == 99 or step == steps - 1):
            log(f"step {step + 1}/{steps} " + " ".join(f"{name} {value:.3f}" for name, value in measures.items()))
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    tokenizer.save(out / "tokenizer.json")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, out / "model.safetensors")
    return measures


def _vocabulary(rng: random.Random) -> list[str]:
    """Every word that the training wordings use."""
    words: set[str] = set()
    for _ in range(6000):
        fact = random_fact(rng)
        for phrasing in (CANONICAL, TRAINING):
            words.update(WordTokenizer.split(phrasing.say(fact, rng)))
    return sorted(words | {"not", "or", "and"})


def _batch(rng: random.Random) -> tuple[list[Fact], list[str], list[str], list[str], list[int]]:
    """Facts, two wordings of each, and negatives with the index of the fact they belong to."""
    facts = [random_fact(rng) for _ in range(_ANCHORS)]
    half = len(facts) // 2
    facts[half:] = [replaced(fact, rng) if rng.random() < 0.5 else fact for fact in facts[half:]]
    first = [(CANONICAL if rng.random() < 0.6 else TRAINING).say(fact, rng) for fact in facts]
    second = [TRAINING.say(fact, rng) for fact in facts]
    negatives, owners = [], []
    for index, fact in enumerate(facts):
        for way in (*_NEGATIVES, rng.choice(_RARE_NEGATIVES)):
            wording = CANONICAL if rng.random() < 0.5 else TRAINING
            text = counterfactual(fact, way, wording, rng)
            if text is not None:
                negatives.append(text)
                owners.append(index)
    return facts, first, second, negatives, owners


def _loss(
    network: SentenceEncoder, tokenizer: WordTokenizer, spelling: tuple[list[int], list[int]], rng: random.Random
) -> tuple[Tensor, dict[str, float]]:
    facts, first, second, negatives, owners = _batch(rng)
    known = frozenset(tokenizer.words)
    second = [disturbed(text, rng, known) if rng.random() < 0.4 else text for text in second]
    negatives = [disturbed(text, rng, known) if rng.random() < 0.2 else text for text in negatives]
    strangers = [unrelated(rng) for _ in range(_STRANGERS)]
    encoded, unknown = tokenizer.encode([*first, *second, *negatives, *strangers])
    buckets, starts = tokenizer.ngrams(unknown)
    buckets, starts = spelling[0] + buckets, spelling[1] + [len(spelling[0]) + start for start in starts]
    spelled = network.spelled(torch.tensor(buckets), torch.tensor(starts))
    learnt = network.words.weight[1:]
    by_spelling = torch.rand(len(learnt), 1) < _UNKNOWN_SHARE
    mixed = torch.where(by_spelling, spelled[: len(learnt)], learnt)
    vectors = torch.cat([network.words.weight[:1], mixed, spelled[len(learnt) :]])
    embedded = network(torch.from_numpy(padded(encoded)), network.table(vectors))
    a, b, n, s = embedded.split([len(first), len(second), len(negatives), len(strangers)])

    owner = torch.tensor(owners)
    positive = (a * b).sum(-1)
    hard = torch.cat([(a[owner] * n).sum(-1), (b[owner] * n).sum(-1)])
    keys = [fact.key for fact in facts]
    same = torch.tensor([[x == y for y in keys] for x in keys])
    across = (a @ b.T).masked_fill(same, -1.0)
    foreign = torch.cat([a @ s.T, (s @ s.T).masked_fill(torch.eye(len(s), dtype=torch.bool), -1.0)])
    pull = functional.softplus(_SHARPNESS * (_SAME - positive)).mean()
    push = functional.softplus(_SHARPNESS * (hard - _OTHER)).mean() * 4
    push = push + functional.softplus(_SHARPNESS * (across - _OTHER)).sum(1).mean()
    push = push + functional.softplus(_SHARPNESS * (foreign - _OTHER)).sum(1).mean() / 4
    measures = {
        "loss": float((pull + push).detach()),
        "paraphrases": float((positive >= TAU).float().mean()),
        "counterfactuals": float((hard >= TAU).float().mean()),
    }
    return pull + push, measures


def _cosines(model: SimilarityModel, left: Sequence[str], right: Sequence[str]) -> NDArray[np.float32]:
    cosines: NDArray[np.float32] = (model.embed(left) * model.embed(right)).sum(1)
    return cosines


def discrimination(
    model: SimilarityModel,
    phrasing: Phrasing = TRAINING,
    *,
    count: int = 2000,
    seed: int = 10_000,
    tau: float = TAU,
    kinds: Sequence[Kind] = KINDS,
) -> dict[str, float]:
    """Share of pairs with cosine ≥ `tau`: `paraphrase`, and one figure per way in which counterfactuals differ.

    Each of `count` facts of the given kinds is said canonically (as ground truth is) and compared with another wording
    from `phrasing`, and with counterfactuals worded by `phrasing`. `counterfactual` pools those that differ in one
    value, in direction or in kind.
    """
    rng = random.Random(f"discrimination-{seed}")
    facts = [random_fact(rng, rng.choice(kinds)) for _ in range(count)]
    truth = [CANONICAL.say(fact, rng) for fact in facts]
    shares = {"paraphrase": float((_cosines(model, truth, [phrasing.say(f, rng) for f in facts]) >= tau).mean())}
    pooled: list[NDArray[np.bool_]] = []
    for way in WAYS:
        pairs = [(said, counterfactual(fact, way, phrasing, rng)) for said, fact in zip(truth, facts, strict=True)]
        made = [(said, other) for said, other in pairs if other is not None]
        hits = _cosines(model, [said for said, _ in made], [other for _, other in made]) >= tau
        if made:
            shares[way] = float(hits.mean())
        if way in ("replaced", "swapped", "kind"):
            pooled.append(hits)
    shares["counterfactual"] = float(np.concatenate(pooled).mean())
    return shares
