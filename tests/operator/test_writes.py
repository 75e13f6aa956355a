"""Events never keep a status back, and nothing that belongs to somebody else is written over."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from kube_objects import SETTINGS

from fakes import world
from fakes.kubelet import Connection
from servers.kube import KubeApi
from viper.errors import StoreError
from viper.methods.stages import FREEZING, declared, stage_graph
from viper_operator import writes
from viper_operator.api import Api, ApiError, connect
from viper_operator.cache import Cache
from viper_operator.events import Event
from viper_operator.job_specs import JobRequest, stage_service
from viper_operator.names import service_name
from viper_operator.views import IterationView
from viper_operator.writes import RefusedError, Writer, complaint

STAGE = "train-captions"
VIEW = IterationView.of({"metadata": {"name": "it", "uid": "uid-it"}, "spec": {"model": "m"}})
SAID = [Event("Normal", "StageStarted", "one"), Event("Warning", "Held", "two")]


class Scripted(Api):
    """An API server that says to a request what `answers` has for the end of its path."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.namespace, self.answers, self.sent = "team", answers, []
        self.missing: Exception | None = None

    async def request(self, method: str, path: str, query: Any = None, body: Any = None, **_: Any) -> dict[str, Any]:  # type: ignore[override]
        kind = "look" if query and "dryRun" in query else path.rpartition("/")[2]
        self.sent.append(f"{method} {kind}")
        answer = self.missing if method == "GET" and self.missing else self.answers.get(kind, body)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("status", [0, 403, 404, 409, 413, 422, 429, 500])
def test_events_that_are_refused_keep_no_status_back(status: int) -> None:
    api = Scripted({"events": ApiError(status, "", "exceeded quota: events")})

    async def scenario() -> None:
        writer = Writer(api, Cache(), SETTINGS)
        await writer.tell("ViperIteration", VIEW, SAID)
        await writer.status("ViperIteration", VIEW, {"outcome": "Held"})

    asyncio.run(scenario())
    assert api.sent == ["POST events", "POST events", "PATCH status"]


def test_events_come_before_the_status_that_holds_them_back() -> None:
    """An operator that dies in between tells them again."""
    api = Scripted({})

    async def scenario() -> None:
        writer = Writer(api, Cache(), SETTINGS)
        await asyncio.gather(writer.tell("ViperIteration", VIEW, SAID))
        api.sent.append("told")

    asyncio.run(scenario())
    assert api.sent == ["POST events", "POST events", "told"]


def test_an_api_server_that_takes_long_over_events_is_waited_for_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "EVENT_SECONDS", 0.01)
    now = 100.0

    async def scenario() -> None:
        nonlocal now
        answered = asyncio.Event()
        api = Scripted({"events": answered})
        writer = Writer(api, Cache(), SETTINGS, clock=lambda: now)
        await asyncio.wait_for(writer.tell("ViperIteration", VIEW, SAID), 10)
        monkeypatch.setattr(writes, "EVENT_SECONDS", 3600)
        for _ in range(3):  # not waited for at all
            await asyncio.wait_for(writer.tell("ViperIteration", VIEW, SAID), 10)
        await writer.status("ViperIteration", VIEW, {})
        assert api.sent[-1] == "PATCH status"
        now += writes.EVENTS_LATE_SECONDS
        again = asyncio.create_task(writer.tell("ViperIteration", VIEW, SAID))
        answered.set()
        await asyncio.wait_for(again, 10)
        assert api.sent.count("POST events") == 5 * len(SAID)  # none is lost

    asyncio.run(scenario())


def test_events_that_pile_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "EVENT_SECONDS", 0.01)
    monkeypatch.setattr(writes, "MOST_EVENTS", 4)

    async def scenario() -> None:
        api = Scripted({"events": asyncio.Event()})
        writer = Writer(api, Cache(), SETTINGS)
        for _ in range(20):
            await writer.tell("ViperIteration", VIEW, SAID[:1])
        await asyncio.sleep(0)  # lets those that were taken begin
        assert len(api.sent) == 4

    asyncio.run(scenario())


def owned(**reference: Any) -> dict[str, Any]:
    owner = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "name": "it", "uid": "uid-it", **reference}
    return {"metadata": {"name": "nodes-it", "ownerReferences": [owner]}}


def request() -> JobRequest:
    profile = {"stages": {STAGE: {"nodes": 2, "gpus": 8, "workClaim": "w"}}}
    one = world.iteration("it", profile=profile, engines={**world.ENGINES, "trainer": "verl"})
    return JobRequest(one, "uid-it", declared(STAGE))


