"""One bad object stops one thing: loops survive whatever an item raises, and what cannot be understood is said."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kube_objects import NOW, SETTINGS, START, job_body, pod_body, waiting

from fakes.cluster import manifest
from viper.errors import StoreError
from viper.retries import Policy
from viper.spec.status import IterationStatus, LoopStatus, read_status
from viper.store import DirectoryStore
from viper_operator.aliases import AliasSeen
from viper_operator.api import ApiError
from viper_operator.cache import Cache
from viper_operator.controller import ITERATIONS, JOBS, LOOPS, Controller
from viper_operator.memory import Memory
from viper_operator.tickers import Aliases, Problems, Progress, Unread, every
from viper_operator.views import IterationView, JobView, readable
from viper_operator.workqueue import WorkQueue
from viper_operator.writes import RefusedError


class Server:
    """What the operator asks of an API server, in memory. `refuse`: answers instead of what a write would do."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.told: list[tuple[str, str]] = []
        self.there: list[dict[str, Any]] = []
        self.refuse: Callable[[str, str], ApiError | None] = lambda kind, name: None
        self._versions = itertools.count(10)

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        kind, meta = body["kind"], body["metadata"]
        if error := self.refuse(kind, meta["name"]):
            raise error
        old = self.objects.get((kind, meta["name"]), {"metadata": {"uid": f"uid-{meta['name']}"}})
        new = {**old, **body, "metadata": {**old["metadata"], **meta, "resourceVersion": str(next(self._versions))}}
        self.objects[kind, meta["name"]] = new
        return json.loads(json.dumps(new))  # type: ignore[no-any-return]

    async def apply(self, body: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return self.put(body)

    async def apply_status(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.put(body)

    async def get_job(self, name: str, kind: str = "Job") -> dict[str, Any]:
        if (kind, name) not in self.objects:
            raise ApiError(404, "NotFound", name)
        return self.objects[kind, name]

    async def create_event(self, body: Mapping[str, Any]) -> None:
        self.told.append((body["involvedObject"]["name"], body["reason"]))

    async def pods(self, selector: str, fields: str = "") -> AsyncIterator[dict[str, Any]]:
        for pod in self.there:
            yield pod

    async def events_of(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        if uid.startswith("uid-odd"):
            raise ApiError(403, "Forbidden", "no Events for you")
        said = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota"}
        yield {**said, "involvedObject": {"uid": uid}, "lastTimestamp": START}

    def status(self, name: str, kind: str = "ViperIteration") -> dict[str, Any]:
        return self.objects[kind, name].get("status", {})  # type: ignore[no-any-return]

    def condition(self, name: str, type_: str, kind: str = "ViperIteration") -> dict[str, Any] | None:
        return next((c for c in self.status(name, kind).get("conditions", ()) if c["type"] == type_), None)


def controller(tmp_path: Path, *names: str) -> tuple[Controller, Server]:
    """A controller that knows of these iterations."""
    server = Server()
    made = Controller(SETTINGS, server, DirectoryStore(tmp_path))  # type: ignore[arg-type]
    for name in names:
        made.seen(ITERATIONS, server.put(manifest(name)))
    return made, server


async def reconciled(made: Controller, name: str) -> Exception | None:
    """What a reconciliation raised."""
    try:
        await made.iterations.reconcile(name)
    except Exception as error:
        return error
    return None


def owned(stage: str = "synthesize-captions", *, iteration: str = "it", **fields: Any) -> dict[str, Any]:
    """A Job of an iteration of the server."""
    return job_body(stage, iteration=iteration, owner=f"uid-{iteration}", **fields)


# ---- an exception of one iteration ------------------------------------------------------------------------------

RAISED = {
    "a key that is not there": KeyError("scores"),
    "a wrong type": TypeError("'<' not supported between instances of 'str' and 'int'"),
    "a list for a map": AttributeError("'list' object has no attribute 'get'"),
    "a number beyond all floats": OverflowError("int too large to convert to float"),
    "JSON nested a million deep": RecursionError("maximum recursion depth exceeded"),
    "no text": ValueError(),
    "a long text": ValueError("x" * 100_000),
    "lines and control characters": ValueError("a\nb\x1b[31m\tc"),
    "no memory": MemoryError(),
}


@pytest.mark.parametrize("error", RAISED.values(), ids=RAISED)
def test_an_iteration_that_is_not_understood_says_so_and_others_go_on(tmp_path: Path, error: Exception) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "odd", "fine")
        whole = made.iterations._frozen

        async def frozen(view: IterationView, *rest: Any) -> Any:
            if view.name == "odd":
                raise error
            return await whole(view, *rest)

        made.iterations._frozen = frozen  # type: ignore[method-assign]
        for _ in range(3):
            assert await reconciled(made, "odd") is error, "the queue waits longer each time"
        assert await reconciled(made, "fine") is None
        assert ("Job", "fine-freeze") in server.objects
        assert server.condition("fine", "InternalError") is None
        summary, odd = server.status("odd")["conditions"][0], server.condition("odd", "InternalError")
        assert (summary["type"], summary["status"], summary["reason"]) == ("Succeeded", "Unknown", "InternalError")
        assert odd is not None
        assert (odd["status"], odd["reason"]) == ("True", type(error).__name__)
        assert type(error).__name__ in odd["message"]
        assert len(odd["message"]) < 1200
        assert "\n" not in odd["message"]
        assert server.told.count(("odd", "InternalError")) == 1
        version = server.objects["ViperIteration", "odd"]["metadata"]["resourceVersion"]
        await reconciled(made, "odd")
        assert server.objects["ViperIteration", "odd"]["metadata"]["resourceVersion"] == version, "said once"
        made.iterations._frozen = whole  # type: ignore[method-assign]
        assert await reconciled(made, "odd") is None
        assert server.condition("odd", "InternalError") is None
        assert server.status("odd")["conditions"][0]["reason"] != "InternalError"
        made.stores.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "internal"), [(400, True), (413, True), (422, True), (0, False), (503, False)])
