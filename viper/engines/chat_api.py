"""The chat-completions API of OpenAI, as vLLM, SGLang and others serve it: bodies of requests and answers. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.engines.pixels import within
from viper.images import encode_png
from viper.seeds import derive
from viper.spec.engines import GenerationSettings
from viper.text import load_json

#: Status codes of a server that may answer later.
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
#: Reasons of an answer's end that leave it unfinished; a server that gives none, or another one, has finished it.
_CUT_OFF = frozenset({"length", "max_tokens", "max_length", "model_length", "abort", "aborted", "cancelled", "error"})
_TOO_LONG = ("context_length_exceeded", "maximum context length", "maximum model length")
_REFUSED = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation")


class NotAnAnswerError(ValueError):
    """A body that is no chat completion."""


def chat_body(
    request: VlmRequest, sampling: Sampling, model: str, position: int, settings: GenerationSettings
) -> dict[str, Any]:
    """The body of `POST /chat/completions` for one request of a batch.

    Images as PNG data URLs, in order, before the text. The request's seed is derived from the batch's and its
    `position`, below 2**31: what every server takes.
    """
    content: list[dict[str, Any]] = []
    for image in request.images:
        png = base64.b64encode(encode_png(within(image, settings))).decode("ascii")
        content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}})
    content.append({"type": "text", "text": request.prompt})
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": derive(sampling.seed, "request", position) % 2**31,
    }
    if request.schema is not None:
        # Not `strict`: OpenAI's strict mode takes a subset of JSON schema; vLLM constrains decoding either way.
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": dict(request.schema)},
        }
    return body


def read_completion(data: bytes) -> VlmOutput:
    """The output in the body of a chat completion; raises `NotAnAnswerError` for any other body.

    A refusal (`message.refusal`, `finish_reason` content_filter) is an output without text and with a note. Where the
    server counts no tokens, four characters are one.
    """
    try:
        content = load_json(data)
        choice = content["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content") or "", message.get("refusal")
        counted = (content.get("usage") or {}).get("completion_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise NotAnAnswerError(f"{type(error).__name__}: {data[:120].decode(errors='replace')!r}") from None
    if not isinstance(text, str):
        raise NotAnAnswerError("message.content is not text")
    tokens = counted if isinstance(counted, int) and counted >= 0 else -(-len(text) // 4)
    if refusal or reason == "content_filter":
        return VlmOutput("", True, tokens, f"refused: {str(refusal or 'content filter')[:200]}")
    return VlmOutput(text, reason not in _CUT_OFF, tokens)


def rejected_request(status: int, data: bytes) -> VlmOutput | None:
    """The output for a request that the server did not take because of its content; None when that is not why."""
    said = data[:10_000].decode(errors="replace").casefold()
    if status == 400 and any(mark in said for mark in _TOO_LONG):
        return VlmOutput("", False, 0, f"the prompt is too long: {server_message(data)}")
    if status == 400 and any(mark in said for mark in _REFUSED):
        return VlmOutput("", True, 0, f"refused: {server_message(data)}")
    return None


def server_message(data: bytes) -> str:
    """What an error body says, at most 300 characters: `error.message`, `message` or `detail`, else its beginning."""
    try:
        content = load_json(data)
    except ValueError:
        content = None
    said: Any = content
    for key in ("error", "message", "detail"):
        if isinstance(said, Mapping) and said.get(key):
            said = said[key]
    text = said if isinstance(said, str) else data.decode(errors="replace")
    return " ".join(text.split())[:300]


def model_names(data: bytes) -> list[str]:
    """The names in the body of `GET /models`; raises `NotAnAnswerError`."""
    try:
        return [str(model["id"]) for model in load_json(data)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnAnswerError(f"{type(error).__name__}: {data[:120].decode(errors='replace')!r}") from None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110: seconds, or a date); None when it says nothing.

    Args:
        now: seconds since the epoch, for a date.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
