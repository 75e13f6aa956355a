"""lmms-eval's tasks with our engines behind them. Runs in the environment of images/evaluation.

The tasks' own prompts, post-processing, metrics and aggregations are used, through lmms-eval's own `evaluate`. Ours are
data sets from a local folder, which questions are asked, greedy decoding, one token limit for every task, and that an
answer is what follows the reasoning. Checked in the source of lmms-eval 0.7.3, and why something is overridden:

- `generation_kwargs`: limits of 16 to 128 tokens cut a model off that reasons; `until` is a blank line by default,
  which ends an answer after its first paragraph; mantis samples at T = 0.2.
- `limit` takes the first rows of a data set, which are of one category where it is sorted.
- `dataset_kwargs: {token: true}` needs a login, also for data on this machine.
- Logged samples keep the images that MME-RealWorld has as base64 text, 35 GB of them; hence the recorder.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viper.errors import InputError, StageError
from viper.evaluation.answers import Asked, Said
from viper.evaluation.benchmarks import BenchmarkInfo, Verdict, disagreements
from viper.evaluation.judge import Judge, judged_by

PACKAGE = "lmms-eval"
#: What lies beside the tasks and decides how answers are read.
_SHARED = "_task_utils"


@dataclass(frozen=True)
class Scored:
    """A benchmark after lmms-eval scored it: what was said and the verdict on it, in order, and its own numbers."""

    said: list[Said]
    verdicts: dict[str, Verdict]
    metrics: dict[str, float]


def tasks_folder() -> Path:
    """Where lmms-eval's task definitions are; raises `InputError` when it is not installed."""
    found = importlib.util.find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "benchmarks need lmms-eval, which is not installed here",
            where="spec.evaluation.benchmarks",
            fix="run the stage `evaluate` in the image `evaluation` (spec.profile.stages.evaluate.image), or in an "
            "environment of images/evaluation/cpu.lock",
        )
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


def task_version(info: BenchmarkInfo) -> str:
    """`<version of lmms-eval>+<digest of the task's definition>`: what was published as one version may be edited."""
    folder = tasks_folder()
    digest = hashlib.sha256()
    for place in (folder / info.facts.folder, folder / _SHARED):
        for path in sorted(p for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return f"{importlib.metadata.version(PACKAGE)}+{digest.hexdigest()[:12]}"


@dataclass
class _Leaf:
    """One task of a benchmark (BLINK has fourteen). `rows` are the numbers of its chosen questions in the data set."""

    name: str
    task: Any
    rows: list[int] = field(default_factory=list)
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)