def test_a_status_that_the_server_refuses_is_said_one_that_it_cannot_take_now_is_not(
    tmp_path: Path, status: int, internal: bool
) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it")
        answers = [ApiError(status, "Invalid", "status.score: Too long")]
        server.refuse = lambda kind, name: answers.pop() if answers and kind == "ViperIteration" else None
        assert isinstance(await reconciled(made, "it"), ApiError)
        assert (server.condition("it", "InternalError") is not None) == internal
        assert await reconciled(made, "it") is None
        assert server.condition("it", "InternalError") is None
        made.stores.close()

    asyncio.run(scenario())


def test_an_iteration_that_has_ended_stays_as_it_ended_whoever_wrote_its_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path)
        newer = {
            "outcome": "Promoted",
            "stages": [{"name": "fold-proteins", "state": "Sideways"}],
            "conditions": [{"type": "Succeeded", "status": "Perhaps"}],
        }
        made.seen(ITERATIONS, server.put({**manifest("it"), "status": newer} | {"metadata": META}))
        assert await reconciled(made, "it") is None
        assert server.status("it") == {**newer, "observedGeneration": 3}
        made.stores.close()

    asyncio.run(scenario())


META = {"name": "it", "generation": 3, "uid": "uid-it"}


def test_a_loop_that_is_not_understood_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path)
        spec = {"iterations": 2, "template": manifest("x")["spec"]}
        kind = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperLoop"}
        made.seen(LOOPS, server.put({**kind, "metadata": {"name": "turn"}, "spec": spec}))
        whole = made.loops._act

        async def act(*_: Any) -> Any:
            raise KeyError("next")

        made.loops._act = act  # type: ignore[method-assign]
        for _ in range(2):
            with pytest.raises(KeyError):
                await made.loops.reconcile("turn")
        odd = server.condition("turn", "InternalError", "ViperLoop")
        assert odd is not None
        assert odd["reason"] == "KeyError"
        assert server.status("turn", "ViperLoop")["conditions"][0]["reason"] == "InternalError"
        made.loops._act = whole  # type: ignore[method-assign]
        await made.loops.reconcile("turn")
        assert server.condition("turn", "InternalError", "ViperLoop") is None
        assert ("ViperIteration", "turn-1") in server.objects
        made.stores.close()

    asyncio.run(scenario())


# ---- objects that cannot be read ---------------------------------------------------------------------------------

