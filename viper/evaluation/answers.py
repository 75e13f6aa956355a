"""What models said to benchmark questions, kept in the store by batch: a question is asked once, whatever happens.

The key of a batch is made of what decides its answers: the evaluation (task, data, limits, engine), the model, and the
questions themselves. Batches are never cut differently when a run goes on, so that an interrupted run ends with the
answers that an uninterrupted one has.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest
from viper.errors import AlreadyExistsError, NotFoundError
from viper.evaluation.runner import answer_of
from viper.store import ObjectStore
from viper.stored import known

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Asked:
    """A question of a benchmark. `load` decodes its images to RGB, in order; called when the question is asked."""

    question_id: str
    prompt: str
    load: Callable[[], Sequence[Image]]


@dataclass(frozen=True)
class Said:
    """What a model said. `prediction` is the answer without the reasoning; `note` says why there is none."""

    question_id: str
    prompt: str
    output: str
    prediction: str
    finished: bool
    tokens: int
    note: str


class Answers:
    """Answers of one model in one evaluation.

    Args:
        store: where they are kept.
        prefix: key prefix of this evaluation and model.
        max_tokens: longest answer.
        batch: questions of a generation batch.
    """

    def __init__(self, store: ObjectStore, prefix: str, max_tokens: int, batch: int) -> None:
        self._store, self._prefix, self._batch = store, prefix, batch
        self._sampling = Sampling(temperature=0.0, max_tokens=max_tokens)

    def ask(
        self, questions: Sequence[Asked], vlm: Callable[[], VisionLanguageModel], on_batch: Callable[[int], None]
    ) -> Iterator[Said]:
        """Answers in order, from the store where they are there, else by the model, one batch at a time.

        Args:
            vlm: opens the model; not called when every answer is known.
            on_batch: receives the number of questions of each batch that is complete.
        """
        for begin in range(0, len(questions), self._batch):
            chunk = questions[begin : begin + self._batch]
            key = f"{self._prefix}/answers/{_digest(chunk)}.parquet"
            said = self._recall(key, chunk)
            if said is None:
                requests = [VlmRequest(tuple(q.load()), q.prompt) for q in chunk]
                outputs = vlm().generate(requests, self._sampling)
                said = [
                    Said(q.question_id, q.prompt, o.text, answer_of(o.text, o.finished), o.finished, o.tokens, o.note)
                    for q, o in zip(chunk, outputs, strict=True)
                ]
                if not keep_rows(self._store, key, _parquet([asdict(s) for s in said])):
                    said = self._recall(key, chunk) or said
            on_batch(len(chunk))
            yield from said

    def _recall(self, key: str, chunk: Sequence[Asked]) -> list[Said] | None:
        rows = read_rows(self._store, key)
        if rows is None or [(r.get("question_id"), r.get("prompt")) for r in rows] != [
            (q.question_id, q.prompt) for q in chunk
        ]:
            return None
        try:
            return [_read_again(Said(**known(Said, row))) for row in rows]
        except (TypeError, AttributeError):  # it lacks a column, or has it of another type
            return None


def _read_again(said: Said) -> Said:
    """An answer that was kept, by the rule that holds now: it may have been read by an older one."""
    return replace(said, prediction=answer_of(said.output, said.finished))


def read_rows(store: ObjectStore, key: str) -> list[dict[str, Any]] | None:
    """The rows of a parquet object; None when it is not there or torn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.get(key))).to_pylist()
    except (NotFoundError, pa.ArrowInvalid):
        return None
    return rows


def keep_rows(store: ObjectStore, key: str, data: bytes) -> bool:
    """Stores rows as the ones that count from now on; False where there are some already that can be read."""
    try:
        store.put(key, data, if_absent=True)
    except AlreadyExistsError:
        if read_rows(store, key) is not None:
            return False
        store.put(key, data)
    return True


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer, compression="zstd")
    return buffer.getvalue()


def _digest(chunk: Sequence[Asked]) -> str:
    asked = [[q.question_id, q.prompt] for q in chunk]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()[:32]
