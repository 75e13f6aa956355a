"""What is refused when people write it, and read when an earlier release has stored it."""

from __future__ import annotations

from typing import Any

import pytest

from support.bad_resources import MINIMAL
from viper.errors import SpecError
from viper.spec import ViperIteration, ViperLoop, parse_resource
from viper.spec.forms import ALIAS, IMAGE, MODEL, NOT_RESERVED, POOL, WEIGHTS


def changed(**fields: Any) -> dict[str, Any]:
    return {**MINIMAL, "spec": {**MINIMAL["spec"], **fields}}


@pytest.mark.parametrize(
    "fields",
    [
        {"promotion": {"alias": "v2"}},
        {"generator": {"alias": "latest"}},
        {"model": "it's"},
        {"images": {"uri": "file://photos"}},
        {"images": {"uri": "s3://AKIA:secret@bucket/x"}},
        {"recipe": {"prompts": "../mine"}},
        {"profile": {"defaults": {"resources": {"limits": {"memory": "100m"}}}}},
        {"profile": {"defaults": {"shmSize": "1"}, "stages": {"evaluate": {"gpus": 1}}}},
        {"profile": {"defaults": {"gpuResourceName": "cpu"}, "stages": {"evaluate": {"retries": 1}}}},
        {"images": {"uri": "file:///i", "limit": 2}, "profile": {"stages": {"synthesize-captions": {"shards": 3}}}},
    ],
)
def test_what_an_earlier_release_took_stays_readable(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        parse_resource(changed(**fields))
    stored = parse_resource(changed(**fields), lenient=True)
    assert isinstance(stored, ViperIteration)
    again = parse_resource(stored.dump(), lenient=True)
    assert again == stored


def test_a_stored_loop_that_begins_from_a_version_stays_readable() -> None:
    loop = {**MINIMAL, "kind": "ViperLoop", "spec": {"template": {**MINIMAL["spec"], "generator": {"version": 1}}}}
    assert isinstance(parse_resource(loop, lenient=True), ViperLoop)


def test_a_loop_that_promotes_nothing_may_begin_from_anything() -> None:
    template = {**MINIMAL["spec"], "generator": {"version": 1}, "promotion": {"policy": "Never"}}
    assert isinstance(parse_resource({**MINIMAL, "kind": "ViperLoop", "spec": {"template": template}}), ViperLoop)


@pytest.mark.parametrize(
    ("forms", "text"),
    [
        *(((ALIAS, NOT_RESERVED), text) for text in ("generator", "v2-candidate", "latest-good", "V", "a" * 200)),
        *(((MODEL,), text) for text in ("m", "Qwen2.5-VL 7B", "größe", "a.b.c", "x(1)", "_m", ".hidden")),
        *(
            (POOL, text)
            for text in (
                "photos",
                "./my photos",
                "~/photos",
                "/data/why?1#2%",
                "file:///data/why%3F1",
                "file:///data/my photos/ß",
                "s3://bucket",
                "s3://my.bucket-1/a b/c%20d/",
                "s3://bucket/x?endpoint=http://[::1]:9000",
                "smallworld:scenes?seed=499&count=1000000",
            )
        ),
        *(
            (WEIGHTS, text)
            for text in (
                "hf://Qwen/Qwen2.5-VL-7B@refs%2Fpr%2F7",
                "hf://org/name@main/sub/file.safetensors",
                "models:/my model@generator",
                "models:/m/12",
                "smallworld:starter",
            )
        ),
        *(
            ((IMAGE,), text)
            for text in ("viper", "ghcr.io/a/b__c:1.2@sha256:abc", "localhost:5000/x", "10.0.0.1:5000/x:v1")
        ),
    ],
)
def test_what_people_really_have_is_taken(forms: tuple[Any, ...], text: str) -> None:
    assert [form.says for form in forms if not form.fits(text)] == []
