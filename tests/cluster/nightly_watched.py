"""What is said of a loop of three small iterations is so, at every moment; alone on the one-node cluster.

`make nightly`: the machine has to be idle, because what is said may be fifteen seconds old and not older.
"""

from __future__ import annotations

import pytest
from released import release
from watched import run_watched

from servers.node import OneNode
from watcher.judge import judge, report

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(3600)]


def test_nothing_that_is_said_of_a_loop_of_three_iterations_is_not_so(one_node: OneNode) -> None:
    with release(one_node) as namespace:
        entries = run_watched(one_node, namespace, 3, minutes=40)
    found = report(judge(entries))
    print("\n".join(e["text"] for e in entries if e["kind"] == "line"))  # for a person to read alone
    assert found == ""
