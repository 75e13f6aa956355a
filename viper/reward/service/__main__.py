"""The reward service as a process; `viper.reward.service.process.running` starts it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from viper.engines import factory
from viper.errors import ViperError
from viper.reward.equations import RewardParameters
from viper.reward.service.batching import BatchLimits
from viper.reward.service.scorer import Scorer

#: Seconds for what is in work when the service is asked to stop.
GRACE_S = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM, or until standard input ends: it does not outlive who started it."""
    parser = argparse.ArgumentParser(prog="python -m viper.reward.service", description=main.__doc__)
    parser.add_argument("--similarity", required=True, metavar="ENGINE", help="as in spec.engines.similarity")
    parser.add_argument("--device", default="cpu", help="torch device of the similarity model")
    for name in ("tau", "format-weight", "correct-weight"):
        default = getattr(RewardParameters(), name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=float, default=default, metavar="X", help="as in recipe.reward")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    defaults = BatchLimits()
    parser.add_argument("--batch", type=int, default=defaults.batch, help="most outputs of a batch")
    parser.add_argument("--waiting", type=int, default=defaults.waiting, help="most outputs that wait")
    parser.add_argument("--ready-fd", type=int, help="where a line of JSON is written once it serves")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        similarity = factory.similarity(args.similarity, args.device)
        scorer = Scorer(similarity, RewardParameters(args.tau, args.format_weight, args.correct_weight))
        similarity.embed(["A first sentence loads the model, so that what cannot be loaded ends here."])
        listening = socket.create_server((args.host, args.port))
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {args.host}:{args.port}: {error}", file=sys.stderr)
        return 1
    ready = {"port": listening.getsockname()[1], "similarity": scorer.similarity.engine_id}
    asyncio.run(_serve(scorer, BatchLimits(args.batch, args.waiting), listening, ready, args.ready_fd))
    return 0


async def _serve(
    scorer: Scorer, limits: BatchLimits, listening: socket.socket, ready: dict[str, object], ready_fd: int | None
) -> None:
    import uvicorn

    from viper.reward.service.app import create_app

    config = uvicorn.Config(
        create_app(scorer, limits), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    if ready_fd is not None:
        # The socket listens already: who connects from now on is answered as soon as the server runs.
        with os.fdopen(ready_fd, "w") as file:
            file.write(json.dumps(ready) + "\n")
    # uvicorn raises the signal again once it has stopped; having stopped when asked to is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    await server.serve(sockets=[listening])


def _stop_with_parent(server: object) -> None:
    while os.read(0, 4096):
        pass
    server.should_exit = True  # type: ignore[attr-defined]
    threading.Event().wait(GRACE_S + 10)
    os._exit(1)  # a batch that hangs


if __name__ == "__main__":
    sys.exit(main())