ODD_BODIES: dict[str, dict[str, Any]] = {
    "labels are a list": {"metadata": {"name": "x", "uid": "u", "labels": ["a"]}},
    "annotations are a string": {"metadata": {"name": "x", "uid": "u", "annotations": "a"}},
    "owners are a number": {"metadata": {"name": "x", "uid": "u", "ownerReferences": 7}},
    "an owner without a uid": {
        "metadata": {
            "name": "it-evaluate",
            "uid": "u",
            "labels": {"viper.dev/iteration": "it", "viper.dev/stage": "evaluate"},
            "ownerReferences": [
                {"controller": True, "kind": "ViperIteration", "apiVersion": "viper.dev/v1alpha1", "name": "it"}
            ],
        }
    },
    "no such date": {"metadata": {"name": "x", "uid": "u", "creationTimestamp": "2024-99-99T00:00:00Z"}},
    "spec is a list": {"metadata": {"name": "x", "uid": "u"}, "spec": []},
    "spec is null": {"metadata": {"name": "x", "uid": "u"}, "spec": None},
    "status is a string": {"metadata": {"name": "x", "uid": "u"}, "status": "well"},
    "conditions without type": {"metadata": {"name": "x", "uid": "u"}, "status": {"conditions": [{"status": "True"}]}},
    "completions are words": {"metadata": {"name": "x", "uid": "u"}, "spec": {"completions": "many"}},
    "promotion is a list": {"metadata": {"name": "x", "uid": "u"}, "spec": {"promotion": []}},
    "a version of 5,000 digits": {"metadata": {"name": "x", "uid": "u", "resourceVersion": "9" * 5000}},
}


def raised_by(read: Callable[[Any], Any], body: Any) -> str:
    """What reading raises; empty when nothing."""
    try:
        read(body)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("read", [JobView.of, IterationView.of], ids=["Job", "ViperIteration"])
@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
def test_an_object_that_cannot_be_read_is_known_all_the_same(read: Any, body: dict[str, Any]) -> None:
    """The operator begins to act once it knows everything there is: one that it could not keep would stop it."""
    view = readable(read, body)
    assert (view.name, view.uid) == (body["metadata"]["name"], "u")
    assert view.problem == raised_by(read, body)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 5000, "-1", "1e400", "nan", "", None, [], "٣", " 3 ", "0x10", "1_0"])
def test_numbers_in_labels_are_bounded(text: Any) -> None:
    body = owned()
    body["metadata"]["labels"].update({"viper.dev/retry": text, "viper.dev/attempt": text, "viper.dev/nodes": text})
    body["metadata"]["annotations"].update({"viper.dev/gpus": text, "viper.dev/seconds-before": text})
    view = readable(JobView.of, body)
    assert 0 <= view.retry < 2**31
    assert 1 <= view.attempt < 2**31
    assert view.nodes >= 1
    assert view.active_seconds(NOW) < 2**32


def test_an_iteration_whose_job_cannot_be_read_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it")
        body = owned("freeze")
        body["status"] = {"startTime": "2024-99-99T00:00:00Z"}
        made.seen(JOBS, body)
        assert await reconciled(made, "it") is not None
        odd = server.condition("it", "InternalError")
        assert odd is not None
        assert "it-freeze" in odd["message"]
        assert odd["reason"] == "UnreadableError"
        made.stores.close()

    asyncio.run(scenario())


STATUSES: dict[str, Any] = {
    "none": None,
    "a list": [],
    "a string": "fine",
    "an outcome of a later version": {"outcome": "Archived", "retries": 2},
    "a state of a later version": {"stages": [{"name": "a", "state": "Melting"}, {"name": "b", "state": "Running"}]},
    "a stage without a name": {"stages": [{"state": "Running"}, {"name": "b", "state": "Running"}]},
    "conditions are a map": {"conditions": {"Succeeded": True}, "retries": 2},
    "a condition without a time": {"conditions": [{"type": "Held", "status": "True", "reason": "x"}]},
    "numbers are words": {"retries": "two", "gpuSeconds": "long", "version": [1]},
    "not a number": {"gpuSeconds": float("nan")},
    "everything at once": {"conditions": 1, "stages": 2, "outcome": 3, "retries": 4.5, "score": {}},
}


@pytest.mark.parametrize("raw", STATUSES.values(), ids=STATUSES)
@pytest.mark.parametrize("model", [IterationStatus, LoopStatus])
def test_a_status_is_read_as_far_as_it_can_be(model: Any, raw: Any) -> None:
    read_status(model, raw).dump()


def test_what_can_be_read_of_a_status_is() -> None:
    found = read_status(IterationStatus, STATUSES["a state of a later version"] | {"retries": 2, "outcome": "Archived"})
    assert ([s.name for s in found.stages], found.retries, found.outcome) == (["b"], 2, None)


# ---- other people's Jobs -----------------------------------------------------------------------------------------


