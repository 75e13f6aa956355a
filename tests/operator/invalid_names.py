"""Names, URIs and texts that MLflow, S3 or Kubernetes will not take; part of the table of `invalid_manifests`."""

from __future__ import annotations

from typing import Any

from manifest_cases import Case


def _at(
    field: str, names: dict[str, str], *says: str, hidden: str = "", beside: dict[str, Any] | None = None
) -> list[Case]:
    """A case for each text at a field; `beside`: what else has to be there."""
    path = field.replace(".", " ")
    return [
        Case(f"{field}: {why}", {**(beside or {}), path: text}, field, says, hidden=hidden)
        for why, text in names.items()
    ]


_ALIASES = {
    "a slash": "team/generator",
    "a colon": "a:b",
    "an @": "@champion",
    "an apostrophe": "it's",
    "a quote": 'a"b',
    "a line break": "a\n",
    "a NUL": "a\0b",
    "an accent": "générateur",
    "a digit first": "3",
    "a blank": "a b",
    "a dot": "v1.2",
}
_RESERVED = {"v2": "v2", "V12": "V12", "latest": "latest", "Latest": "Latest", "LATEST": "LATEST"}

ALIASES = [
    case
    for field in ("spec.promotion.alias", "spec.generator.alias")
    for case in [
        *_at(field, _ALIASES, "must be letters, digits, '_' and '-', beginning with a letter"),
        *_at(field, _RESERVED, "must not be latest, or v and a number", "use another word"),
        *_at(field, {"251 letters": "a" * 251}, "250"),
    ]
]

MODELS = [
    *_at(
        "spec.model",
        {
            "an apostrophe": "it's",
            "a quote": 'my "model"',
            "a backslash": "a\\b",
            "a colon": "a:b",
            "an @": "a@b",
            "a question mark": "why?",
            "a number sign": "c#",
            "a percent sign": "50%",
            "a line break": "a\nb",
            "an escape": "a\x1b[31m",
            "a blank at its end": "a ",
            "nothing but a blank": " ",
        },
        "must be a name without '/'",
        "blanks at its ends",
    ),
    *_at("spec.model", {"a dot": ".", "two dots": "..", "dots first": "..m"}, "must not be '.'"),
    *_at("spec.model", {"251 letters": "m" * 251}, "250"),
]

_FILES = {
    "relative": "file://photos",
    "without slashes": "file:photos",
    "with one slash": "file:/photos",
    "of another machine": "file://nas/photos",
    "of this machine by name": "file://localhost/photos",
    "of nothing": "file://",
    "of the whole disk": "file:///",
}
_ENCODED = {
    "a question mark": "file:///photos/why?1",
    "a number sign": "file:///photos/#1",
    "a percent sign": "file:///photos/50%",
    "no hexadecimal number": "file:///photos/%zz",
}
_QUOTED = {"an apostrophe": "file:///ana's", "a quote": 's3://bucket/"a"', "a backslash": "s3://bucket/a\\b"}
_CONTROLS = {"a line break": "s3://bucket/a\nb", "a NUL": "photos\0", "a tab": "file:///a\tb"}
_S3 = {
    "no bucket": "s3://",
    "one slash": "s3:/bucket/x",
    "a bucket in capitals": "s3://Photos/x",
    "a bucket with '_'": "s3://my_photos/x",
    "a bucket with two dots": "s3://a..b/x",
    "a bucket with a hyphen first": "s3://-ab/x",
    "a region": "s3://bucket/x?region=eu-west-1",
    "an endpoint without a scheme": "s3://bucket/x?endpoint=minio:9000",
    "an endpoint with a path": "s3://bucket/x?endpoint=http://minio:9000/base",
    "a fragment": "s3://bucket/x#part",
}
_BUCKETS = {
    "a bucket of two letters": "s3://ab/x",
    "a bucket of 64 letters": f"s3://{'b' * 64}/x",
    "an address as a bucket": "s3://192.168.0.1/x",
    "a bucket in Punycode": "s3://xn--bcher-kva/x",
}
_KEYS = {
    "nothing between slashes": "s3://bucket/2024//x",
    "two dots": "s3://bucket/a/../b",
    "a dot": "s3://bucket/./b",
    "a reserved name": "s3://bucket/.viper-tmp/x",
    "a name of 256 letters": f"s3://bucket/{'n' * 256}/x",
}
#: As those of AWS.
_KEY = "hunter2/a+b"
_CREDENTIALS = {
    "user and password": f"http://ana:{_KEY}@host/photos",
    "keys": f"s3://AKIA:{_KEY}@bucket/x",
    "a token as user": "https://hunter2@host/x",
    "an encoded @": "s3://AKIA:hunter2%40bucket/x",
    "a signature": "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=hunter2",
    "a token in the query": "s3://bucket/x?token=hunter2",
    "a key in the fragment": "s3://bucket/x#access_key=hunter2",
    "an endpoint with a password": "s3://bucket/x?endpoint=https://ana:hunter2@minio:9000",
}
_OF_A_POOL = "must be a folder, file:///folder, s3://bucket/prefix or smallworld:scenes"

