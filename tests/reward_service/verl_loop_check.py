"""Run by the interpreter of verl's environment: verl's own reward loop asks the service. Prints JSON.

python verl_loop_check.py WORK_DIRECTORY
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from reward import responses

from reward_service import as_verl_has_it, loop_worker, scored
from viper.errors import EngineError
from viper.reward.equations import RewardParameters
from viper.reward.service.process import RewardServer, running
from viper.smallworld.model import build_processor


async def checked(server: RewardServer, work: Path) -> dict[str, Any]:
    """What the loop returns for 640 responses to 64 concurrent callers, and once the service is gone."""
    from transformers import AutoTokenizer

    build_processor().tokenizer.save_pretrained(work)
    tokenizer = AutoTokenizer.from_pretrained(work)
    outputs, truths = responses(random.Random(0))
    rows = as_verl_has_it(tokenizer, outputs, truths)
    arguments = {"url": server.url, "patience_s": 0.5}
    worker = loop_worker(work, "pkg://viper.training.verl.reward_function", "compute_score", arguments)
    found = (await scored(worker, rows, 64)).found
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    try:
        gone = str(await worker.compute_score(rows[0]))
    except EngineError as error:
        gone = f"EngineError: {error}"
    return {
        "outputs": [tokenizer.decode(row.batch["responses"][0], skip_special_tokens=True) for row in rows],
        "ended": [int(row.batch["responses"][0, -1]) == tokenizer.eos_token_id for row in rows],
        "truths": truths,
        "found": found,
        "gone": gone,
    }


def main() -> None:
    """Starts the service, asks it through verl, prints what came back."""
    work = Path(sys.argv[1])
    with running("smallworld", "cpu", RewardParameters(), work) as server:
        print(json.dumps(asyncio.run(checked(server, work))))


if __name__ == "__main__":
    main()
