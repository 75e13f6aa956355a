"""A model behind an OpenAI-compatible endpoint: a judge, or a server that several shards share."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from viper import retries
from viper.engines.at_once import at_once
from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.chat_api import (
    TRANSIENT,
    NotAnAnswerError,
    chat_body,
    model_names,
    read_completion,
    rejected_request,
    retry_after,
    server_message,
)
from viper.engines.endpoints import API_KEY, endpoint
from viper.errors import EngineError, UnfitEngineError
from viper.retries import PassingError, retrying
from viper.spec.engines import GenerationSettings

log = logging.getLogger(__name__)
#: Seconds that a connection may take.
CONNECT_S = 10.0
#: Longest body of an answer that is read, in bytes.
MOST_BYTES = 16 * 2**20
_BLOCK = 1 << 16
_SETTING = "spec.engines.generation.timeoutSeconds"
_STATUS_FIX = {
    401: f"set {API_KEY} to a key that the server takes",
    403: f"set {API_KEY} to a key that may use the model",
    404: "correct the URL, which ends in /v1 on most servers, or the model's name",
    413: "set spec.engines.generation.maxPixels",
}


@dataclass(frozen=True)
class Clock:
    """Time, replaceable in tests: seconds of a clock that only goes forward, seconds since the epoch, a pause."""

    monotonic: Callable[[], float] = time.monotonic
    epoch: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class OpenAiEndpoint:
    """Chat completions over HTTP, `settings.batch` at once.

    Overload (429, with its Retry-After), errors of the server (5xx), broken connections and bodies that are no answer
    are tried again with growing pauses until `settings.timeout_seconds` have passed since the request was first sent;
    a request that the server does not take (400, 401, 404, …) is not. The key is the environment's OPENAI_API_KEY.

    Args:
        place: `https://host/v1#model-name`.
        settings: batch, timeout, and the pixels that images are scaled to before they are sent.

    Raises:
        SpecError: the address has another form.
        EngineError: the endpoint cannot be reached or does not offer the model.
    """

    def __init__(self, place: str, settings: GenerationSettings | None = None, clock: Clock | None = None) -> None:
        self._endpoint = endpoint(place)
        self._settings, self._clock = settings or GenerationSettings(), clock or Clock()
        self._pool = urllib3.PoolManager(maxsize=self._settings.batch, retries=False)
        key = os.environ.get(API_KEY, "").strip()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._check_model()

    @property
    def engine_id(self) -> str:
        """`openai/<URL>#<model>` and the pixel limits; the weights behind it are the server's word."""
        limits = self._settings.min_pixels, self._settings.max_pixels
        pixels = "" if limits == (None, None) else f"/pixels={limits[0] or ''}-{limits[1] or ''}"
        return f"openai/{self._endpoint.url}#{self._endpoint.model}{pixels}"

    @classmethod
    def memory_needed(cls, *_: Any) -> int:
        """0: the weights are elsewhere."""
        return 0

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        """See `VisionLanguageModel.generate`; equal outputs for equal seeds are up to the server.

        Raises `EngineError` when one request finds no answer; requests that have not begun are then dropped.
        """
        if not requests:
            return []
        stop = threading.Event()

        def answer(position: int) -> VlmOutput:
            body = chat_body(requests[position], sampling, self._endpoint.model, position, self._settings)
            return self._complete(body, stop)

        return at_once(answer, range(len(requests)), self._settings.batch, stop=stop.set)

    def _complete(self, body: Mapping[str, Any], stop: threading.Event) -> VlmOutput:
        def read(status: int, data: bytes) -> VlmOutput | None:
            return read_completion(data) if status == 200 else rejected_request(status, data)

        output: VlmOutput = self._attempts("POST", "/chat/completions", json.dumps(body).encode(), read, stop)
        return output

    def _check_model(self) -> None:
        def read(status: int, data: bytes) -> list[str] | None:
            return model_names(data) if status == 200 else None

        self._endpoint.check_offered(self._attempts("GET", "/models", None, read, threading.Event()))

    def _attempts(
        self, method: str, path: str, body: bytes | None, read: Callable[[int, bytes], Any], stop: threading.Event
    ) -> Any:
        """What `read` makes of the first answer that is one; it gives None for a status that it does not know."""
        url, clock, seconds = self._endpoint.url + path, self._clock, self._settings.timeout_seconds
        deadline = clock.monotonic() + seconds

        def once() -> Any:
            try:
                status, headers, data = self._send(method, url, body, deadline)
                result = read(status, data)
            except NotAnAnswerError as error:
                raise PassingError(f"what it answers is not of the OpenAI API: {error}") from error
            except (HTTPError, OSError) as error:
                raise PassingError(f"no answer: {_reason(error)}") from error
            if result is not None:
                return result
            problem = f"it answers {status}: {server_message(data)}"
            if status not in TRANSIENT:
                raise UnfitEngineError(problem, where=url, fix=_STATUS_FIX.get(status, "see the server's log"))
            raise PassingError(problem, retry_after(headers.get("Retry-After"), clock.epoch()) or 0.0)

        def tell(problem: BaseException, delay: float, _: int) -> None:
            log.info("%s: %s; again in %.1f s", url, problem, delay, extra={"viper_waits": True})

        policy = replace(retries.ENDPOINT, seconds=seconds)
        try:
            return retrying(policy, told=tell, stopped=stop, sleep=clock.sleep, clock=clock.monotonic)(once)
        except PassingError as problem:
            raise EngineError(
                f"{problem} (tried for {seconds:g} s)",
                where=url,
                fix=f"see to the server; {_SETTING} and .batch set how long and how much at once is asked of it",
            ) from problem.__cause__

    def _send(self, method: str, url: str, body: bytes | None, deadline: float) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body. Redirects are not followed: the key would go with them."""
        left = max(0.001, deadline - self._clock.monotonic())
        response = self._pool.request(
            method,
            url,
            body=body,
            headers=self._headers | ({} if body is None else {"Content-Type": "application/json"}),
            timeout=urllib3.Timeout(connect=min(CONNECT_S, left), read=left),
            redirect=False,
            preload_content=False,
        )
        data = bytearray()
        try:
            for block in response.stream(_BLOCK):
                data += block
                if len(data) > MOST_BYTES:
                    raise NotAnAnswerError(f"more than {MOST_BYTES} bytes")
                if self._clock.monotonic() > deadline:
                    raise TimeoutError("the answer does not end")
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, bytes(data)


def _reason(error: Exception) -> str:
    """The innermost reason of a failed request, without addresses of objects."""
    while isinstance(inner := getattr(error, "reason", None), Exception):
        error = inner
    return f"{type(error).__name__}: {str(error).rpartition('>: ')[2][:200]}"