class LmmsBenchmark:
    """A benchmark loaded from a local data set.

    Args:
        info: which.
        data: folder of the data set.
        cache: scratch for what `datasets` makes of it.
        limit: ask about this many questions.
        max_tokens: recorded as the tasks' own limit; what is asked through `score` has its own.
        instruction: appended to every prompt.
        rules: take the rule-based variant of a task that a model judges.

    Raises:
        InputError: the data set is not in the form that the task reads.
    """

    def __init__(
        self,
        info: BenchmarkInfo,
        data: Path,
        cache: Path,
        *,
        limit: int | None = None,
        max_tokens: int = 4096,
        instruction: str = "",
        rules: bool = True,
    ) -> None:
        self._info, self._instruction, self._cache = info, instruction, cache
        _prepare(cache)
        overrides: dict[str, Any] = {
            "dataset_path": str(data),
            "dataset_kwargs": {},
            "generation_kwargs": {"max_new_tokens": max_tokens, "temperature": 0, "do_sample": False, "until": []},
        }
        if rules and info.judged:
            overrides["metric_list"] = _rules()
        self._leaves = _load(info, overrides, data)
        self._choose(limit)

    def __len__(self) -> int:
        return sum(len(leaf.rows) for leaf in self._leaves)

    def score(self, answer: Callable[[Sequence[Asked]], Iterable[Said]], judge: Judge | None = None) -> Scored:
        """Lets lmms-eval ask and score.

        Args:
            answer: answers questions in order.
            judge: scores answers of a task that is judged; None takes the rules.

        Raises `StageError` when lmms-eval's own numbers are not what the verdicts add up to, `EngineError` when the
        judge does not answer.
        """
        from lmms_eval import evaluator  # type: ignore[import-not-found]
        from tenacity import RetryError

        model = _model(self._leaves, answer, self._instruction)
        tasks = {}
        for leaf in self._leaves:
            leaf.seen.clear()
            leaf.task.process_results = _recorded(leaf, type(leaf.task).process_results)
            tasks[leaf.name] = leaf.task
        arguments = argparse.Namespace(process_with_media=False, output_path=str(self._cache), reasoning_tags=None)
        try:
            with judged_by(judge, self._cache):
                results = evaluator.evaluate(
                    model, tasks, bootstrap_iters=0, log_samples=False, cli_args=arguments, process_docs_parallel=1
                )
        except RetryError as error:  # lmms-eval tries five times whatever the reason
            raise StageError(
                f"lmms-eval cannot score an answer: {error.last_attempt.exception()!r}", where=self._info.task
            ) from error
        return self._scored(model.said, results["results"])

    def _scored(self, said: list[Said], results: Mapping[str, Mapping[str, Any]]) -> Scored:
        verdicts: dict[str, Verdict] = {}
        metrics: dict[str, float] = {}
        for leaf in self._leaves:
            of_task = {}
            for row, (doc, found) in zip(leaf.rows, leaf.seen, strict=True):
                try:
                    of_task[_question_id(leaf.name, row)] = self._info.judge(doc, found)
                except (KeyError, TypeError) as error:
                    raise StageError(
                        f"lmms-eval's task {leaf.name} gives other results than those that are known: {error!r}",
                        where=f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
                        fix="use the version of images/evaluation/requirements.lock",
                    ) from error
            reported = _numbers(results[leaf.name])
            if wrong := disagreements(self._info, list(of_task.values()), reported):
                raise StageError(
                    f"lmms-eval and the count of its questions disagree: {'; '.join(wrong)}", where=leaf.name
                )
            verdicts |= of_task
            alone = len(self._leaves) == 1 and leaf.name == self._info.task
            metrics |= {name if alone else f"{leaf.name}/{name}": value for name, value in reported.items()}
        return Scored(said, verdicts, metrics)

    def _choose(self, limit: int | None) -> None:
        """All questions, or whole clusters in the order of their names' digests until there are `limit`."""
        clusters: dict[str, list[tuple[_Leaf, int]]] = defaultdict(list)
        for leaf in self._leaves:
            for row, name in enumerate(self._clusters(leaf)):
                clusters[f"{leaf.name}/{name}"].append((leaf, row))
        chosen = 0
        for name in sorted(clusters, key=lambda n: hashlib.sha256(n.encode()).digest()):
            if limit is not None and chosen >= limit:
                break
            for leaf, row in clusters[name]:
                leaf.rows.append(row)
            chosen += len(clusters[name])
        self._leaves = [leaf for leaf in self._leaves if leaf.rows]
        for leaf in self._leaves:
            leaf.rows.sort()
            if limit is not None:
                _select(leaf.task, leaf.rows)

    def _clusters(self, leaf: _Leaf) -> Iterable[str]:
        """Of each row, in order; rows are only read where the task has clusters."""
        if self._info.cluster is None:
            return (str(row) for row in range(len(leaf.task.eval_docs)))
        return (self._info.cluster(doc) for doc in leaf.task.eval_docs_no_media)


def _question_id(task: str, row: int) -> str:
    return f"{task}/{row}"


def _prepare(cache: Path) -> None:
    """Before lmms-eval is imported: no hub, caches in our scratch, no progress bars of its own."""
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")  # data sets are on this machine by now
    os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(cache / "datasets")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from loguru import logger  # type: ignore[import-not-found]

    logger.disable("lmms_eval")
    logging.getLogger("datasets").setLevel(logging.ERROR)


