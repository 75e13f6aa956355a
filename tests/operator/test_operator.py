"""The operator on a real API server, with stage programs that cost nothing."""

from __future__ import annotations

import pytest

from fakes.cluster import Cluster, stages

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("watched")]


def test_an_applied_iteration_runs_every_stage_as_a_job_and_ends_promoted(cluster: Cluster) -> None:
    cluster.start()
    cluster.iteration()
    status = cluster.finished()
    assert status["outcome"] == "Promoted", status
    assert {s["state"] for s in status["stages"]} == {"Succeeded"}
    assert sorted(cluster.jobs()) == sorted(s["job"] for s in stages(status).values())
