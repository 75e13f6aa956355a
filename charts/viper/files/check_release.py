"""`helm test`: ask each part of the release for what the operator and the stages need of it.

Environment: VIPER_STORE, VIPER_TRACKING, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, VIPER_METRICS (URL of the
operator's metrics).
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

from viper.stage.termination import stoppable
from viper.store import open_store, probe


def fetch(url: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (our own URL)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return str(answer.read().decode())


def store() -> str:
    found = open_store(os.environ["VIPER_STORE"])
    probe(found, thorough=True)
    return f"{found.uri} can be written and read, and lets one of several writers win"


def tracking() -> str:
    url = os.environ["VIPER_TRACKING"].rstrip("/")
    found = json.loads(fetch(f"{url}/api/2.0/mlflow/registered-models/search?max_results=100"))
    return f"{url} answers, {len(found.get('registered_models', []))} registered models"


def operator() -> str:
    text = fetch(os.environ["VIPER_METRICS"])
    if "viper_" not in text:
        raise ValueError(f"{os.environ['VIPER_METRICS']} has no metrics of the operator")
    return "the operator reports metrics"


def main(checks: tuple[Callable[[], str], ...] = (store, tracking, operator)) -> int:
    failed = 0
    for check in checks:
        try:
            print(f"ok      {check.__name__}: {check()}")
        except Exception as e:  # every check is tried, whatever goes wrong in one
            failed += 1
            print(f"FAILED  {check.__name__}: {e}")
    return 1 if failed else 0


if __name__ == "__main__":
    with stoppable():  # it is process 1 of its container
        sys.exit(main())