@pytest.mark.parametrize(
    ("there", "ours"),
    [
        (ApiError(422, "Invalid", "spec.ports: Required value"), True),  # none
        (owned(), True),
        (owned(uid="of-the-iteration-that-was-deleted"), True),
        ({"metadata": {"name": "nodes-it"}}, False),
        ({"metadata": {"name": "nodes-it", "ownerReferences": []}}, False),
        (owned(name="another"), False),
        (owned(kind="ViperLoop"), False),
        (owned(apiVersion="apps/v1", kind="Deployment"), False),
        (owned(apiVersion="other.dev/v1"), False),
    ],
)
def test_a_service_of_somebody_else_is_not_taken_over(there: Any, ours: bool) -> None:
    job = {"metadata": {"name": "it-train-captions", "uid": "u", "resourceVersion": "1"}}
    api = Scripted({"look": there, "it-train-captions": job})
    writer = Writer(api, Cache(), SETTINGS)
    if ours:
        asyncio.run(writer.create_job(request()))
        assert api.sent == ["PATCH look", "PATCH nodes-it", "PATCH it-train-captions"]
        return
    with pytest.raises(RefusedError, match="a Service called nodes-it is there and belongs to somebody else") as error:
        asyncio.run(writer.create_job(request()))
    assert (error.value.reason, error.value.permanent) == ("NameTaken", False)
    assert api.sent == ["PATCH look"]


@pytest.mark.parametrize(
    ("status", "reason", "message", "permanent"),
    [
        (422, "Invalid", 'spec.template: duplicate entries for key [name="a"]', True),
        (400, "BadRequest", "json: cannot unmarshal string", True),
        (413, "RequestEntityTooLarge", "limit is 3145728", True),
        (403, "Forbidden", "exceeded quota: jobs", False),
        (401, "Unauthorized", "", False),
        (404, "NotFound", "the server could not find the requested resource", False),
        (405, "MethodNotAllowed", "", False),
        (415, "UnsupportedMediaType", "", False),
        (500, "InternalError", 'failed calling webhook "mjob.kb.io": connection refused', False),
        (500, "", "etcdserver: mvcc: database space exceeded", False),
        (501, "NotImplemented", "", False),
        (507, "", "", False),
    ],
)
@pytest.mark.parametrize("of", ["job", "service"])
def test_whatever_an_api_server_says_against_a_job_is_its_refusal(
    status: int, reason: str, message: str, permanent: bool, of: str
) -> None:
    said = ApiError(status, reason, message)
    name = "it-train-captions" if of == "job" else "nodes-it"
    api = Scripted({"look": ApiError(422, "Invalid", ""), name: said})
    api.missing = ApiError(404, "NotFound", "no such Job")
    with pytest.raises(RefusedError, match=f"train-captions: the API server refuses the Job: {status}") as error:
        asyncio.run(Writer(api, Cache(), SETTINGS).create_job(request()))
    assert message in str(error.value)
    assert (error.value.reason, error.value.permanent) == ("JobRefused", permanent)


def freezing(name: str, disk: str) -> JobRequest:
    """The freeze Job of an iteration whose profile writes pods freely."""
    template = {"spec": {"nodeSelector": {"disk": disk}}}
    one = world.iteration(name, profile={"defaults": {"podTemplate": template}})
    return JobRequest(one, f"uid-{name}", FREEZING.stage)


def test_a_profile_is_tried_once_however_many_iterations_have_it() -> None:
    api = Scripted({})
    writer = Writer(api, Cache(), SETTINGS)
    stages = len(stage_graph(world.iteration().spec.recipe))

    def tried(name: str, disk: str) -> int:
        before = api.sent.count("PATCH look")
        asyncio.run(writer.create_job(freezing(name, disk)))
        return api.sent.count("PATCH look") - before

    assert [tried("a", "ssd"), tried("b", "ssd"), tried("c", "nvme"), tried("d", "ssd")] == [stages, 0, stages, 0]


@pytest.mark.parametrize("status", [0, 403, 422, 500, 503])
def test_a_profile_of_which_nothing_was_learnt_is_tried_again(status: int) -> None:
    api = Scripted({"look": ApiError(status, "", "no")})
    writer = Writer(api, Cache(), SETTINGS)
    for name in ("a", "b"):
        before = api.sent.count("PATCH look")
        with suppress(RefusedError):
            asyncio.run(writer.create_job(freezing(name, "ssd")))
        assert api.sent.count("PATCH look") > before


@pytest.mark.parametrize("status", [0, 429, 502, 503, 504])
def test_one_that_is_away_or_busy_has_refused_nothing(status: int) -> None:
    api = Scripted({"look": ApiError(422, "Invalid", ""), "it-train-captions": ApiError(status, "", "")})
    with pytest.raises(ApiError):
        asyncio.run(Writer(api, Cache(), SETTINGS).create_job(request()))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ApiError(500, "InternalError", "failed calling webhook"), "KubernetesError"),
        (ApiError(403, "Forbidden", "viperiterations.viper.dev/status is forbidden"), "KubernetesError"),
        (ApiError(404, "NotFound", ""), "KubernetesError"),
        (ApiError(418, "", "a teapot"), "KubernetesError"),
        (ApiError(422, "Invalid", "status.score: Too long"), "InternalError"),
        (KeyError("scores"), "InternalError"),
        (ApiError(0, "", "no answer"), None),
        (ApiError(409, "Conflict", ""), None),
        (ApiError(429, "", ""), None),
        (ApiError(503, "", ""), None),
        (StoreError("is down"), None),  # has words of its own
    ],
)
def test_no_error_is_only_in_the_log(error: Exception, reason: str | None) -> None:
    found = complaint(error)
    assert (None if found is None else found[0]) == reason
    assert found is None or str(error).split(":")[0] in found[1]


