"""An iteration of the small world that an earlier release began, and left in the middle, ends under this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.golden import expected, restored
from viper.registry import Registry
from viper.stage import load_frozen, load_manifest
from viper.store import open_store

BEGUN = ("ingest-images", "synthesize-captions", "validate-captions")


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_iteration_of_0_1_0_goes_on_at_another_place_and_ends_promoted(tmp_path: Path) -> None:
    directory, said = restored("0.1.0", "half", tmp_path / "half"), expected("0.1.0")["half"]
    resource = json.loads((directory / "run.json").read_text("utf-8"))["resource"]
    (tmp_path / "half.yaml").write_text(yaml.safe_dump(resource), "utf-8")
    store = open_store(directory / "store")
    before = {o.key: store.get(o.key) for o in store.list("iterations/half/stages/")}
    done = subprocess.run(
        [sys.executable, "-m", "viper", "run", str(tmp_path / "half.yaml"), "--dir", str(directory)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VIPER_CACHE": str(tmp_path / "machine")},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "viper changed since half was started" in done.stdout
    for stage in BEGUN:
        assert f"half {stage} was done before" in done.stdout
    assert {key: store.get(key) for key in before} == before
    frozen = load_frozen(store, "half")
    assert frozen is not None
    assert frozen.identity == said["identity"]
    assert {s: m.content_digest for s in BEGUN if (m := load_manifest(store, frozen.prefix, s))} == said["manifests"]
    trained = load_manifest(store, frozen.prefix, "train-captions")
    assert trained is not None
    assert trained.inputs["validate-captions"] == said["manifests"]["validate-captions"]
    registry = Registry(f"sqlite:///{directory}/mlflow.db")
    assert registry.get_alias("smallworld", "generator") == 2
    version = registry.get("smallworld", 2)
    assert version.source_uri.startswith(store.uri), "the registry has the place in full"
    assert trained.outputs["model"]["uri"] == version.source_uri
    assert f'"{version.source_uri}"'.encode() not in store.get("iterations/half/stages/train-captions/manifest.json")