def _load(info: BenchmarkInfo, overrides: dict[str, Any], data: Path) -> list[_Leaf]:
    from lmms_eval.tasks import TaskManager  # type: ignore[import-not-found]
    from tenacity import RetryError

    manager = TaskManager(include_path=[str(tasks_folder() / info.facts.folder)], include_defaults=False)
    try:
        found = manager.load_task_or_group([{"task": info.task, **overrides}], "simple")
    except (RetryError, ValueError, KeyError, TypeError, OSError) as error:
        inner = error.last_attempt.exception() if isinstance(error, RetryError) else error
        raise InputError(
            f"lmms-eval's task {info.task} cannot read the data set: {type(inner).__name__}: {inner}",
            where=str(data),
            fix=f"it has to be {info.facts.dataset} as the hub has it, with its README.md",
        ) from error
    return [_Leaf(name, task) for name, task in _flat(found)]


def _flat(tasks: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _flat(task)
        else:
            yield str(name), task


def _rules() -> list[dict[str, Any]]:
    """HallusionBench's own rule-based variant: yes or no, compared with the answer."""
    from lmms_eval.tasks.hallusion_bench import evaluate_hb  # type: ignore[import-not-found]

    return [
        {
            "metric": m,
            "aggregation": getattr(evaluate_hb, f"hb_aggregation_result_{m}_intern"),
            "higher_is_better": True,
        }
        for m in ("aAcc", "qAcc", "fAcc")
    ]


def _select(task: Any, rows: Sequence[int]) -> None:
    split = task.config.test_split
    task.dataset[split] = task.dataset[split].select(rows)
    if task.dataset_no_image is not task.dataset:
        task.dataset_no_image[split] = task.dataset_no_image[split].select(rows)
    task.task_docs = task.dataset[split]


def _recorded(leaf: _Leaf, original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """`process_results` that notes documents and results in order, without what is as large as an image."""

    def process(doc: Mapping[str, Any], results: Any, full_docs: Any = None) -> dict[str, Any]:
        found = original(leaf.task, doc, results, full_docs=full_docs)
        small = {k: v for k, v in doc.items() if isinstance(v, (str, int, float, bool)) and k != "bytes"}
        leaf.seen.append((small, found))
        return found

    return process


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """`exact_match,none` → value; standard errors left out."""
    found = {}
    for key, value in results.items():
        metric = key.partition(",")[0]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and "_stderr" not in metric:
            found[metric] = float(value)
    return found


def _model(leaves: Sequence[_Leaf], answer: Callable[[Sequence[Asked]], Iterable[Said]], instruction: str) -> Any:
    from lmms_eval.api.model import lmms  # type: ignore[import-not-found]

    rows = {leaf.name: leaf.rows for leaf in leaves}

    class EngineModel(lmms):  # type: ignore[misc]
        """An lmms-eval model that passes prompts and images on, whatever generation settings come with them."""

        is_simple = True
        accelerator = None  # it is not lmms-eval that places the model

        def __init__(self) -> None:
            super().__init__()
            self.task_dict = {leaf.name: leaf.task.dataset for leaf in leaves}
            self.said: list[Said] = []

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """The answers; what is `until` here would end reasoning at its first blank line."""
            self.said = list(answer([self._asked(request.args) for request in requests]))
            return [said.prediction for said in self.said]

        def _asked(self, arguments: tuple[Any, ...]) -> Asked:
            prompt, _, to_visual, position, task, split = arguments
            asked = f"{prompt}\n{instruction}" if instruction else prompt

            def load() -> list[Any]:
                return list(to_visual(self.task_dict[task][split][position]))

            return Asked(_question_id(task, rows[task][position]), asked, load)

        def loglikelihood(self, requests: Sequence[Any]) -> Any:
            raise NotImplementedError("none of the benchmarks compares likelihoods")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
            raise NotImplementedError("none of the benchmarks has several rounds")

    return EngineModel()
