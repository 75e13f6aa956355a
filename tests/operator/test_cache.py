"""What is known of objects: never older than what was known before, and found by what it is asked for."""

from __future__ import annotations

import asyncio

from kube_objects import iteration_body, job_body

from viper_operator.cache import Cache
from viper_operator.names import TRAINS


def test_an_older_version_is_no_news_and_a_new_object_of_the_same_name_is() -> None:
    cache = Cache()
    assert cache.put_job(job_body(version=5)) is not None
    assert cache.put_job(job_body(version=4, condition="Complete")) is None
    assert cache.put_job(job_body(version=5)) is None
    assert not cache.jobs.items["it-ingest-images"].complete
    again = job_body(version=3)
    again["metadata"]["uid"] = "another"
    assert cache.put_job(again) is not None


def test_a_late_word_of_a_deleted_object_does_not_remove_its_successor() -> None:
    cache = Cache()
    cache.put_job(job_body(version=5))
    assert cache.drop_job("it-ingest-images", "an-earlier-uid") is None
    assert "it-ingest-images" in cache.jobs.items
    assert cache.drop_job("it-ingest-images", "uid-it-ingest-images-0-1") is not None
    assert not cache.jobs.items


def test_the_jobs_of_a_deleted_iteration_are_not_those_of_one_of_the_same_name() -> None:
    cache = Cache()
    view = cache.iterations.put(iteration_body("it"))
    assert view is not None
    cache.put_job(job_body(owner="uid-of-the-deleted-one"))
    cache.put_job(job_body("validate-captions"))
    assert [j.stage for j in cache.jobs_of(view)] == ["validate-captions"]


def test_who_trains_a_model() -> None:
    cache = Cache()
    cache.put_job(job_body("train-captions", iteration="a", active=1))
    cache.put_job(job_body("evaluate", iteration="b", active=1))
    assert cache.trainer("m", "b") == "a"
    assert cache.trainer("m", "a") is None
    assert cache.trainer("n", "b") is None
    cache.put_job(job_body("train-captions", iteration="a", version=2, suspend=True, active=1))
    assert cache.trainer("m", "b") == "a", "its pods are still there"
    cache.put_job(job_body("train-captions", iteration="a", version=3, suspend=True))
    assert cache.trainer("m", "b") is None
    cache.put_job(job_body("train-captions", iteration="a", version=4, condition="Complete"))
    assert cache.trainer("m", "b") is None


def test_a_job_says_itself_that_it_trains_where_its_stage_is_none_of_ours() -> None:
    cache = Cache()
    toy = job_body("teach", iteration="a", active=1)
    cache.put_job(toy)
    assert cache.trainer("m", "b") is None
    toy["metadata"]["annotations"][TRAINS] = "true"
    toy["metadata"]["resourceVersion"] = "2"
    cache.put_job(toy)
    assert cache.trainer("m", "b") == "a"


def test_a_claim_counts_before_the_job_is_known() -> None:
    cache = Cache()
    cache.claim("m", "a")
    assert (cache.trainer("m", "b"), cache.trainer("m", "a")) == ("a", None)
    cache.unclaim("m", "b")
    assert cache.trainer("m", "b") == "a"
    cache.unclaim("m", "a")
    assert cache.trainer("m", "b") is None


def test_those_that_wait_for_a_model_come_in_their_order_without_those_that_are_gone() -> None:
    cache = Cache()
    for name in ("first", "second", "third", "fourth"):
        cache.iterations.put(iteration_body(name))
    for name in ("gone", "first", "second", "third", "fourth", "first"):
        cache.wait_for_model("m", name)
    assert cache.next_for_model("m") == ["first", "second", "third"]
    cache.claim("m", "first")
    assert cache.next_for_model("m", 1) == ["second"]


def test_an_iteration_is_kept_small_and_whole() -> None:
    cache = Cache()
    body = iteration_body("it", retry=2, profileRef="small", promotion={"alias": "best"}, suspend=True)
    view = cache.iterations.put(body)
    assert view is not None
    assert (view.model, view.alias, view.profile_ref, view.suspend, view.retry) == ("m", "best", "small", True, 2)
    del body["metadata"]["managedFields"]
    assert view.body() == body
    assert cache.by_profile("small") == ["it"]


def test_waiting_until_everything_is_known() -> None:
    async def scenario() -> None:
        cache = Cache()
        waiting = asyncio.create_task(cache.iterations.has(["a", "b"]))
        cache.iterations.put(iteration_body("a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        cache.iterations.put(iteration_body("b"))
        await asyncio.wait_for(waiting, 10)

    asyncio.run(scenario())
