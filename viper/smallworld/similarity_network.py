"""The sentence encoder behind `SmallWorldSimilarity`: a convolution over words, pooled, then a small perceptron.

The convolution is linear in the word vectors, so each word's contribution at each of the window's places is a row of
a table: at run time a sentence costs look-ups and additions, which is why one thread embeds tens of thousands a second.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional


class EncoderConfig(TypedDict):
    """Sizes of the network; `words` counts the padding word 0."""

    words: int
    buckets: int
    width: int
    window: int
    channels: int
    hidden: int
    dimensions: int


class SentenceEncoder(nn.Module):
    """Word ids to unit vectors. Unknown words are the mean of the vectors of their hashed character n-grams."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.window = config["window"]
        self.words = nn.Embedding(config["words"], config["width"])
        self.ngrams = nn.Embedding(config["buckets"], config["width"])
        self.filters = nn.Parameter(torch.empty(config["width"], config["window"] * config["channels"]))
        self.bias = nn.Parameter(torch.zeros(config["channels"]))
        self.hidden = nn.Linear(2 * config["channels"], config["hidden"])
        self.output = nn.Linear(config["hidden"], config["dimensions"])
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.normal_(self.ngrams.weight, std=1.0)
        nn.init.normal_(self.filters, std=(config["width"] * config["window"]) ** -0.5)

    def spelled(self, ngrams: Tensor, offsets: Tensor) -> Tensor:
        """Vectors [n, width] of words given by their n-gram buckets, `offsets` [n] as in `embedding_bag`."""
        return functional.embedding_bag(ngrams, self.ngrams.weight, offsets, mode="mean")

    def table(self, vectors: Tensor) -> Tensor:
        """Word vectors [n, width] to rows [n · window, channels]: a word's share of the convolution at each place."""
        return (vectors @ self.filters).view(-1, self.bias.numel())

    def forward(self, ids: Tensor, table: Tensor) -> Tensor:
        """`ids` [batch, length], padded with 0 at the end, index the words of `table`; unit rows [batch, d]."""
        batch, length = ids.shape
        side = self.window // 2
        windows = functional.pad(ids, (side, side)).unfold(1, self.window, 1)
        rows = windows * self.window + torch.arange(self.window)
        found = functional.embedding_bag(rows.reshape(-1, self.window), table, mode="sum") + self.bias
        found = functional.relu(found).view(batch, length, -1)
        there = (ids > 0).unsqueeze(-1).to(found.dtype)
        found = found * there  # not negative, so a padded place never wins the maximum
        mean = found.sum(1) / there.sum(1).clamp(min=1.0)
        pooled = torch.cat([mean, found.amax(1)], dim=-1)
        return functional.normalize(self.output(functional.gelu(self.hidden(pooled))), dim=-1)
