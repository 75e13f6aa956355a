"""What a checkpoint is asked: our own question set, and each benchmark, as rows of one schema."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from viper.digests import digest_of
from viper.engines.base import VisionLanguageModel
from viper.errors import AlreadyExistsError, NewerFormError, NotFoundError, StageError
from viper.evaluation.answers import Answers, Asked, Said, keep_rows, read_rows
from viper.evaluation.benchmarks import CATALOGUE, Verdict
from viper.evaluation.questions import Question, set_digest
from viper.evaluation.runner import RULES_OF_READING, ask, normalise
from viper.prompts import PromptSet
from viper.spec import IterationSpec
from viper.spec.evaluation import RULES
from viper.stage.progress import Progress
from viper.stage.rows import names_of, row_of, schema_of, values_of
from viper.store import ObjectStore, named_by_content
from viper.stored import enveloped, read_content

QUESTIONS = "questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """An answer, judged. What our own questions do not have is null: `output` to `tokens`."""

    model: str = ""
    model_digest: str = ""
    suite: str
    question_id: str
    domain: str
    kind: str
    expected: str
    prediction: str
    output: str | None = None
    note: str | None = None
    cluster: str | None = None
    groups: list[str] | None = None
    finished: bool | None = None
    tokens: int | None = None
    correct: bool
    accepted: bool = True
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """The verdict on an answer to a benchmark."""
        groups = tuple(self.groups or ())
        return Verdict(self.correct, self.expected, self.domain or "", self.kind or "", groups, self.cluster or "")


@dataclass(frozen=True)
class Result:
    """One model's answers to one suite, judged; `about` is what a manifest says of the suite with this model."""

    rows: list[AnswerRow]
    about: dict[str, Any]


class Suite(Protocol):
    """Something that every checkpoint is asked."""

    @property
    def name(self) -> str:
        """`questions` or the benchmark's task."""
        ...

    def result(self, store: ObjectStore, model: str, vlm: Callable[[], VisionLanguageModel], to: Progress) -> Result:
        """The judged answers of a model, from the store where they are known.

        Args:
            store: where they are kept.
            model: the model's digest.
            vlm: opens the model; not called when nothing has to be asked.
            to: told of the progress.
        """
        ...


class QuestionSuite:
    """Our own held-out questions: one prompt, normalised exact match."""

    name = QUESTIONS

    def __init__(self, questions: Sequence[Question], prompts: PromptSet, spec: IterationSpec) -> None:
        self.questions, self._prompts, self._settings = questions, prompts, spec.evaluation
        self.digest = evaluation_digest(questions, prompts, self._settings.max_tokens, spec.engines.vlm)

    def result(self, store: ObjectStore, model: str, vlm: Callable[[], VisionLanguageModel], to: Progress) -> Result:
        """See `Suite`."""
        key = f"evaluations/{self.digest}/{model.rpartition(':')[2]}.parquet"
        rows = self._recall(store, key)
        if rows is not None:
            to.reuse(len(self.questions))
            return Result(rows, {})
        settings = self._settings
        answered = ask(
            vlm(),
            self.questions,
            self._prompts,
            max_tokens=settings.max_tokens,
            batch=settings.batch,
            on_batch=to.advance,
        )
        rows = [
            AnswerRow(
                suite=QUESTIONS,
                question_id=a.question.question_id,
                domain=a.question.domain,
                kind=a.question.kind,
                expected=a.question.answer,
                prediction=a.prediction,
                correct=a.correct,
            )
            for a in answered
        ]
        if not keep_rows(store, key, parquet(rows)):
            rows = self._recall(store, key) or rows
        return Result(rows, {})

    def _recall(self, store: ObjectStore, key: str) -> list[AnswerRow] | None:
        """The answers of an earlier evaluation; None when there is none, or it does not hold these questions."""
        rows = read_rows(store, key)
        expected = [(q.question_id, q.answer) for q in self.questions]
        same = bool(rows) and rows is not None and set(rows[0]) == set(_kept())
        if not (same and rows and [(r["question_id"], r["expected"]) for r in rows] == expected):
            return None
        # By the rule of comparison that holds now: an older one may have judged them.
        return [_row_of(row | {"correct": normalise(row["prediction"]) == normalise(row["expected"])}) for row in rows]


def evaluation_digest(questions: Sequence[Question], prompts: PromptSet, max_tokens: int, engine: str) -> str:
    """sha256 of what decides the answers beside the model: questions, images, prompt, longest answer, engine."""
    decides = [set_digest(questions), prompts.digest("question"), max_tokens, engine]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


