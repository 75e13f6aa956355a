"""What the API server refuses, told with what was asked, where, and what to do."""

from __future__ import annotations

import json

import pytest

from viper_operator.plugin.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    MissingObjectError,
    Request,
    UnavailableError,
    refusal,
)

PATCH = Request("patch", "viper.dev", "viperiterations", "ViperIteration", "it", "ns")
LIST = Request("list", "", "pods", "Pod", "", "ns")
CREATE = Request("create", "batch", "jobs", "Job", "", "ns")


def answer(message: str, name: str = "") -> str:
    return json.dumps({"kind": "Status", "message": message, "details": {"name": name} if name else {}})


@pytest.mark.parametrize(
    ("request_", "status", "body", "kind", "expected"),
    [
        (PATCH, 401, answer("Unauthorized"), ForbiddenError, ["does not accept your credentials", "--context"]),
        (
            PATCH,
            403,
            answer('User "jane" cannot patch'),
            ForbiddenError,
            ["you may not patch viperiterations.viper.dev", 'User "jane"', "kubectl auth can-i patch", "-n ns"],
        ),
        (LIST, 403, answer("no"), ForbiddenError, ["pods in namespace ns", "you may not list pods"]),
        (
            CREATE,
            403,
            answer('jobs "x" is forbidden: exceeded quota: q'),
            ForbiddenError,
            ["exceeded quota: q", "it is the namespace that refuses, not your rights"],
        ),
        (PATCH, 404, answer("not found", "it"), MissingObjectError, ["no ViperIteration it", "namespace ns"]),
        (PATCH, 404, "404 page not found", ClusterError, ["does not know viperiterations.viper.dev", "install ViPER"]),
        (LIST, 404, answer("the server could not find the requested resource"), ClusterError, ["does not know pods"]),
        (PATCH, 409, answer("the object has been modified"), ConflictError, ["has been modified", "try again"]),
        (PATCH, 422, answer("spec.model: is immutable"), ClusterError, ["spec.model: is immutable", "explain"]),
        (PATCH, 429, answer("too many requests"), UnavailableError, ["cannot answer now: too many requests"]),
        (PATCH, 503, "", UnavailableError, ["cannot answer now: HTTP 503"]),
        (PATCH, 418, "teapot", ClusterError, ["answered 418: teapot"]),
        (LIST, 500, "[1]", UnavailableError, ["cannot answer now: [1]"]),
    ],
)
def test_a_refusal_says_what_where_and_what_to_do(
    request_: Request, status: int, body: str, kind: type[ClusterError], expected: list[str]
) -> None:
    error = refusal(request_, status, body)
    assert type(error) is kind
    assert [part for part in expected if part not in str(error)] == []