def foreign(how: str) -> dict[str, Any]:
    """Somebody's copy of a Job of iteration `it` that trains."""
    body = owned("train-captions", active=1, ready=1)
    if how == "labels only":
        del body["metadata"]["ownerReferences"]
    elif how == "labels and owner":
        body["metadata"]["name"] = "my-copy"
    elif how == "somebody else's":
        body["metadata"]["ownerReferences"][0].update(kind="CronJob", apiVersion="batch/v1")
    elif how == "not its controller":
        body["metadata"]["ownerReferences"][0]["controller"] = False
    elif how == "an iteration of another name":
        body["metadata"]["ownerReferences"][0]["name"] = "other"
    elif how == "labels of a stage that is none":
        body["metadata"]["labels"]["viper.dev/stage"] = "../../../x"
    return body


HOWS = (
    "labels only",
    "labels and owner",
    "somebody else's",
    "not its controller",
    "an iteration of another name",
    "labels of a stage that is none",
)


@pytest.mark.parametrize("how", HOWS)
def test_a_foreign_job_with_copied_labels_is_nobodys(tmp_path: Path, how: str) -> None:
    made, server = controller(tmp_path, "it")
    made.seen(JOBS, foreign(how))
    cache = made.cache
    assert len(cache.jobs.items) == 1, "the operator waits until it knows all of them"
    assert cache.jobs_of(cache.iterations.items["it"]) == []
    assert cache.owned_jobs() == []
    assert cache.trainer("m", "another") is None, "else nobody could train this model any more"
    assert Progress(made.stores, cache, made.memory, lambda _: None).running() == []
    assert Problems(server, cache, made.memory, lambda _: None).suspects() == []  # type: ignore[arg-type]
    made.stores.close()


def test_a_job_that_loses_its_labels_belongs_to_nobody_any_more() -> None:
    cache = Cache()
    cache.iterations.put({"metadata": {"name": "it", "uid": "uid-it"}})
    cache.put_job(owned("train-captions", active=1))
    assert cache.trainer("m", "another") == "it"
    changed = owned("train-captions", active=1, version=2)
    changed["metadata"]["labels"]["viper.dev/iteration"] = "other"
    cache.put_job(changed)
    assert cache.trainer("m", "another") is None
    assert cache.jobs_of(cache.iterations.items["it"]) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_foreign_job_under_our_name_is_said_and_left_alone(tmp_path: Path, known: bool) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it")
        body = owned("freeze") | {"kind": "Job"}
        del body["metadata"]["ownerReferences"]
        there = server.put(body)
        if known:
            made.seen(JOBS, there)
        else:
            server.refuse = lambda kind, name: ApiError(409, "Conflict", "owned") if kind == "Job" else None
        assert await reconciled(made, "it") is None
        assert server.status("it")["conditions"][0]["reason"] == "NameTaken"
        assert server.objects["Job", "it-freeze"] == there
        made.stores.close()

    asyncio.run(scenario())


def test_a_foreign_pod_with_copied_labels_says_nothing_about_our_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it")
        job = owned("freeze", active=1)
        made.seen(JOBS, job)
        ours = pod_body("it-freeze", phase="Pending", containerStatuses=waiting("ImagePullBackOff"))
        theirs = pod_body("it-freeze", phase="Pending", containerStatuses=waiting("CrashLoopBackOff"))
        ours["metadata"]["ownerReferences"] = [{"controller": True, "uid": job["metadata"]["uid"]}]
        unreadable = pod_body("it-freeze", phase="Failed")
        unreadable["metadata"]["creationTimestamp"] = "2024-99-99"
        server.there = [unreadable, theirs, ours]
        looked: list[str] = []
        problems = Problems(server, made.cache, made.memory, looked.append)  # type: ignore[arg-type]
        await problems.round()
        found = made.memory.problems["uid-it-freeze-0-1"]
        assert found is not None
        assert found.reason == "ImagePullBackOff"
        assert looked == ["it"]
        made.stores.close()

    asyncio.run(scenario())


def test_events_that_may_not_be_read_for_one_job_are_read_for_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "odd", "fine")
        for name in ("odd", "fine"):
            made.seen(JOBS, owned("freeze", iteration=name))
        await Problems(server, made.cache, made.memory, lambda _: None).round()  # type: ignore[arg-type]
        found = made.memory.problems["uid-fine-freeze-0-1"]
        assert found is not None
        assert found.reason == "FailedCreate"
        made.stores.close()

    asyncio.run(scenario())


# ---- progress ----------------------------------------------------------------------------------------------------

