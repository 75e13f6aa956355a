"""The iterations that a loop makes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from fakes import world
from fakes.cluster import manifest
from viper.plan import plan_loop
from viper.spec import ViperLoop, parse_stored
from viper.spec.status import IterationStatus
from viper_operator.loops import LoopReconciler, iteration_body
from viper_operator.views import LoopView


def loop_body(**template: Any) -> dict[str, Any]:
    spec = {**manifest()["spec"], "images": {"uri": "file:///i", "limit": 50, "offset": 10}, **template}
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "viper.dev/retry": "3", "owner": "me"}
    meta = {"name": "turn", "uid": "u", "labels": {"team": "a"}, "annotations": notes, "resourceVersion": "7"}
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": meta,
        "spec": {"iterations": 3, "template": spec},
    }


def made(number: int, **template: Any) -> dict[str, Any]:
    body = loop_body(**template)
    loop = parse_stored(body)
    assert isinstance(loop, ViperLoop)
    return iteration_body(LoopView.of(body), body, loop, number)


def test_each_sees_fresh_images_and_has_a_seed_of_its_own() -> None:
    second = made(2, recipe={"seed": 5})
    assert second["spec"]["images"] == {"uri": "file:///i", "limit": 50, "offset": 60}
    assert second["spec"]["recipe"] == {"seed": 6}
    assert made(1)["spec"]["images"]["offset"] == 10


def test_it_is_named_labelled_and_owned() -> None:
    meta = made(2)["metadata"]
    assert meta["name"] == "turn-2"
    assert meta["labels"] == {"team": "a", "viper.dev/loop": "turn"}
    assert meta["annotations"] == {"owner": "me"}
    owner = meta["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("ViperLoop", "turn", "u")
    assert owner["blockOwnerDeletion"] is False


def test_what_the_template_leaves_out_stays_out_for_the_api_server_to_fill() -> None:
    assert made(1)["spec"].keys() == {*manifest()["spec"], "recipe", "suspend"}
    assert made(1)["spec"]["engines"] == world.ENGINES


@pytest.mark.asyncio
async def test_what_the_operator_saw_an_iteration_use_counts_towards_the_budget() -> None:
    body = loop_body()
    body["spec"]["budget"] = {"gpuHours": 7}
    loop = parse_stored(body)
    assert isinstance(loop, ViperLoop)
    reconciler = LoopReconciler(mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    view = mock.Mock(settled=True, outcome="Promoted")
    seen = await reconciler._observed(loop, view, IterationStatus(gpu_seconds=4 * 3600))
    decided = plan_loop(loop.spec, [seen], seen.gpu_seconds)
    assert (decided.next, decided.condition.reason) == (None, "BudgetTooSmall")
