"""What a store holds is read whichever release wrote it, is known by what was stored, and can move with its store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

import viper
from fakes import world
from viper.digests import digest_of
from viper.errors import NewerFormError, SpecError, StageError, StoreError
from viper.spec import parse_resource
from viper.spec.base import SpecModel, setting
from viper.stage import FrozenIteration, Manifest, PartRecord, ProgressRecord, load_frozen, load_manifest
from viper.store import DirectoryStore, relative_database, relative_uri, resolve_database, resolve_uri
from viper.stored import StoredForm, least_version, read_object, release

PART = {"index": 0, "key": "parts/00000.parquet", "digest": "d", "rows": 2, "accepted": 1, "rejected": {"odd": 1}}
#: As 0.1.0 wrote it: every field, no envelope.
OLD: dict[str, Any] = {
    "stage": "validate-captions",
    "iteration": "it",
    "identity": "i",
    "inputs": {"synthesize-captions": "s"},
    "parts": [{**PART, "counters": {}, "seconds": 1.5}],
    "accepted": 1,
    "rejected": {"odd": 1},
    "counters": {"train": 1},
    "outputs": {"card": "card.json"},
    "seconds": 2.5,
}


def as_before(stored: dict[str, Any]) -> str:
    """`Manifest.content_digest` of 0.1.0."""
    content = {k: v for k, v in stored.items() if k != "seconds"}
    content["parts"] = [{k: v for k, v in p.items() if k != "seconds"} for p in stored["parts"]]
    return digest_of(content)


def stored(value: Any) -> bytes:
    return json.dumps(value).encode()


# ---- known by what was stored ------------------------------------------------------------------------------------


def test_a_manifest_of_before_has_the_digest_that_it_had() -> None:
    assert Manifest.read(stored(OLD)).content_digest == as_before(OLD)
    assert Manifest.read(stored(OLD)).schema_version == 0


def test_the_same_work_has_the_same_digest_in_the_form_of_before_and_of_now() -> None:
    made = Manifest.of_parts(
        stage="validate-captions",
        iteration="it",
        identity="i",
        inputs={"synthesize-captions": "s"},
        parts=[PartRecord.of(OLD["parts"][0])],
        outputs={"card": "card.json"},
    ).model_copy(update={"counters": {"train": 1}})
    assert made.content_digest == as_before(OLD)
    again = Manifest.read(made.to_bytes())
    assert (again.content_digest, again.schema_version, again.min_version) == (as_before(OLD), 1, "0.2.0")


@pytest.mark.parametrize(
    "more",
    [
        {"later": 1},
        {"later": {"deep": [1, {"x": None}]}},
        {"parts": [{**OLD["parts"][0], "later": "x"}]},
        {"outputs": {"card": "card.json", "later": [1]}},
        {"schemaVersion": 1, "minVersion": "0.2.0", "later": True},
    ],
)
def test_what_a_later_release_adds_is_kept_and_counts(more: dict[str, Any]) -> None:
    content = {**OLD, **more}
    read = Manifest.read(stored(content))
    assert read.accepted == 1
    assert json.loads(read.to_bytes()) == content
    assert read.content_digest != as_before(OLD)
    assert Manifest.read(read.to_bytes()).content_digest == read.content_digest


def test_a_part_keeps_what_a_later_release_says_of_it_in_the_manifest_that_an_older_one_writes() -> None:
    part = PartRecord.read(stored({**PART, "later": {"a": 1}}))
    made = Manifest.of_parts(stage="s", iteration="it", identity="i", inputs={}, parts=[part], outputs={})
    assert json.loads(made.to_bytes())["parts"][0]["later"] == {"a": 1}


def test_a_field_with_a_default_that_a_release_adds_changes_no_digest() -> None:
    class Later(Manifest):
        """Of a release to come."""

        shards: int = setting(1, description="New.")

    assert Later.read(stored(OLD)).content_digest == as_before(OLD)
    assert Later.read(stored(OLD)).shards == 1


FROZEN = world.frozen("it")


@pytest.mark.parametrize("path", [(), ("iteration",), ("iteration", "spec", "recipe", "reward"), ("generator",)])
def test_a_frozen_iteration_keeps_its_identity_with_fields_that_this_release_does_not_know(
    path: tuple[str, ...],
) -> None:
    content = FROZEN.dump()
    inner = content
    for name in path:
        inner = inner[name]
    inner["later"] = {"x": 1}
    read = FrozenIteration.read(stored(content))
    assert read.iteration == FROZEN.iteration
    assert read.identity != FROZEN.identity
    assert json.loads(read.to_bytes()) == content
    assert FrozenIteration.read(read.to_bytes()).identity == read.identity


def test_what_people_write_stays_strict() -> None:
    written = FROZEN.iteration.dump()
    written["spec"]["recipe"]["reward"]["later"] = 1
    with pytest.raises(SpecError, match=r"spec\.recipe\.reward\.later: unknown field"):
        parse_resource(written)


# ---- for which release -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("envelope", "needs"),
    [
        ({"schemaVersion": 2}, "a newer viper"),
        ({"schemaVersion": 2, "minVersion": "0.3.0"}, "viper 0.3.0"),
        ({"schemaVersion": 1, "minVersion": "0.10.0"}, "viper 0.10.0"),
        ({"minVersion": "99.0.0rc1"}, "viper 99.0.0rc1"),
    ],
)
@pytest.mark.parametrize("form", [Manifest, PartRecord, FrozenIteration, ProgressRecord])
def test_a_form_for_a_later_release_is_refused_with_its_name(
    form: type[StoredForm], envelope: dict[str, Any], needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viper, "__version__", "0.2.0")
    with pytest.raises(NewerFormError) as error:
        form.read(stored({"unreadable": "for this one", **envelope}), where="s3://b/x.json")
    assert f"needs {needs}; this is viper 0.2.0" in error.value.what
    assert error.value.where == "s3://b/x.json"
    assert "stays as it is" in error.value.fix


@pytest.mark.parametrize("envelope", [{"minVersion": "0.2.0"}, {"schemaVersion": 1, "minVersion": "0.2.0rc1"}])
def test_a_form_for_this_release_or_an_earlier_one_is_read(
    envelope: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viper, "__version__", "0.10.0")
    assert PartRecord.read(stored({**PART, **envelope})).rows == 2


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"schemaVersion": "1"}, "is none"),
        ({"schemaVersion": True}, "is none"),
        ({"schemaVersion": -1}, "is none"),
        ({"schemaVersion": None}, "is none"),
        ({"minVersion": 3}, "is none"),
        ({"minVersion": "soon"}, "'soon' is no version"),
        ({"minVersion": "1"}, "'1' is no version"),
    ],
)
def test_an_envelope_that_says_nothing_is_explained(envelope: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        PartRecord.read(stored({**PART, **envelope}))


def test_versions_are_ordered_as_releases_are() -> None:
    order = ["0.1.0", "0.2.0.dev1", "0.2.0a1", "0.2.0b2", "0.2.0rc1.dev1", "0.2.0rc1", "0.2.0rc2", "0.2.0", "0.9.0"]
    order += ["0.10.0", "1.0.0", "10.0.0"]
    assert [release(v) for v in order] == sorted(map(release, order))


class Inner(SpecModel):
    """Of a release to come."""

    rate: float = setting(1.0, since="0.4.0", description="New.")


class Outer(SpecModel):
    """Of a release to come."""

    inner: Inner = setting(Inner, description="There before.")
    several: dict[str, Inner] = setting(dict, description="There before.")
    speed: int = setting(1, since="0.10.0", description="New.")


@pytest.mark.parametrize(
    ("made", "least"),
    [
        (Outer(), "0.2.0"),
        (Outer(inner=Inner(rate=2.0)), "0.4.0"),
        (Outer(several={"a": Inner(), "b": Inner(rate=2.0)}), "0.4.0"),
        (Outer(inner=Inner(rate=2.0), speed=2), "0.10.0"),
    ],
)
def test_a_specification_needs_the_release_of_the_newest_field_that_it_sets(made: Outer, least: str) -> None:
    assert least_version(made) == least


# ---- moving ------------------------------------------------------------------------------------------------------

S3 = "s3://b/run"


@pytest.mark.parametrize(
    ("store", "uri", "there"),
    [
        (S3, "s3://b/run/models/sha256-0", "models/sha256-0"),
        (f"{S3}?endpoint=http://h:9000", "s3://b/run/models/m?endpoint=http://h:9000", "models/m"),
        (S3, "s3://b/run/models/m?endpoint=http://h:9000", None),
        ("s3://b", "s3://b/models/m", "models/m"),
        (S3, "s3://b/running/m", None),
        (S3, "s3://b/run", None),
        (S3, "s3://other/run/models/m", None),
        ("file:///a/store", "file:///a/store/models/m", "models/m"),
        ("file:///a%20b/store", "file:///a%20b/store/models/m%C3%A9", "models/mé"),
        ("file:///a/store", "file:///a/store/../m", None),
        ("file:///a/store", "file:///elsewhere/m", None),
        ("file:///a/store", "openai:https://h/v1#m", None),
        ("file:///a/store", "hf://org/name@main", None),
    ],
)
def test_what_lies_in_the_store_is_stored_by_its_key_and_everything_else_as_it_is(
    store: str, uri: str, there: str | None
) -> None:
    assert relative_uri(store, uri) == (there or uri)
    assert resolve_uri(store, relative_uri(store, uri)) == uri
    if there is not None:
        assert resolve_uri("s3://moved/to", relative_uri(store, uri)) == f"s3://moved/to/{there}"


@pytest.mark.parametrize("bad", ["", "/etc/passwd", "../other", "models/../../x", "a\\b", "a//b", "a\x00b"])
def test_a_stored_key_cannot_lead_out_of_its_store(bad: str) -> None:
    with pytest.raises(StoreError, match="not a valid object key"):
        resolve_uri("file:///a/store", bad)


@pytest.mark.parametrize(
    ("store", "uri", "there"),
    [
        ("file:///r/store", "sqlite:////r/mlflow.db", "../mlflow.db"),
        ("file:///r/store", "sqlite:////elsewhere/mlflow.db", None),
        ("file:///r/store", "sqlite:////r/store/mlflow.db", "mlflow.db"),
        ("file:///r/store", "sqlite:////r/x/../mlflow.db", None),
        ("file:///r/store", "sqlite:///mlflow.db", None),
        ("file:///r/store", "http://mlflow:5000", None),
        ("s3://b/run", "sqlite:////r/mlflow.db", None),
    ],
)
def test_a_database_beside_a_store_moves_with_it(store: str, uri: str, there: str | None) -> None:
    assert relative_database(store, uri) == (there or uri)
    assert resolve_database(store, relative_database(store, uri)) == uri


def test_an_iteration_and_its_models_move_with_their_store(tmp_path: Path) -> None:
    before = DirectoryStore(tmp_path / "before")
    inside = FROZEN.generator.model_copy(update={"uri": f"{before.uri}/models/m"})
    one = FROZEN.model_copy(update={"generator": inside, "base": inside}).to_store(before.uri)
    before.put("iterations/it/iteration.json", one.to_bytes())
    outputs = {"model": {"uri": "iterations/it/stages/train-captions/model", "digest": "sha256:0"}, "steps": 1}
    made = Manifest(stage="train-captions", iteration="it", identity=one.identity, outputs=outputs)
    before.put("iterations/it/stages/train-captions/manifest.json", made.to_bytes())
    (tmp_path / "before").rename(tmp_path / "after")
    after = DirectoryStore(tmp_path / "after")
    found, manifest = load_frozen(after, "it"), load_manifest(after, "iterations/it", "train-captions")
    assert found is not None
    assert manifest is not None
    assert found.generator.uri == f"{after.uri}/models/m"
    assert found.critic.uri == "file:///model"
    assert found.identity == one.identity == manifest.identity
    assert manifest.outputs["model"]["uri"] == f"{after.uri}/iterations/it/stages/train-captions/model"
    assert manifest.content_digest == made.content_digest


# ---- the door ----------------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000 + b"]" * 100_000
BAD = {
    "empty": b"",
    "half": b'{"a": 1',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"4",
    "null": b"null",
    "true": b"true",
    "400 digits": b'{"a": ' + b"9" * 400 + b"}",
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "2**63": b'{"a": 9223372036854775808}',
    "a float without bounds": b'{"a": 1e999}',
    "a hundred thousand levels": DEEP,
    "levels in an object": b'{"a":' * 200 + b"1" + b"}" * 200,
    "half an emoji": b'{"a": "\\ud83d"}',
    "half an emoji as a key": b'{"\\udc00": 1}',
    "a name twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "rows": b'{"a": 1}\n{"a": 2}',
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("error", [StoreError, StageError])
def test_what_is_no_object_of_plain_values_is_refused(data: bytes, error: type[StoreError]) -> None:
    with pytest.raises(error) as refused:
        read_object(data, what="a manifest", where="s3://b/x.json", error=error)
    assert refused.value.what.startswith("is not a manifest: ")
    assert refused.value.where == "s3://b/x.json"
    assert "stays" in refused.value.fix
    assert len(str(refused.value)) < 400


SHAPES: dict[str, Any] = {
    "nothing": {},
    "parts that are none": {**OLD, "parts": [1]},
    "a map of parts": {**OLD, "parts": {"0": PART}},
    "a negative count": {**OLD, "accepted": -1},
    "a text as count": {**OLD, "accepted": "many"},
    "a list of outputs": {**OLD, "outputs": []},
    "a number as stage": {**OLD, "stage": 3},
    "inputs of lists": {**OLD, "inputs": {"a": ["b"]}},
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES.keys())
def test_a_manifest_of_another_shape_is_refused_with_the_field(content: Any, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("iterations/it/stages/s/manifest.json", stored(content))
    with pytest.raises(StageError, match="is not a manifest: ") as error:
        load_manifest(store, "iterations/it", "s")
    assert "iterations/it/stages/s/manifest.json" in error.value.where


def test_half_an_emoji_that_is_whole_is_read() -> None:
    assert read_object(b'{"a": "\\ud83d\\ude00"}', what="x") == {"a": "\U0001f600"}


class Words(StoredForm):
    """A form with a name of its own."""

    WHAT: ClassVar[str] = "a list of words"
    SINCE: ClassVar[str] = "0.7.0"
    FORM: ClassVar[int] = 3
    words: tuple[str, ...] = setting(tuple, description="Words.")


def test_what_is_made_says_its_form_and_the_release_that_brought_it() -> None:
    content = json.loads(Words(words=("a",)).to_bytes())
    assert content == {"schemaVersion": 3, "minVersion": "0.7.0", "words": ["a"]}
    needs_more = json.loads(Words(min_version="0.8.0").to_bytes())
    assert needs_more == {"schemaVersion": 3, "minVersion": "0.8.0", "words": []}