class BenchmarkSuite:
    """A benchmark of lmms-eval.

    Args:
        task: its name.
        spec: the iteration's specification.
        work_dir: scratch.

    Raises:
        InputError: lmms-eval or the data set is not there.
    """

    def __init__(self, task: str, spec: IterationSpec, work_dir: Path) -> None:
        from viper.evaluation import datasets, lmms

        self.name, self._spec, self._work_dir = task, spec, work_dir
        self._info, self._settings = CATALOGUE[task], spec.evaluation.benchmarks
        self._data = datasets.find(self._settings, self._info.facts.dataset)
        self._judge = self._settings.judge if self._info.judged else ""
        generation = spec.engines.generation
        decides = {
            "task": task,
            "version": lmms.task_version(self._info),
            "data": self._data.digest,
            "max_tokens": spec.evaluation.max_tokens,
            "instruction": self._settings.instruction,
            "engine": spec.engines.vlm,
            "pixels": [generation.min_pixels, generation.max_pixels],
            "max_model_tokens": generation.max_model_tokens,
        }
        self.digest = digest_of(decides)
        limit = self._settings.tasks[task].limit
        self._about: dict[str, Any] = {
            "digest": self.digest,
            "version": decides["version"],
            "dataset": self._info.facts.dataset,
            "data": self._data.digest,
            **({"limit": limit} if limit is not None else {}),
            **({"judge": self._judge} if self._judge else {}),
        }
        self._limit = limit

    def result(self, store: ObjectStore, model: str, vlm: Callable[[], VisionLanguageModel], to: Progress) -> Result:
        """See `Suite`."""
        prefix = f"evaluations/{self.digest}/{model.rpartition(':')[2]}"
        key = f"{prefix}/results/{digest_of([self._limit, self._judge, RULES_OF_READING])[:16]}"
        known = _recall_result(store, key)
        if known is not None:
            to.begin(self.name, len(known.rows), len(known.rows), unit="question")
            return known
        from viper.evaluation.lmms import LmmsBenchmark

        settings = self._spec.evaluation
        benchmark = LmmsBenchmark(
            self._info,
            self._data.path,
            self._work_dir / "lmms" / self.name,
            limit=self._limit,
            max_tokens=settings.max_tokens,
            instruction=self._settings.instruction,
            rules=self._judge in ("", RULES),
        )
        to.begin(self.name, len(benchmark), unit="question")
        answers = Answers(store, prefix, settings.max_tokens, settings.batch)

        def answer(questions: Sequence[Asked]) -> Iterable[Said]:
            return answers.ask(questions, vlm, to.advance)

        scored = benchmark.score(answer, self._open_judge(store))
        rows = [_row(self.name, said, scored.verdicts[said.question_id]) for said in scored.said]
        result = Result(rows, {**self._about, "metrics": scored.metrics})
        data = parquet(rows)
        digest = hashlib.sha256(data).hexdigest()
        with suppress(AlreadyExistsError):
            store.put(named_by_content(f"{key}.parquet", digest), data, if_absent=True)
        # Last: a description without rows would be a result that claims to be whole. The first one counts.
        description = enveloped({"rows": digest, "about": result.about})
        text = json.dumps(description, ensure_ascii=False, sort_keys=True).encode()
        return describe(store, key, text) or result

    def _open_judge(self, store: ObjectStore) -> Any:
        if self._judge in ("", RULES):
            return None
        from viper.engines.factory import endpoint_model
        from viper.evaluation.judge import Judge

        return Judge(endpoint_model(self._spec, self._judge), self._judge, store)


def _recall_result(store: ObjectStore, key: str) -> Result | None:
    try:
        described = read_content(store.get(f"{key}.json"), what="about a result", where=key, error=StageError)
        digest = str(described.get("rows"))
        try:
            data = store.get(named_by_content(f"{key}.parquet", digest))
        except NotFoundError:  # from before rows were called by their content
            data = store.get(f"{key}.parquet")
    except (NotFoundError, StageError, NewerFormError):
        return None
    if digest != hashlib.sha256(data).hexdigest() or not isinstance(described.get("about"), dict):
        return None
    import pyarrow.parquet as pq

    return Result([_row_of(row) for row in pq.read_table(io.BytesIO(data)).to_pylist()], described["about"])


def describe(store: ObjectStore, key: str, text: bytes) -> Result | None:
    """Stores what describes a result, unless there is a result that counts already, which is returned.

    What cannot be read is replaced; what a later release wrote for itself is not.
    """
    with suppress(AlreadyExistsError):
        store.put(f"{key}.json", text, if_absent=True)
        return None
    if (there := _recall_result(store, key)) is not None:
        return there
    try:
        read_content(store.get(f"{key}.json"), what="about a result", where=key, error=StageError)
    except NewerFormError:
        return None
    except (NotFoundError, StageError):
        pass
    store.put(f"{key}.json", text)
    return None


def _row(suite: str, said: Said, verdict: Verdict) -> AnswerRow:
    return AnswerRow(
        suite=suite,
        question_id=said.question_id,
        domain=verdict.domain,
        kind=verdict.kind,
        expected=verdict.expected,
        prediction=said.prediction,
        output=said.output,
        note=said.note,
        cluster=verdict.cluster,
        groups=list(verdict.groups),
        finished=said.finished,
        tokens=said.tokens,
        correct=verdict.correct,
    )


def _kept() -> list[str]:
    """Columns that are kept for whichever iteration asks: all but the model's and those that every part has."""
    of_a_part = names_of(AnswerRow, lambda row: (row.model, row.model_digest, row.accepted, row.reason))
    return [field.name for field in fields(AnswerRow) if field.name not in of_a_part]


def _row_of(values: Mapping[str, Any]) -> AnswerRow:
    """A row that was kept; null where an earlier release had no such column."""
    return row_of(AnswerRow, {**dict.fromkeys(_kept()), **values})


def parquet(rows: Sequence[AnswerRow]) -> bytes:
    """Rows of a suite as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer, all_columns = io.BytesIO(), schema_of(AnswerRow)
    schema = pa.schema([all_columns.field(name) for name in _kept()])
    pq.write_table(pa.Table.from_pylist(list(map(values_of, rows)), schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