IMAGES = [
    *_at("spec.images.uri", _FILES, "write file:///absolute/path"),
    *_at("spec.images.uri", _ENCODED, "'?' is %3F"),
    *_at("spec.images.uri", {"an encoded line break": "file:///a%0Ab"}, "must not hold control characters"),
    *_at("spec.images.uri", _QUOTED, "must not hold quotes or backslashes", "%27"),
    *_at("spec.images.uri", _CONTROLS, "must not hold line breaks", "remove them"),
    *_at("spec.images.uri", {"a blank first": " /photos", "a blank last": "/photos "}, "begin or end with a blank"),
    *_at("spec.images.uri", _S3, "must be s3://bucket/prefix"),
    *_at("spec.images.uri", _BUCKETS, "a bucket of 3 to 63"),
    *_at("spec.images.uri", _KEYS, "in its prefix"),
    *_at("spec.images.uri", _CREDENTIALS, "must not hold credentials", "environment", hidden="hunter2"),
    *_at(
        "spec.images.uri",
        {
            "of the web": "https://example.org/photos",
            "of Google": "gs://bucket/photos",
            "of a hub": "hf://org/photos",
            "of a drive": "C:/photos",
            "of a host": "minio:9000/photos",
            "in capitals": "FILE:///photos",
            "scenes without a number": "smallworld:scenes",
            "no scenes": "smallworld:scenes?count=0",
            "scenes of the questions": "smallworld:scenes?count=5&seed=500",
            "more scenes than there are": "smallworld:scenes?count=1000001",
            "other drawings": "smallworld:drawings?count=5",
        },
        _OF_A_POOL,
    ),
]

_COLD = {"spec recipe coldStart": {"samplesUri": "rows.jsonl"}}
_EXTERNAL = {"spec recipe external": {"uri": "rows.jsonl"}}
#: Every other field that holds a URI: what stands beside it, and the words for what it takes.
_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "spec.generator.uri": ({}, "hf://org/name@revision"),
    "spec.generator.initialUri": ({"spec generator alias": "generator"}, "hf://org/name@revision"),
    "spec.recipe.coldStart.samplesUri": (_COLD, "must be a file"),
    "spec.recipe.external.uri": (_EXTERNAL, "must be a file"),
    "spec.recipe.models.critic": ({}, "must be generator, base"),
    "spec.recipe.models.judge": ({}, "must be generator, base"),
    "spec.evaluation.questions": ({}, "smallworld:questions"),
    "spec.evaluation.benchmarks.datasets": ({}, "s3://bucket/prefix or hub"),
    "spec.engines.editing.lora": ({}, "must be a directory"),
    "spec.engines.reconstruction.lora": ({}, "must be a directory"),
}
_ENGINES = ("vlm", "reconstructor", "editor", "similarity", "imageSimilarity", "trainer")

URIS = [
    case
    for field, (beside, takes) in _FIELDS.items()
    for case in [
        *_at(field, {"of the web": "https://example.org/x"}, takes, beside=beside),
        *_at(field, {"relative": "file://x"}, "write file:///absolute/path", beside=beside),
        *_at(field, {"keys": "s3://AKIA:hunter2@b/x"}, "must not hold credentials", hidden="hunter2", beside=beside),
        *_at(field, {"a token": "https://h/x?token=hunter2"}, "credentials", hidden="hunter2", beside=beside),
    ]
] + [
    case
    for engine in _ENGINES
    for case in [
        *_at(f"spec.engines.{engine}", {"relative": "own:file://x"}, "write file:///absolute/path"),
        *_at(f"spec.engines.{engine}", {"keys": "own:s3://AKIA:hunter2@b/x"}, "credentials", hidden="hunter2"),
        *_at(f"spec.engines.{engine}", {"no name": "../x"}, "must be the name of an engine"),
    ]
]

