"""Files that are no usable resource, by kind: what every command that reads one has to refuse, and in which words.

`BAD`: name → (content of the file, words of the message). `GOOD`: name → content that looks odd and is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

MINIMAL: dict[str, Any] = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperIteration",
    "metadata": {"name": "first"},
    "spec": {
        "model": "m",
        "images": {"uri": "file:///images"},
        "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld"),
    },
}
TEXT = yaml.safe_dump(MINIMAL)


def edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """The minimal iteration, changed."""
    data: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    edit(data)
    return yaml.safe_dump(data, allow_unicode=True).encode()


def spec(**fields: Any) -> bytes:
    """With other fields in `spec`."""
    return edited(lambda d: d["spec"].update(fields))


def recipe(**fields: Any) -> bytes:
    """With these fields in `spec.recipe`."""
    return spec(recipe=fields)


def tau(text: str) -> bytes:
    """τ as it is written in YAML."""
    return f"{TEXT}  recipe: {{reward: {{tau: {text}}}}}\n".encode()


def template(**fields: Any) -> bytes:
    """With a pod template of these parts."""
    return spec(profile={"defaults": {"podTemplate": fields}})


def pod(**fields: Any) -> bytes:
    """With a pod template of which this is the pod's spec."""
    return template(spec=fields)


_MISSPELT: dict[str, tuple[bytes, str]] = {
    "node selector": (
        pod(nodeSelektor={"a": "b"}),
        "spec.profile.defaults.podTemplate.spec.nodeSelektor: no field of PodSpec; did you mean nodeSelector?",
    ),
    "another case": (pod(nodeselector={}), "did you mean nodeSelector?"),
    "of a container": (
        pod(containers=[{"name": "stage", "imagePulPolicy": "x"}]),
        "spec.containers[stage].imagePulPolicy",
    ),
    "of its resources": (pod(containers=[{"name": "s", "resources": {"limit": {}}}]), "did you mean limits?"),
    "of a probe": (pod(containers=[{"livenesProbe": {}}]), "spec.containers[0].livenesProbe"),
    "of a volume": (pod(volumes=[{"name": "v", "emptydir": {}}]), "spec.volumes[v].emptydir"),
    "of a claim": (
        pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claim_name": "c"}}]),
        "did you mean claimName?",
    ),
    "of labels": (template(metadata={"lables": {}}), "podTemplate.metadata.lables: no field of ObjectMeta"),
    "in another place": (pod(imagePullPolicy="Always"), "it is one of Container"),
    "of a container in the pod": (pod(volumeMounts=[]), "no field of PodSpec; it is one of"),
    "of an affinity": (
        spec(profile={"defaults": {"affinity": {"nodeAffinity": {"requiredDuringScheduling": {}}}}}),
        "affinity.nodeAffinity.requiredDuringScheduling: no field of NodeAffinity; did you mean "
        "requiredDuringSchedulingIgnoredDuringExecution?",
    ),
    "of a selector": (
        spec(
            profile={
                "stages": {
                    "evaluate": {
                        "topologySpreadConstraints": [{"topologyKey": "zone", "labelSelector": {"matchLabel": {}}}]
                    }
                }
            }
        ),
        "spec.profile.stages.evaluate.topologySpreadConstraints[0].labelSelector.matchLabel: no field of LabelSelector",
    ),
}


def _bomb(levels: int) -> bytes:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return ("\n".join(lines) + "\n" + TEXT).encode()