GOOD = {"phase": "caption", "done": 5, "total": 50, "rate": 1.5, "etaSeconds": 30.0, "updated": NOW}
BAD_PROGRESS: dict[str, bytes] = {
    "400 digits": json.dumps(GOOD | {"total": 10**400}).encode(),
    "400 digits done": json.dumps(GOOD | {"done": 10**400}).encode(),
    "5,000 digits": json.dumps(GOOD).replace('"total": 50', f'"total": {"9" * 5000}').encode(),
    "an infinite rate": json.dumps(GOOD | {"rate": float("inf")}).encode(),
    "a rate of 1e400": json.dumps(GOOD).replace("1.5", "1e400").encode(),
    "no number": json.dumps(GOOD | {"etaSeconds": float("nan")}).encode(),
    "a negative total": json.dumps(GOOD | {"total": -1}).encode(),
    "a time beyond all years": json.dumps(GOOD | {"updated": 1e300}).encode(),
    "words": json.dumps(GOOD | {"done": "many"}).encode(),
    "a list": b"[]",
    "null": b"null",
    "half of it": json.dumps(GOOD).encode()[:20],
    "no UTF-8": b"\xff\xfe\x00",
    "nothing": b"",
    "nested deeply": b"[" * 100_000,
}


@pytest.mark.parametrize("record", BAD_PROGRESS.values(), ids=BAD_PROGRESS)
def test_progress_that_cannot_be_read_is_said_of_its_iteration_and_of_no_other(tmp_path: Path, record: bytes) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "odd", "fine")
        looked: list[str] = []
        progress = Progress(made.stores, made.cache, made.memory, looked.append)
        for name in ("odd", "fine"):
            made.seen(JOBS, owned("freeze", iteration=name, active=1, ready=1))
            data = record if name == "odd" else json.dumps(GOOD).encode()
            made.stores.store.put(f"iterations/{name}/stages/freeze/progress/0-of-1.json", data)
        await progress.round()
        assert sorted(looked) == ["fine", "odd"]
        for name in ("odd", "fine"):
            assert await reconciled(made, name) is None
        odd = server.condition("odd", "InternalError")
        assert odd is not None
        assert (odd["reason"], odd["status"]) == ("ProgressUnreadable", "True")
        assert "freeze/progress/0-of-1.json" in odd["message"]
        assert server.status("odd")["conditions"][0]["reason"] == "Running", "it goes on"
        assert server.condition("fine", "InternalError") is None
        assert server.status("fine")["stages"][0]["items"]["done"] == 5
        made.stores.store.put("iterations/odd/stages/freeze/progress/0-of-1.json", json.dumps(GOOD).encode())
        await progress.round()
        assert await reconciled(made, "odd") is None
        assert server.condition("odd", "InternalError") is None
        made.stores.close()

    asyncio.run(scenario())


def test_a_store_that_is_down_or_an_error_of_one_job_leaves_the_progress_of_others() -> None:
    async def scenario() -> None:
        cache, memory, looked = Cache(), Memory(), list[str]()
        for name in ("down", "fine", "odd"):
            cache.iterations.put({"metadata": {"name": name, "uid": f"uid-{name}"}})
            cache.put_job(owned("freeze", iteration=name, active=1, ready=1))

        class Odd:
            async def progress(self, name: str, stage: str, shards: int) -> Any:
                if name == "down":
                    raise StoreError("is down")
                if name == "odd":
                    raise ZeroDivisionError("by 0")
                from viper.stage.progress import ProgressRecord

                return ProgressRecord.model_validate(GOOD), ""

        progress = Progress(Odd(), cache, memory, looked.append)  # type: ignore[arg-type]
        with pytest.raises(StoreError):
            await progress.round()
        assert memory.progress["fine"]["freeze"].done == 5
        assert "ZeroDivisionError" in memory.unreadable["uid-odd-freeze-0-1"]
        assert looked == ["fine", "odd"]

    asyncio.run(scenario())


def test_an_alias_that_cannot_be_read_leaves_the_others() -> None:
    async def scenario() -> None:
        cache, memory, looked = Cache(), Memory(), list[str]()
        for name in ("a", "b"):
            body = {"metadata": {"name": name, "uid": name}, "spec": {"model": name}, "status": {"outcome": "Running"}}
            cache.iterations.put(body)

        class Odd:
            uri = "http://mlflow"

            async def alias(self, model: str, alias: str) -> AliasSeen | None:
                if model == "a":
                    raise KeyError("model_version")
                return AliasSeen(7, NOW)

        await Aliases(Odd(), cache, memory, looked.append).round()  # type: ignore[arg-type]
        assert (memory.aliases, looked) == ({("b", "generator"): AliasSeen(7, NOW)}, ["b"])

    asyncio.run(scenario())


