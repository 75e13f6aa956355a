"""What the API server refuses, told to a person."""

from __future__ import annotations

from typing import Any, NamedTuple

from viper.errors import ViperError
from viper_operator.shallow import loads


class ClusterError(ViperError):
    """The cluster cannot be reached, refuses, or has not what was asked for."""

    exit_code = 10


class MissingObjectError(ClusterError):
    """There is no object of this name."""


class ForbiddenError(ClusterError):
    """The person's rights do not suffice."""


class UnavailableError(ClusterError):
    """The API server, or the kubelet behind it, does not answer now."""


class ConflictError(ClusterError):
    """The object changed meanwhile, or is there already."""


class Request(NamedTuple):
    """What was asked of the API server. `group`: empty for the core; `name`: empty for all."""

    verb: str
    group: str
    plural: str
    kind: str
    name: str
    namespace: str

    @property
    def resource(self) -> str:
        """As RBAC and kubectl write it: `viperiterations.viper.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def where(self) -> str:
        """The object or the collection."""
        return f"{self.plural}/{self.name} in namespace {self.namespace}"


def refusal(request: Request, status: int, body: str) -> ClusterError:
    """The error for an answer with an HTTP status of 400 or more. `body`: a meta/v1 Status, or anything else."""
    answer = _status(body)
    message = str(answer.get("message") or body.strip() or f"HTTP {status}")
    where = request.where if request.name else f"{request.plural} in namespace {request.namespace}"
    if status == 404:
        return _missing(request, answer)
    if status == 403:
        return _forbidden(request, message, where)
    kind, what, fix = _ANSWERS.get(status, (ClusterError, f"the API server answered {status}: {{}}", ""))
    return kind(what.format(message), where=where, fix=fix)


_INVALID = (ClusterError, "{}", "`kubectl viper explain` describes every field")
_BUSY = (UnavailableError, "the API server cannot answer now: {}", "try again in a while; nothing was lost")
_ANSWERS: dict[int, tuple[type[ClusterError], str, str]] = {
    400: _INVALID,
    401: (
        ForbiddenError,
        "the API server does not accept your credentials ({})",
        "log in again, or choose another --context (`kubectl config get-contexts` lists them)",
    ),
    409: (ConflictError, "{}", "look at it with `kubectl viper status`, then try again"),
    422: _INVALID,
    **dict.fromkeys((429, 500, 502, 503, 504), _BUSY),
}


def unreachable(host: str, reason: str) -> UnavailableError:
    """The error when no answer came."""
    return UnavailableError(
        f"the API server does not answer: {reason}",
        where=host,
        fix="check that the cluster runs and that --context or KUBECONFIG names the right one (`kubectl cluster-info`)",
    )


def _forbidden(request: Request, message: str, where: str) -> ForbiddenError:
    if "exceeded quota" in message or "violates PodSecurity" in message or "is being terminated" in message:
        return ForbiddenError(message, where=where, fix="it is the namespace that refuses, not your rights")
    verb, namespace = request.verb, request.namespace
    resource = request.resource
    return ForbiddenError(
        f"you may not {verb} {resource}: {message}",
        where=where,
        fix=f"ask for a Role in namespace {namespace} that allows {verb} on {resource} (docs/operations.md lists what "
        f"every command needs); `kubectl auth can-i {verb} {resource} -n {namespace}` checks it",
    )


def _missing(request: Request, answer: dict[str, Any]) -> ClusterError:
    details = answer.get("details")
    if request.name and isinstance(details, dict) and details.get("name") == request.name:
        return MissingObjectError(
            f"there is no {request.kind} {request.name}",
            where=f"namespace {request.namespace}",
            fix=f"`kubectl get {request.plural} -A` shows what there is; -n chooses the namespace",
        )
    return ClusterError(
        f"this cluster does not know {request.resource}",
        where=f"namespace {request.namespace}",
        fix="install ViPER first (docs/install.md), or choose another --context",
    )


def _status(body: str) -> dict[str, Any]:
    try:
        answer = loads(body.encode("utf-8", "replace"))
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