_ENCODING: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "only spaces": (b"  \n\n", "is empty"),
    "only a comment": (b"# later\n", "is empty"),
    "only document marks": (b"---\n---\n", "is empty"),
    "NUL": (b"\0", "not valid YAML"),
    "NUL inside": (TEXT.replace("first", "fi\0rst").encode(), "not valid YAML"),
    "control character": (TEXT.replace("first", "fi\x07rst").encode(), "not valid YAML"),
    "UTF-16": (TEXT.encode("utf-16"), "is UTF-16"),
    "UTF-16 big-endian": (b"\xfe\xff" + TEXT.encode("utf-16-be"), "is UTF-16"),
    "UTF-16 without its mark": (TEXT.encode("utf-16-le"), "not valid YAML"),
    "Latin-1": (TEXT.encode() + "# Größe\n".encode("latin-1"), "is not UTF-8 text (line"),
    "half a letter": (TEXT.encode() + b"# \xf0\x9f", "is not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not UTF-8 text"),
    "a ZIP": (b"PK\x03\x04\x14\x00", "not valid YAML"),
    "too large": (b"# " + b"x" * (2 * 1024 * 1024), "is larger than 2 MiB"),
}
_SYNTAX: dict[str, tuple[bytes, str]] = {
    "tab": (TEXT.encode() + b"\trecipe: {}\n", "indent with spaces"),
    "unclosed brace": (b"{apiVersion: x", "not valid YAML"),
    "unclosed quote": (b"kind: 'Viper", "not valid YAML"),
    "wrong indentation": (b"a: 1\n  b: 2\n", "not valid YAML"),
    "unknown anchor": (b"a: *b\n", "not valid YAML"),
    "anchor in itself": (b"a: &a [*a]\n", "is inside itself"),
    "mapping in itself": (b"a: &a {b: *a}\n", "is inside itself"),
    "future YAML": (b"%YAML 9.9\n---\na: 1\n", "not valid YAML"),
    "list as key": (b"[a, b]: c\n", "a key is a word"),
    "mapping as key": (b"? {a: b}\n: c\n", "a key is a word"),
    "key twice": (TEXT.encode() + b"kind: ViperLoop\n", "the key 'kind' is there twice"),
    "key twice below": (tau("0.9") + b"  recipe: {}\n", "the key 'recipe' is there twice"),
    "key twice in JSON": (b'{"kind": "a", "kind": "b"}', "the key 'kind' is there twice"),
    "code": (b"a: !!python/object/apply:os.system [true]\n", "none of JSON's types"),
    "date by its tag": (b"a: !!timestamp 2024-99-99\n", "none of JSON's types"),
    "bytes": (b"a: !!binary aGk=\n", "none of JSON's types"),
    "set": (b"a: !!set {x}\n", "none of JSON's types"),
    "own tag": (b"a: !secret x\n", "none of JSON's types"),
    "number by its tag": (b"a: !!int x\n", "is no whole number"),
    "real by its tag": (b"a: !!float x\n", "is no number"),
    "truth by its tag": (b"a: !!bool maybe\n", "is neither true nor false"),
    "list by its tag": (b"a: !!seq {b: 1}\n", "a list was announced"),
    "merge of a word": (b"a: {<<: x}\n", "not valid YAML"),
    "deep lists": (b"[" * 100_000, "nested more than 100 deep"),
    "deep mappings": (b'{"a":' * 5_000, "nested more than 100 deep"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(500)).encode(), "nested more than 100 deep"),
    "deep JSON": (b"[" * 200 + b"]" * 200, "nested more than 100 deep"),
    "references that multiply": (_bomb(12), "references counted each time"),
    "too many values": (b"[" + b"1," * 11_000 + b"1]\n# not JSON", "references counted each time"),
    "JSON's NaN": (b'{"a": NaN}', "NaN is no number"),
    "broken JSON": (b'{"kind": "ViperIteration",', "not valid YAML"),
    "thousands of digits": (tau("9" * 5000), "more than 18 digits"),
    "thousands of digits in JSON": (b'{"a": ' + b"9" * 5000 + b"}", "more than 18 digits"),
    "CSV": (b'a,b\n1,"2\n', "expected one resource"),
    "HTML": (b"<html>\n<body>\n", "expected one resource"),
}
_SHAPE: dict[str, tuple[bytes, str]] = {
    "a word": (b"hello\n", "expected one resource"),
    "a number": (b"3\n", "expected one resource"),
    "a truth": (b"true\n", "expected one resource"),
    "a list": (b"- 1\n- 2\n", "expected one resource"),
    "a list of resources": (b"- kind: ViperIteration\n", "expected one resource"),
    "an empty mapping": (b"{}\n", "kind is None"),
    "kind is a list": (edited(lambda d: d.update(kind=["ViperIteration"])), "kind is a list"),
    "kind is a mapping": (edited(lambda d: d.update(kind={"a": 1})), "kind is a mapping"),
    "kind is a number": (edited(lambda d: d.update(kind=1)), "kind is 1"),
    "kind is missing": (edited(lambda d: d.pop("kind")), "kind is None"),
    "kind is misspelt": (edited(lambda d: d.update(kind="ViperIteratoin")), "did you mean 'ViperIteration'?"),
    "kind is a book": (edited(lambda d: d.update(kind="k" * 100_000)), "(100000 characters)"),
    "kind of Kubernetes": (edited(lambda d: d.update(kind="Pod")), "use one of"),
    "apiVersion is old": (edited(lambda d: d.update(apiVersion="viper.dev/v0")), "use 'viper.dev/v1alpha1'"),
    "apiVersion is a list": (edited(lambda d: d.update(apiVersion=[1])), "apiVersion is a list"),
    "apiVersion is missing": (edited(lambda d: d.pop("apiVersion")), "apiVersion is None"),
    "metadata is a word": (edited(lambda d: d.update(metadata="x")), "metadata: "),
    "metadata is a list": (edited(lambda d: d.update(metadata=["x"])), "metadata: "),
    "metadata is missing": (edited(lambda d: d.pop("metadata")), "metadata: required field is missing"),
    "name is missing": (edited(lambda d: d.update(metadata={})), "metadata.name: required field is missing"),
    "name is a number": (edited(lambda d: d["metadata"].update(name=1)), "metadata.name: "),
    "name is a date": (TEXT.replace("first", "2024-99-99x_").encode(), "metadata.name: must be at most 50"),
    "name is empty": (edited(lambda d: d["metadata"].update(name="")), "metadata.name: must be"),
    "name is long": (edited(lambda d: d["metadata"].update(name="n" * 51)), "metadata.name: must be at most 50"),
    "name is a path": (edited(lambda d: d["metadata"].update(name="../../etc")), "metadata.name: must be"),
    "name ends with a line": (edited(lambda d: d["metadata"].update(name="a\n")), "metadata.name: must be"),
    "spec is a word": (edited(lambda d: d.update(spec="x")), "spec: "),
    "spec is a list": (edited(lambda d: d.update(spec=[])), "spec: "),
    "spec is null": (edited(lambda d: d.update(spec=None)), "spec: required field is missing"),
    "spec is missing": (edited(lambda d: d.pop("spec")), "spec: required field is missing"),
    "status of a cluster": (edited(lambda d: d.update(status={"phase": "x"})), "status: unknown field"),
    "unknown field": (recipe(rewards={}), "did you mean spec.recipe.reward?"),
    "a number as field": (f"{TEXT}  1: x\n".encode(), "spec.1: unknown field"),
    "a long field": (spec(**{"f" * 50_000: 1}), "unknown field"),
    "two thousand unknown fields": (spec(**{f"f{i}": 1 for i in range(2000)}), "… and 1980 more"),
    "loop without a template": (
        b"apiVersion: viper.dev/v1alpha1\nkind: ViperLoop\nmetadata: {name: l}\nspec: {iterations: 2}\n",
        "spec.template: required field is missing",
    ),
    "loop of none": (
        edited(lambda d: d.update(kind="ViperLoop", spec={"iterations": 0, "template": d["spec"]})),
        "spec.iterations: ",
    ),
    "loop of many": (
        edited(lambda d: d.update(kind="ViperLoop", spec={"iterations": 10**12, "template": d["spec"]})),
        "spec.iterations: ",
    ),
}
_VALUES: dict[str, tuple[bytes, str]] = {
    "τ is nan": (tau(".nan"), "spec.recipe.reward.tau: "),
    "τ is infinite": (tau(".inf"), "spec.recipe.reward.tau: "),
    "τ is beyond all numbers": (tau("1e999"), "spec.recipe.reward.tau: "),
    "τ is negative": (tau("-0.1"), "spec.recipe.reward.tau: "),
    "τ is more than 1": (tau("1.01"), "spec.recipe.reward.tau: "),
    "τ is a word": (tau("high"), "spec.recipe.reward.tau: "),
    "τ is text": (tau("'0.85'"), "spec.recipe.reward.tau: "),
    "τ is a list": (tau("[0.85]"), "spec.recipe.reward.tau: "),
    "τ is a truth": (tau("yes"), "spec.recipe.reward.tau: "),
    "τ is a clock": (tau("0:30"), "spec.recipe.reward.tau: "),
    "τ is a date": (tau("2024-01-01"), "spec.recipe.reward.tau: "),
    "τ is no date": (tau("2024-99-99"), "spec.recipe.reward.tau: "),
    "τ is German": (tau("'0,85'"), "spec.recipe.reward.tau: "),
    "half an image": (spec(images={"uri": "file:///i", "limit": 1.5}), "spec.images.limit: "),
    "no image": (spec(images={"uri": "file:///i", "limit": 0}), "spec.images.limit: "),
    "fewer than no image": (spec(images={"uri": "file:///i", "limit": -3}), "spec.images.limit: "),
    "images are a word": (spec(images="file:///i"), "spec.images: "),
    "images are nothing": (spec(images={"uri": ""}), "spec.images.uri: "),
    "engines are a list": (spec(engines=["fake"]), "spec.engines: "),
    "model is a path": (spec(model="a/b"), "spec.model: must be a name without"),
    "model is null": (spec(model=None), "spec.model: required field is missing"),
    "two generators": (spec(generator={"alias": "a", "version": 1}), "exactly one of alias, version, uri"),
    "version zero": (spec(generator={"version": 0}), "spec.generator.version: "),
    "version is a word": (spec(generator={"version": "three"}), "spec.generator.version: "),
    "unknown stages": (recipe(stages="all"), "spec.recipe.stages: "),
    "unknown stage in the profile": (spec(profile={"stages": {"train": {}}}), "profile.stages names unknown stages"),
    "shards of no shard": (spec(profile={"defaults": {"shards": 0}}), "spec.profile.defaults.shards: "),
    "batches do not fit": (recipe(captions={"training": {"batchPrompts": 100}}), "must be a multiple of"),
    "batch is negative": (recipe(captions={"training": {"batchPrompts": -128}}), "batchPrompts: "),
    "seed is a word": (recipe(seed="lucky"), "spec.recipe.seed: "),
    "even votes": (recipe(validation={"judge": {"votes": 2}}), "votes must be odd"),
    "policy is misspelt": (spec(promotion={"policy": "Manuel"}), "spec.promotion.policy: "),
    "alias with odd characters": (spec(promotion={"alias": "gen erator@1"}), "spec.promotion.alias: must be"),
    "suspend is a word": (spec(suspend="maybe"), "spec.suspend: "),
    "emoji as seed": (recipe(seed="🙂"), "spec.recipe.seed: "),
    "half an emoji": (
        json.dumps({**MINIMAL, "metadata": {"name": "a\ud83d"}}).encode(),
        "metadata.name: ",
    ),
}
BAD = {
    f"{kind}: {name}": case
    for kind, cases in (
        ("encoding", _ENCODING),
        ("syntax", _SYNTAX),
        ("shape", _SHAPE),
        ("value", _VALUES),
        ("misspelt", _MISSPELT),
    )
    for name, case in cases.items()
}

#: What looks odd and is right: content, field below `spec.recipe` and its value.
GOOD: dict[str, tuple[bytes, float]] = {
    "1e-4 is a number": (tau("1e-4"), 1e-4),
    "5E-1 is a number": (tau("5E-1"), 0.5),
    "a byte order mark": (b"\xef\xbb\xbf" + tau("0.5"), 0.5),
    "line ends of Windows": (tau("0.5").replace(b"\n", b"\r\n"), 0.5),
    "JSON": (json.dumps({**MINIMAL, "spec": {**MINIMAL["spec"], "recipe": {"reward": {"tau": 5e-1}}}}).encode(), 0.5),
    "JSON with tabs": (
        json.dumps({**MINIMAL, "spec": {**MINIMAL["spec"], "recipe": {"reward": {"tau": 0.5}}}}, indent="\t").encode(),
        0.5,
    ),
    "an empty document after it": (tau("0.5") + b"---\n", 0.5),
    "a merge": (b"x: &x {tau: 0.5}\n".replace(b"x: ", b"# ") + tau("0.5"), 0.5),
    "1 for 1.0": (tau("1"), 1.0),
    "a point before digits": (tau(".5"), 0.5),
}