@pytest.mark.kube
def test_an_api_server_shows_a_service_and_changes_nothing(kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    plain = Connection(kube_api.kubeconfig)
    name = f"s{secrets.token_hex(4)}"
    services = "/api/v1/namespaces/default/services"
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
    made = plain.call("POST", services, body)

    async def look(of: str) -> dict[str, Any] | None:
        client = await connect()
        try:
            return await Api(client, "default").look({**body, "metadata": {"name": of}})
        finally:
            await client.close()

    seen = asyncio.run(look(name))
    assert seen is not None
    assert seen["metadata"]["uid"] == made["metadata"]["uid"]
    assert "ownerReferences" not in seen["metadata"]
    assert plain.call("GET", f"{services}/{name}")["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    missing = stage_service(request(), SETTINGS)
    assert missing is not None
    assert asyncio.run(look(service_name(name))) is None


#: What a Job's pods may be said to be that are none, and the words of the server.
UNFIT = {
    "a field that is not there": ({"nodeselector": {"a": "b"}}, "nodeselector: field not declared in schema"),
    "another case": ({"HostNetwork": False}, "HostNetwork: field not declared"),
    "a map for a list": ({"tolerations": {"key": "a"}}, "tolerations: expected list"),
    "a list for a map": ({"nodeSelector": ["a"]}, "nodeSelector: expected map"),
    "text for a number": ({"terminationGracePeriodSeconds": "30"}, "terminationGracePeriodSeconds: expected numeric"),
    "a fraction": ({"priority": 1.5}, "cannot convert float64 to int32"),
    "a number of 400 digits": ({"priority": 10**400}, "priority: expected numeric"),
    "text for a truth": ({"hostNetwork": "no"}, "hostNetwork: expected boolean"),
    "an item twice": ({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "duplicate entries"),
    "no quantity": ({"overhead": {"cpu": "lots"}}, "quantities must match"),
}


@pytest.mark.kube
def test_a_pod_that_no_api_server_takes_is_refused_with_the_field(
    kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    settings = replace(SETTINGS, namespace="default", pod_templates="unrestricted")

    async def scenario() -> None:
        client = await connect()
        try:
            writer = Writer(Api(client, "default"), Cache(), settings)
            for number, (fields, said) in enumerate(UNFIT.values()):
                one = world.iteration(f"unfit-{number}", profile={"defaults": {"podTemplate": {"spec": fields}}})
                with pytest.raises(RefusedError, match=said) as error:
                    await writer.create_job(JobRequest(one, "uid-it", declared("ingest-images")))
                assert (error.value.reason, error.value.permanent) == ("JobRefused", True)
        finally:
            await client.close()

    asyncio.run(scenario())


#: What people write, and an API server takes.
HONEST = {
    "podTemplate": {
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}, "labels": {"team": "vision"}},
        "spec": {
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "runtimeClassName": "nvidia",
            "nodeSelector": {"pool": "gpu"},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "photos"}}],
            "containers": [
                {"name": "stage", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                {
                    "name": "log",
                    "image": "busybox",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                },
            ],
        },
    }
}
#: Of a later stage: what is written, and what is said before anything runs.
LATER = {
    "a template": ({"podTemplate": {"spec": {"nodeselector": {"a": "b"}}}}, "nodeselector: field not declared"),
    "an affinity": ({"affinity": {"nodeAffinity": {"required": []}}}, "required: field not declared in schema"),
    "a value": ({"podTemplate": {"spec": {"restartPolicy": "Always"}}}, "restartPolicy"),
}


@pytest.mark.kube
def test_before_freezing_the_jobs_of_all_stages_are_tried(kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    namespace = kube_api.namespace("writes")

    async def scenario() -> None:
        client = await connect()
        try:
            writer = Writer(Api(client, namespace), Cache(), replace(SETTINGS, namespace=namespace))

            async def freeze(name: str, profile: Any) -> Any:
                return await writer.create_job(
                    JobRequest(world.iteration(name, profile=profile), "uid-it", FREEZING.stage)
                )

            for number, (fields, said) in enumerate(LATER.values()):
                with pytest.raises(RefusedError, match=f"train-operations: .*{said}") as error:
                    await freeze(f"later-{number}", {"stages": {"train-operations": fields}})
                assert (error.value.reason, error.value.permanent) == ("JobRefused", True)
            assert await writer.api.existing("jobs") == {}
            made = await freeze("fine", {"defaults": HONEST})
            assert list(await writer.api.existing("jobs")) == [made.name]
        finally:
            await client.close()

    asyncio.run(scenario())
