"""Sentence similarity in the small world: a small trained encoder that tells a wrong detail from other words.

The cosine of two sentences is at least 0.85 when they state the same fact, and below when one colour, place,
direction or operation differs. It knows the small world's vocabulary and its synonyms; any other word is read by its
spelling, which is enough to be unlike everything else.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from viper.errors import InputError

if TYPE_CHECKING:
    import torch

    from viper.smallworld.similarity_network import SentenceEncoder

ASSETS: Final = Path(__file__).parent / "assets" / "similarity"
MAX_WORDS: Final = 96
"""Words of a sentence that are read; facts have about fifteen."""
_BATCH: Final = 256


class WordTokenizer:
    """Lower-case words to ids. Id 0 is padding; known words follow in order; unknown words have no id."""

    def __init__(self, words: Sequence[str], buckets: int) -> None:
        self.words, self.buckets = tuple(words), buckets
        self._ids = {word: index + 1 for index, word in enumerate(words)}

    @classmethod
    def load(cls, path: Path) -> WordTokenizer:
        """Reads `tokenizer.json`."""
        saved = json.loads(path.read_text("utf-8"))
        return cls(saved["words"], saved["buckets"])

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json`."""
        path.write_text(json.dumps({"words": self.words, "buckets": self.buckets}, indent=1) + "\n", "utf-8")

    @staticmethod
    def split(sentence: str) -> list[str]:
        """The first `MAX_WORDS` words; punctuation and case do not count."""
        return re.findall(r"[^\W_]+", sentence.lower())[:MAX_WORDS]

    def encode(self, sentences: Iterable[str]) -> tuple[list[list[int]], list[str]]:
        """Ids per sentence, and the unknown words; unknown word number k has the id `len(self.words) + 1 + k`."""
        known, new = self._ids, dict[str, int]()
        first = len(known) + 1
        encoded = []
        for sentence in sentences:
            ids = []
            for word in self.split(sentence):
                found = known.get(word)
                ids.append(new.setdefault(word, first + len(new)) if found is None else found)
            encoded.append(ids)
        return encoded, list(new)

    def ngrams(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Buckets of each word's character 3- and 4-grams and of the whole word, and where each word starts."""
        buckets: list[int] = []
        starts = []
        for word in words:
            starts.append(len(buckets))
            marked = f"<{word[:64]}>"
            grams = {marked} | {marked[at : at + n] for n in (3, 4) for at in range(len(marked) - n + 1)}
            buckets += sorted(zlib.crc32(gram.encode()) % self.buckets for gram in grams)
        return buckets, starts


class SmallWorldSimilarity:
    """The `SimilarityModel` of the small world.

    Args:
        assets: a directory with `config.json`, `tokenizer.json` and `model.safetensors`, as `train_similarity`
            writes it; the packaged one by default.

    Raises `InputError` when a file is missing.
    """

    def __init__(self, assets: Path | None = None) -> None:
        self._assets = Path(assets) if assets is not None else ASSETS
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            if not (self._assets / name).is_file():
                raise InputError(
                    f"the similarity model lacks {name}",
                    where=str(self._assets),
                    fix="train one with `viper smallworld train-similarity --out DIRECTORY`",
                )
        self._tokenizer = WordTokenizer.load(self._assets / "tokenizer.json")

    @cached_property
    def engine_id(self) -> str:
        """Name, version and the first 12 digits of the sha256 over tokenizer and weights."""
        digest = sha256()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            digest.update((self._assets / name).read_bytes())
        return f"smallworld-similarity/1 sha256={digest.hexdigest()[:12]}"

    @cached_property
    def _network(self) -> SentenceEncoder:
        from safetensors.torch import load_file

        from viper.smallworld.similarity_network import SentenceEncoder

        network = SentenceEncoder(json.loads((self._assets / "config.json").read_text("utf-8")))
        network.load_state_dict(load_file(self._assets / "model.safetensors"))
        return network.eval().requires_grad_(False)

    @cached_property
    def _table(self) -> torch.Tensor:
        return self._network.table(self._network.words.weight)

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(sentences), d), rows of unit length; equal sentences get equal rows."""
        import torch

        network, table = self._network, self._table
        encoded, unknown = self._tokenizer.encode(sentences)
        with torch.inference_mode():
            if unknown:
                buckets, starts = self._tokenizer.ngrams(unknown)
                spelled = network.spelled(torch.tensor(buckets), torch.tensor(starts))
                table = torch.cat([table, network.table(spelled)])
            rows = np.empty((len(encoded), network.output.out_features), np.float32)
            order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                rows[batch] = network(torch.from_numpy(padded([encoded[index] for index in batch])), table).numpy()
        return rows


def padded(encoded: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Ids [n, longest], 0 at the end; at least one column."""
    ids = np.zeros((len(encoded), max([1, *map(len, encoded)])), np.int64)
    for row, sentence in enumerate(encoded):
        ids[row, : len(sentence)] = sentence
    return ids