# ---- the loops themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [*RAISED.values(), StoreError("down"), ApiError(500, "", "")], ids=str)
@pytest.mark.parametrize("where", ["work", "pause"])
def test_a_round_goes_on_after_any_exception(error: Exception, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viper_operator.tickers.LONG_PAUSE", 0.0)

    async def scenario() -> None:
        calls = itertools.count(1)
        often = asyncio.Event()

        async def work() -> None:
            if next(calls) == 3:
                often.set()
            if where == "work":
                raise error

        def pause() -> float:
            if where == "pause":
                raise error
            return 0.0

        task = asyncio.create_task(every(pause, work))
        await asyncio.wait_for(often.wait(), 10)
        assert not task.done()
        task.cancel()

    asyncio.run(scenario())


def test_the_queue_survives_whoever_is_told_and_any_number_of_failures() -> None:
    async def scenario() -> None:
        done = asyncio.Event()

        async def work(key: str) -> float | None:
            if key == "fine":
                done.set()
                return None
            raise KeyError(key)

        def told(key: str, error: Exception, delay: float) -> None:
            raise ValueError("the log is full")

        queue = WorkQueue[str](work, failed=told, patience=Policy((0.001, 0.002)))
        queue._failures["odd"] = 5000  # at one a minute, after three and a half days
        queue.add("odd")
        task = asyncio.create_task(queue.run(1))
        await asyncio.sleep(0)
        queue.add("fine")
        await asyncio.wait_for(done.wait(), 10)
        assert not task.done()
        task.cancel()

    asyncio.run(scenario())


def test_what_a_watch_says_never_raises(tmp_path: Path) -> None:
    made, _ = controller(tmp_path)
    for body in ({}, {"metadata": None}, {"metadata": {}}, {"metadata": {"name": "x"}, "status": 7}):
        for plural in (ITERATIONS, LOOPS, JOBS, "viperprofiles", "rayjobs"):
            made.seen(plural, body)
            made.gone(plural, body)
    made.stores.close()


def test_refusals_are_no_internal_errors(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it")

        async def refuse(*_: Any) -> Any:
            raise RefusedError("JobRefused", "quota", permanent=False)

        made.iterations.writer.create_job = refuse  # type: ignore[method-assign]
        work: Callable[[str], Awaitable[Any]] = made.iterations.reconcile
        assert await work("it") == 60.0
        assert server.status("it")["conditions"][0]["reason"] == "JobRefused"
        assert server.condition("it", "InternalError") is None
        made.stores.close()

    asyncio.run(scenario())


def test_who_waits_for_a_model_is_told_who_trains_it_now(tmp_path: Path) -> None:
    names = ("it", "first", "second", "third", "fourth", "fifth")
    made, _ = controller(tmp_path, *names)
    made._acting = True
    for name in names[1:]:
        made.cache.wait_for_model("m", name)
    for change in ({"version": 2, "active": 1}, {"version": 3, "condition": "Complete"}):
        made.queue._ready.clear()
        made.seen(JOBS, owned("train-captions", **change))
        assert {("iteration", name) for name in names} <= set(made.queue._ready)
    made.stores.close()


def test_what_a_store_told_nothing_of_is_looked_at_as_soon_as_it_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        made, server = controller(tmp_path, "it", "other")
        whole = made.iterations._frozen

        async def down(*_: Any) -> Any:
            raise StoreError("no route to host")

        made.iterations._frozen = down  # type: ignore[method-assign]
        assert isinstance(await reconciled(made, "it"), StoreError)
        made.iterations._frozen = whole  # type: ignore[method-assign]
        assert server.status("it")["conditions"][0]["reason"] == "StoreUnavailable"
        looked: list[str] = []
        unread, answers = Unread(made.stores, made.memory, looked.append), made.stores.answers
        made.stores.answers = down  # type: ignore[method-assign]
        await unread.round()
        assert looked == []
        made.stores.answers = answers  # type: ignore[method-assign]
        await unread.round()
        await unread.round()
        assert looked == ["it"], "the other one has no trouble, and nobody is looked at twice"
        assert await reconciled(made, "it") is None
        assert server.status("it")["conditions"][0]["reason"] != "StoreUnavailable"
        made.stores.close()

    asyncio.run(scenario())
