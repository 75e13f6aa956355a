"""The model that scores answers where a benchmark has one: asked once for each answer, never silently absent.

lmms-eval's HallusionBench sends its judging prompts to the address in the environment, as `gpt-4`, and takes an answer
that does not come for "unclear": a judge that is down looks like a model that is wrong. Here the same prompts go to the
configured endpoint, greedily; verdicts are kept in the store by judge and prompt; a judge that fails fails the stage.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from viper.engines.base import Sampling, VisionLanguageModel, VlmRequest
from viper.errors import EngineError, NewerFormError, NotFoundError, StageError, ViperError
from viper.evaluation.runner import answer_of
from viper.store import ObjectStore, put_once
from viper.stored import enveloped, read_content

#: Longest answer of the judge. lmms-eval asks for 16 tokens, which a judge that reasons does not get by with.
MAX_TOKENS = 4096


class Judge:
    """A judge behind an endpoint.

    Args:
        vlm: the endpoint.
        name: its URI: verdicts of another judge are others.
        store: where verdicts are kept.
    """

    def __init__(self, vlm: VisionLanguageModel, name: str, store: ObjectStore) -> None:
        self._vlm, self._store = vlm, store
        self._prefix = f"evaluations/judge/{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def says(self, prompt: str) -> str:
        """What the judge answers to a prompt; raises `EngineError` when it does not."""
        key = f"{self._prefix}/{hashlib.sha256(prompt.encode()).hexdigest()}.json"
        newer = False
        try:
            return _verdict(self._store.get(key), key)
        except NewerFormError:
            newer = True
        except (NotFoundError, StageError):
            pass
        (output,) = self._vlm.generate([VlmRequest((), prompt)], Sampling(temperature=0.0, max_tokens=MAX_TOKENS))
        verdict = answer_of(output.text, output.finished)
        if not verdict:
            why = output.note or ("it gave no answer" if output.finished else f"none within {MAX_TOKENS} tokens")
            raise EngineError(
                f"the judge does not answer: {why}", where="spec.evaluation.benchmarks.judge", fix="take another judge"
            )
        data = json.dumps(enveloped({"prompt": prompt, "verdict": verdict}), ensure_ascii=False).encode()
        if newer:  # a later release's, which is not this one's to replace
            return verdict
        try:
            return _verdict(put_once(self._store, key, data), key)
        except NewerFormError:
            return verdict
        except StageError:  # what is there cannot be read
            self._store.put(key, data)
        return verdict


def _verdict(data: bytes, key: str) -> str:
    """Raises `StageError` for what is none, `NewerFormError`."""
    verdict = read_content(data, what="a verdict", where=key, error=StageError).get("verdict")
    if not isinstance(verdict, str) or not verdict:
        raise StageError("is not a verdict: it says nothing", where=key)
    return verdict


class _JudgeFailed(BaseException):
    """Carries the judge's error through lmms-eval, which catches every `Exception` and goes on."""

    def __init__(self, error: ViperError) -> None:
        super().__init__(str(error))
        self.error = error


class _Requests:
    """Stands where lmms-eval's module has `requests`: posts go to the judge."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def post(self, _url: str, *, json: dict[str, Any], **_: Any) -> _Response:
        (message,) = json["messages"]
        try:
            return _Response(self._judge.says(message["content"]))
        except ViperError as error:
            raise _JudgeFailed(error) from error


class _Response:
    def __init__(self, text: str) -> None:
        self._text = text

    def raise_for_status(self) -> None:
        """It is an answer."""

    def json(self) -> dict[str, Any]:
        """As the OpenAI API has it."""
        return {"choices": [{"message": {"content": self._text}}]}


@contextmanager
def judged_by(judge: Judge | None, output: Path) -> Iterator[None]:
    """Within, HallusionBench's judging calls go to `judge`; raises its error after them.

    Args:
        judge: None changes nothing.
        output: where lmms-eval is told to write. It takes verdicts that it finds there for those of this model, hence
            they are removed.
    """
    shutil.rmtree(output / "gpt_response", ignore_errors=True)
    if judge is None:
        yield
        return
    from lmms_eval.tasks.hallusion_bench import utils  # type: ignore[import-not-found]

    original = utils.requests
    utils.requests = _Requests(judge)
    try:
        yield
    except _JudgeFailed as failed:
        raise failed.error from None
    finally:
        utils.requests = original