OTHERS = [
    *_at(
        "spec.generator.uri",
        {
            "a path": "/models/m",
            "a hub without an organisation": "hf://name",
            "a registered model without a version": "models:/m",
            "the newest registered one": "models:/m/latest",
            "an alias that begins with a digit": "models:/m@3",
            "an endpoint": "openai:https://host/v1#m",
        },
        "must be file:///directory",
    ),
    *_at(
        "spec.generator.uri", {"the newest by alias": "models:/m@latest", "by version": "models:/m@v2"}, "set by people"
    ),
    *_at("spec.generator.uri", {"a token of a hub": "hf://ana:hunter2@org/name"}, "credentials", hidden="hunter2"),
    *_at(
        "spec.recipe.models.critic",
        {"a password": "openai:https://u:hunter2@h/v1#m"},
        "OPENAI_API_KEY",
        hidden="hunter2",
    ),
    *_at("spec.engines.vlm", {"a key": "openai:https://h/v1?api_key=hunter2#m"}, "OPENAI_API_KEY", hidden="hunter2"),
    *_at(
        "spec.engines.vlm",
        {
            "no port": "openai:https://h:port/v1#m",
            "port 0": "openai:http://h:0",
            "half an address": "openai:http://[::1/v1",
        },
        "openai:https://host/v1",
    ),
    *_at("spec.engines.vlm", {"an encoded password": "openai:https://u:hunter2%40h/v1"}, "OPENAI_", hidden="hunter2"),
    *_at("spec.images.uri", {"a high port": "s3://photos/a?endpoint=http://minio:90000"}, "must be s3://bucket"),
    *_at("spec.evaluation.questions", {"riddles": "smallworld:riddles"}, "smallworld:questions"),
    *_at(
        "spec.recipe.prompts", {"a path": "../../etc", "a file": "/etc/x", "a blank": "my prompts"}, "must be letters"
    ),
    *_at("spec.recipe.external.columns.prompt", {"a line break": "a\n"}, "must not hold line breaks", beside=_EXTERNAL),
    *_at("spec.engines.editing.negativePrompt", {"a NUL": "a\0b"}, "must not hold control characters"),
    *_at("spec.evaluation.benchmarks.instruction", {"an escape": "\x1b[2J"}, "must not hold control characters"),
    *_at("spec.engines.training.rollout", {"a path": "../sglang"}, "must be letters"),
    Case(
        "a setting of verl with a NUL",
        {"spec engines training overrides": {"a.b": "x\0"}},
        "spec.engines.training.overrides",
        ("must not hold control characters",),
    ),
    Case(
        "a label with a blank",
        {"metadata labels": {"my team": "a"}},
        "metadata.labels",
        (),
        server=("alphanumeric",),
        here=("letters, digits",),
    ),
    Case(
        "a label's value with a slash",
        {"metadata labels": {"team": "a/b"}},
        "metadata.labels",
        (),
        server=("alphanumeric",),
        here=("letters, digits",),
    ),
    Case(
        "an annotation without a name",
        {"metadata annotations": {"example.org/": "a"}},
        "metadata.annotations",
        (),
        server=("non-empty",),
        here=("letters, digits",),
    ),
]

#: Loops that would begin anew each time.
LOOPS = [
    Case(
        "a loop that moves another alias than it begins from",
        {"spec template promotion alias": "champion"},
        "spec.template.promotion.alias",
        ("template.generator (generator)", "use one alias for both"),
        kind="ViperLoop",
    ),
    Case(
        "a loop that begins from another alias than it moves",
        {"spec template generator alias": "champion", "spec template promotion policy": "Manual"},
        "spec.template.promotion.alias",
        ("template.generator (champion)", "use one alias for both"),
        kind="ViperLoop",
    ),
    Case(
        "a loop from a version",
        {"spec template generator": {"version": 3}},
        "spec.template.generator",
        ("must be an alias", "set template.generator.alias"),
        kind="ViperLoop",
    ),
    Case(
        "a loop from a directory",
        {"spec template generator": {"uri": "file:///models/m"}},
        "spec.template.generator",
        ("must be an alias", "set template.generator.alias"),
        kind="ViperLoop",
    ),
    Case(
        "a reserved alias in a loop",
        {"spec template generator alias": "latest", "spec template promotion alias": "latest"},
        "spec.template.promotion.alias",
        ("must not be latest",),
        kind="ViperLoop",
    ),
]

_JUDGE = "spec.evaluation.benchmarks.judge"
JUDGES = [
    *_at(_JUDGE, {"a password": "openai:https://u:hunter2@h/v1#m"}, "rules, or openai:", hidden="hunter2"),
    *_at(_JUDGE, {"a key": "openai:https://h/v1?api_key=hunter2#m"}, "rules, or openai:", hidden="hunter2"),
    *_at(_JUDGE, {"an encoded password": "openai:https://u:hunter2%40h/v1#m"}, "rules, or openai:", hidden="hunter2"),
    *_at(
        _JUDGE, {"no port": "openai:https://h:x/v1#m", "a high port": "openai:http://h:65536/v1#m"}, "rules, or openai:"
    ),
]

NAMES = [*ALIASES, *MODELS, *IMAGES, *URIS, *OTHERS, *JUDGES, *LOOPS]
