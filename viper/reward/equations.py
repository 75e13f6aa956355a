"""The ViPER reward, equations 5 to 7, over a batch of outputs.

For an output O with text sequences S = {s_1 … s_N}, ground truth G = {g_1 … g_M} and L the length in characters:

    R_format  = 1 if O has the expected form, else 0                                           (5)
    R_correct = (Σ hit_i / N) · (Σ hit_i·L(s_i) / Σ L(s_i)),  hit_i = [max_j sim(s_i, g_j) ≥ τ]    (6)
    R         = 0.05·R_format + 0.95·R_correct                                                 (7)

`sim` is the cosine of the `SimilarityModel`'s embeddings (the paper's BGE-M3). What the equations leave open:

- N = 0 (no sentence, an empty refinement list, only a think block): R_correct = 0, so silence never pays.
- M = 0: nothing can be hit, R_correct = 0; validation keeps such samples out of the training data.
- R_format asks for one closed think block followed by an answer; `[]` is an answer.
- An output that was cut off has no answer (`viper.reader`): neither format nor sentences.

Known hole, the paper's: precision only. Recall, items and duplicates are returned as shadow measures, never rewarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import SimilarityModel
from viper.errors import StageError
from viper.reward.sentences import ParsedOutput, normalise, parse_output
from viper.spec.recipe import RewardSettings

_PAPER = RewardSettings()


@dataclass(frozen=True)
class RewardParameters:
    """The paper's values. `tau` is τ, a cosine; the weights multiply R_format and R_correct."""

    tau: float = _PAPER.tau
    format_weight: float = _PAPER.format_weight
    correct_weight: float = _PAPER.correct_weight


@dataclass(frozen=True)
class SentenceScore:
    """Why one sequence counted or not. Without ground truth `best_ground_truth` is empty and `similarity` 0."""

    sentence: str
    best_ground_truth: str
    similarity: float
    hit: bool
    length: int


@dataclass(frozen=True)
class Reward:
    """The score of one output with everything it was made from.

    `hit_share` and `length_share` are the two factors of equation 6. Shadow measures: `recall` is the share of ground
    truths that some sentence hits, `items` is N, `duplicate_share` the share of sentences that repeat an earlier one.
    """

    reward: float
    format: float
    correctness: float
    hit_share: float
    length_share: float
    recall: float
    items: int
    duplicate_share: float
    format_problem: str
    sentences: tuple[SentenceScore, ...]
    missed: tuple[str, ...]


def score_batch(
    outputs: Sequence[str],
    ground_truths: Sequence[Sequence[str]],
    similarity: SimilarityModel,
    parameters: RewardParameters | None = None,
    finished: Sequence[bool] | None = None,
) -> list[Reward]:
    """Scores a batch: one `embed` call, every distinct sentence embedded once, one matrix product.

    Args:
        outputs: B raw outputs, think block included.
        ground_truths: B lists of ground-truth sentences, in the order of `outputs`.
        similarity: embeds sentences to unit rows; its cosine is `sim`.
        parameters: τ and weights; the paper's by default.
        finished: B flags; False (stopped at the token limit): no answer, no format. All True when absent.

    Returns:
        B rewards, in order.

    Raises:
        ValueError: when the arguments' lengths differ.
        StageError: when the similarity model returns a wrong shape or values that are not finite.
    """
    p = parameters or RewardParameters()
    done = [True] * len(outputs) if finished is None else list(finished)
    if not len(outputs) == len(ground_truths) == len(done):
        raise ValueError(f"{len(outputs)} outputs, {len(ground_truths)} ground truths, {len(done)} finished flags")
    parsed = [parse_output(text, ok) for text, ok in zip(outputs, done, strict=True)]
    truth_sets = {key: _clean(key) for key in {tuple(g) for g in ground_truths}}
    truths = [truth_sets[tuple(g)] for g in ground_truths]
    rows = _index(s for o, g in zip(parsed, truths, strict=True) if g for s in o.sentences)
    columns = _index(s for o, g in zip(parsed, truths, strict=True) if o.sentences for s in g)
    cosine = _cosines(similarity, rows, columns)
    # The cosines that matter, flat and in order: for each output its sentences, for each sentence its ground truth.
    pairs = [(rows[s], columns[g]) for o, truth in zip(parsed, truths, strict=True) for s in o.sentences for g in truth]
    index = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    flat = iter(cosine[index[:, 0], index[:, 1]].tolist())
    return [
        _score(o, truth, [list(islice(flat, len(truth))) for _ in o.sentences], p)
        for o, truth in zip(parsed, truths, strict=True)
    ]


def _clean(sentences: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s for s in map(normalise, sentences) if s))


def _index(sentences: Iterable[str]) -> dict[str, int]:
    index: dict[str, int] = {}
    for sentence in sentences:
        index.setdefault(sentence, len(index))
    return index


def _cosines(similarity: SimilarityModel, rows: dict[str, int], columns: dict[str, int]) -> NDArray[np.float32]:
    """Shape (len(rows), len(columns))."""
    if not rows or not columns:
        return np.zeros((len(rows), len(columns)), np.float32)
    both = list(dict.fromkeys([*rows, *columns]))
    embedded = np.asarray(similarity.embed(both))
    if embedded.ndim != 2 or len(embedded) != len(both) or not np.isfinite(embedded).all():
        raise StageError(
            f"the similarity model gave {embedded.shape} for {len(both)} sentences, or values that are not finite",
            where=similarity.engine_id,
            fix="an embedding must be a finite row per sentence; check the model's files",
        )
    place = {s: i for i, s in enumerate(both)}
    product: NDArray[np.float32] = embedded[: len(rows)] @ embedded[[place[s] for s in columns]].T
    return product


def _score(output: ParsedOutput, truths: tuple[str, ...], cosines: list[list[float]], p: RewardParameters) -> Reward:
    """Equations 5 to 7 for one output; `cosines` holds, for each of the N sentences, its M similarities."""
    sentences: list[SentenceScore] = []
    reached: set[int] = set()
    for text, row in zip(output.sentences, cosines, strict=True):
        best = max(row, default=0.0)
        sentences.append(
            SentenceScore(text, truths[row.index(best)] if row else "", best, bool(row) and best >= p.tau, len(text))
        )
        reached.update(j for j, value in enumerate(row) if value >= p.tau)
    n, hits = len(sentences), [s for s in sentences if s.hit]
    hit_share = len(hits) / n if n else 0.0
    length_share = sum(s.length for s in hits) / sum(s.length for s in sentences) if n else 0.0
    form, correctness = float(output.has_expected_form), hit_share * length_share
    return Reward(
        reward=p.format_weight * form + p.correct_weight * correctness,
        format=form,
        correctness=correctness,
        hit_share=hit_share,
        length_share=length_share,
        recall=len(reached) / len(truths) if truths else 0.0,
        items=n,
        duplicate_share=1 - len({s.casefold().rstrip(".!?…。！？") for s in output.sentences}) / n if n else 0.0,
        format_problem=output.problem,
        sentences=tuple(sentences),
        missed=tuple(g for j, g in enumerate(truths) if j not in reached),
    )
