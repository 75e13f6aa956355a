"""The HTTP side of the reward service: one output in, its reward out; health and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from viper.reward.equations import Reward
from viper.reward.service.batching import BatchLimits, MicroBatcher, Observer, QueueFullError
from viper.reward.service.scorer import ScoreItem, Scorer
from viper.text import load_json

#: Longest body of a request. The longest output that is read has 65,536 characters.
MAX_BODY_BYTES = 1 << 22
#: A batch that takes so long has hung: the service calls itself unhealthy.
HUNG_S = 300.0
_MEASURES = [field.name for field in fields(Reward) if field.name not in ("sentences", "missed")]
log = logging.getLogger(__name__)


class ScoreRequest(BaseModel):
    """The body of `POST /score`. `detail`: whether the reward comes with its sentences."""

    model_config = ConfigDict(extra="forbid", strict=True)

    output: str
    ground_truth: list[str]
    finished: bool = True
    detail: bool = True


class Metrics(Observer):
    """What Prometheus reads: sizes, waiting and working times of batches, answers, sentences remembered."""

    def __init__(self, scorer: Scorer) -> None:
        self.registry = registry = CollectorRegistry()
        self.answers = Counter("viper_reward_answers", "Answers by HTTP status.", ["status"], registry=registry)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
        times = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
        self._sizes = Histogram("viper_reward_batch_items", "Outputs per batch.", buckets=sizes, registry=registry)
        self._queue = Histogram(
            "viper_reward_queue_seconds", "Time an output waits for its batch.", buckets=times, registry=registry
        )
        self._work = Histogram(
            "viper_reward_batch_seconds", "Time a batch is worked on.", buckets=times, registry=registry
        )
        model = scorer.similarity
        self.gauge("viper_reward_sentences_kept", "Sentences whose embedding is remembered.", lambda: len(model))
        self.gauge("viper_reward_sentences_found", "Sentences that were remembered.", lambda: model.found)
        self.gauge("viper_reward_sentences_embedded", "Sentences that had to be embedded.", lambda: model.embedded)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a number that is looked up when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def batch(self, items: int, queue_s: Sequence[float], work_s: float) -> None:
        self._sizes.observe(items)
        self._work.observe(work_s)
        for waited in queue_s:
            self._queue.observe(waited)


def create_app(scorer: Scorer, limits: BatchLimits | None = None) -> Starlette:
    """The ASGI application. Its scorer is used by one thread.

    `POST /score` takes a `ScoreRequest` and returns a `Reward`. 413: the body is too long; 422: it is no
    `ScoreRequest`; 503 with Retry-After: the queue is full; 500: the similarity model failed.
    """
    metrics = Metrics(scorer)
    batcher: MicroBatcher[ScoreItem, Reward] = MicroBatcher(scorer, limits or BatchLimits(), metrics)
    metrics.gauge("viper_reward_waiting", "Outputs that wait for a batch.", lambda: batcher.waiting)

    async def score(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return _problem(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
        try:
            asked = ScoreRequest.model_validate(load_json(body))
        except ValidationError as error:
            first = error.errors()[0]
            return _problem(422, f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
        except ValueError as error:
            return _problem(422, f"body: is no JSON: {error}")
        try:
            reward = await batcher.submit(ScoreItem(asked.output, tuple(asked.ground_truth), asked.finished))
        except QueueFullError as full:
            return _problem(503, str(full), {"Retry-After": str(full.retry_after_s)})
        except Exception as error:
            log.exception("a batch could not be scored")
            return _problem(500, f"the batch could not be scored: {error}")
        return JSONResponse(asdict(reward) if asked.detail else {name: getattr(reward, name) for name in _MEASURES})

    async def health(_: Request) -> Response:
        hung = batcher.busy_s > HUNG_S
        about = {
            "status": "hung" if hung else "ok",
            "similarity": scorer.similarity.engine_id,
            "parameters": asdict(scorer.parameters),
            "waiting": batcher.waiting,
        }
        return JSONResponse(about, 503 if hung else 200)

    async def numbers(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        working = asyncio.create_task(batcher.run())
        yield
        batcher.close()
        await working

    def counted(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def wrapped(request: Request) -> Response:
            response = await handler(request)
            metrics.answers.labels(str(response.status_code)).inc()
            return response

        return wrapped

    return Starlette(
        routes=[
            Route("/score", counted(score), methods=["POST"]),
            Route("/healthz", health),
            Route("/metrics", numbers),
        ],
        lifespan=lifespan,
    )


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)
