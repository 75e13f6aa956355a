"""What earlier releases left behind is read for ever: every form, its digests, and what a person is shown of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.golden import GOLDEN, expected, restored
from viper.cli import main
from viper.costs.measured import Measurement, load_measurements
from viper.digests import digest_of
from viper.engines import factory
from viper.errors import StageError
from viper.ingest.stage import _listing
from viper.iteration.freeze import differences
from viper.iteration.observe import StoreObserver, stage_progress
from viper.local.directory import RunRecord
from viper.methods.stages import INGEST, INGEST_SAMPLES, TRAIN_CAPTIONS, declared, stage_graph
from viper.modelcache.cache import ModelCache
from viper.modelcache.resolve import model_dir, policy_of
from viper.plan import State, plan
from viper.prompts import PromptSet
from viper.report.collect import collect
from viper.spec.status import IterationStatus
from viper.stage import FrozenIteration, Manifest, PartRecord, ProgressRecord, StageContext, load_frozen, load_manifest
from viper.store import DirectoryStore, open_store, stored_digests
from viper.store.transfer import DirectoryDigests
from viper.stored import read_object
from viper.tasks.external.ingest import _pin
from viper.training.data import training_data
from viper.training.local.checkpoints import check_own
from viper.training.local.grpo import GrpoRun
from viper.training.stage import grpo_settings
from viper_operator.observed import _termination

RELEASES = ["0.1.0"]
FILES = [(r, p.relative_to(GOLDEN / r)) for r in RELEASES for p in sorted((GOLDEN / r).rglob("*.json"))]
SETS = [(r, folder) for r in RELEASES for folder in expected(r)]


def of(model: Any) -> Callable[[bytes], None]:
    """A form that a model reads; what is written again is what was there."""

    def read(data: bytes) -> None:
        found = model.read(data)
        assert found.schema_version == 0
        assert json.loads(found.to_bytes()) == json.loads(data)

    return read


def checkpoint(data: bytes) -> None:
    """What a trainer knows beside its weights."""
    assert read_object(data, what="a checkpoint")["step"] == 1


def spec(data: bytes) -> None:
    """A resource inside a frozen iteration: everything that was decided is still what it was."""
    stored = json.loads(data)
    around = json.loads((GOLDEN / "0.1.0/whole/store/iterations/whole/iteration.json").read_bytes())
    found = FrozenIteration.of({**around, "iteration": stored})
    assert [d for d in differences(stored, found.iteration.dump()) if d[1] is not None] == []


#: By the end of the path: who reads it.
READERS: dict[str, Callable[[bytes], Any]] = {
    r"specs/[\w-]+\.json": spec,
    r"iteration\.json": of(FrozenIteration),
    r"manifest\.json": of(Manifest),
    r"parts/\d+\.json": of(PartRecord),
    r"progress/\d-of-\d\.json": of(ProgressRecord),
    r"rates/[^/]+/[^/]+\.json": of(Measurement),
    r"run\.json": of(RunRecord),
    r"digests\.json": lambda data: DirectoryDigests.from_json(data, "there"),
    r"card\.json": lambda data: read_object(data, what="a card")["provenance"]["models"]["author"]["digest"],
    r"refs/[0-9a-f]+\.json": lambda data: read_object(data, what="a reference")["digest"],
    r"ingest-images/listing\.json": lambda data: json.loads(data)[1],  # `test_listings_are_read`
    r"ingest-samples/listing\.json": lambda data: read_object(data, what="a listing")["rows"],
    r"state\.json": checkpoint,
    r"termination\.json": lambda data: _termination(data.decode()),
    r"others/status\.json": lambda data: IterationStatus.model_validate(json.loads(data)),
}


@pytest.mark.parametrize(("release", "path"), FILES, ids=[f"{r}:{p}" for r, p in FILES])
def test_every_form_is_read(release: str, path: Path) -> None:
    if path.name in ("expected.json", "model_config.json") or path.parent.name in ("model", "m"):
        return  # the model's own, and ours
    if re.fullmatch(r".*/models/[^/]+/(?!digests).*", path.as_posix()):
        return
    readers = [read for pattern, read in READERS.items() if re.search(rf"(?:^|/){pattern}$", path.as_posix())]
    assert len(readers) == 1, path
    readers[0]((GOLDEN / release / path).read_bytes())


def test_the_set_has_every_form() -> None:
    found = Counter(pattern for pattern in READERS for _, p in FILES if re.search(rf"(?:^|/){pattern}$", p.as_posix()))
    assert set(found) == set(READERS)


def open_set(release: str, folder: str) -> tuple[DirectoryStore, FrozenIteration, dict[str, Any]]:
    """Read in place: nothing is written."""
    store, said = DirectoryStore(GOLDEN / release / folder / "store"), expected(release)[folder]
    frozen = load_frozen(store, said["iteration"])
    assert frozen is not None
    return store, frozen, said


@pytest.mark.parametrize(("release", "folder"), SETS)
def test_identity_digests_and_plan_are_what_the_release_said(release: str, folder: str) -> None:
    store, frozen, said = open_set(release, folder)
    assert frozen.identity == said["identity"]
    nodes = stage_graph(frozen.iteration.spec.recipe)
    there = {n.name: m for n in nodes if (m := load_manifest(store, frozen.prefix, n.name)) is not None}
    assert {name: m.content_digest for name, m in there.items()} == said["manifests"]
    for manifest in there.values():
        assert {s: said["manifests"][s] for s in manifest.inputs} == manifest.inputs
    made = plan(frozen.iteration.spec, StoreObserver(store, frozen).observe(), 0.0)
    assert made.outcome == said["outcome"]
    assert {s.name: s.state.value for s in made.stages} == said["states"]
    assert all(s.done is not None for s in made.stages if s.state is State.SUCCEEDED)


@pytest.mark.parametrize("release", RELEASES)
def test_a_digest_over_the_model_instead_of_the_object_would_be_told_apart(release: str) -> None:
    """The set can fail: what 0.1.0 did is no longer what gives its digests."""
    store, frozen, said = open_set(release, "whole")
    manifest = load_manifest(store, frozen.prefix, "evaluate")
    assert manifest is not None
    assert digest_of({k: v for k, v in manifest.dump().items() if k != "seconds"}) != said["manifests"]["evaluate"]


@pytest.mark.parametrize("release", RELEASES)
def test_rows_progress_measurements_and_models_are_read(release: str, tmp_path: Path) -> None:
    store = open_store(restored(release, "whole", tmp_path / "whole") / "store")
    frozen = load_frozen(store, "whole")
    assert frozen is not None
    reader = StageContext(frozen, store, "reader", tmp_path)
    for stage, manifest in expected(release)["whole"]["manifests"].items():
        found = load_manifest(store, frozen.prefix, stage)
        assert found is not None
        assert found.content_digest == manifest
        if found.parts:
            rows = list(reader.rows(stage, rejected=True))
            assert len(rows) == sum(p.rows for p in found.parts)
        progress = stage_progress(store, frozen.prefix, stage, 1)
        assert progress is not None
        assert progress.done == progress.total
    assert {m.stage for m in load_measurements(store).all} == set(expected(release)["whole"]["manifests"]) - {"promote"}
    assert (
        stored_digests(store, f"models/{frozen.generator.digest.replace(':', '-')}").digest == frozen.generator.digest
    )


def test_listings_are_read_and_samples_are_still_those_of_the_file(tmp_path: Path) -> None:
    store, frozen, _ = open_set("0.1.0", "others")
    found = _listing(StageContext(frozen, store, INGEST, tmp_path), f"{frozen.prefix}/stages/{INGEST}/listing.json")
    assert found is not None
    entries, left_out = found
    assert ([e.name for e in entries], left_out) == (["0.png", "1.png"], {})
    target = DirectoryStore(tmp_path)
    key = f"{frozen.prefix}/stages/{INGEST_SAMPLES}/listing.json"
    seen = json.loads(store.get(key))
    target.put(key, store.get(key))
    context = StageContext(frozen, target, INGEST_SAMPLES, tmp_path)
    _pin(context, _File(seen["digest"], seen["rows"]))  # type: ignore[arg-type]
    with pytest.raises(StageError, match="has changed"):
        _pin(context, _File(seen["digest"], seen["rows"] + 1))  # type: ignore[arg-type]


class _File:
    """As much of supplied samples as pinning asks for."""

    uri = "file:///rows.jsonl"

    def __init__(self, digest: str, rows: int) -> None:
        self.digest, self._rows = digest, rows

    def __len__(self) -> int:
        return self._rows


def test_a_reference_of_the_model_cache_is_found() -> None:
    (entry,) = ModelCache(GOLDEN / "0.1.0" / "others" / "cache").entries()
    assert entry.uri == entry.pinned == "s3://bucket/models/m"
    store = DirectoryStore(GOLDEN / "0.1.0" / "others" / "store")
    assert stored_digests(store, "models/m").digest == entry.digest


def test_a_status_on_the_api_server_is_read() -> None:
    status = IterationStatus.model_validate_json((GOLDEN / "0.1.0" / "others" / "status.json").read_bytes())
    assert status.outcome == "Promoted"
    assert [s.state for s in status.stages] == ["Succeeded"] * 9


@pytest.mark.parametrize("release", RELEASES)
def test_status_and_report_show_it(release: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = restored(release, "whole", tmp_path / "whole")
    assert main(["status", str(directory), "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)["iterations"]
    assert state["outcome"] == "promoted"
    assert main(["report", str(directory)]) == 0
    page = (directory / "report" / "index.html").read_text("utf-8")
    for digest in expected(release)["whole"]["manifests"].values():
        assert digest[:12] in page
    report = collect(open_store(directory / "store"), ["whole"]).iterations[0]
    assert report.problems == ()
    assert [t.stage for t in report.trainings] == ["train-captions", "train-operations"]
    assert all(t.curves for t in report.trainings)


@pytest.mark.parametrize("key", ["iteration.json", "stages/synthesize-captions/manifest.json"])
@pytest.mark.parametrize("command", ["status", "report"])
def test_what_a_later_release_wrote_for_itself_is_shown_as_such(
    key: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = restored("0.1.0", "whole", tmp_path / "whole")
    file = directory / "store" / "iterations" / "whole" / key
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "minVersion": "99.0.0"}), "utf-8")
    assert main([command, str(directory)]) == StageError.exit_code
    assert "needs viper 99.0.0" in capsys.readouterr().err


@pytest.mark.parametrize("release", RELEASES)
def test_its_version_is_walked_back_to_the_base(
    release: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = restored(release, "whole", tmp_path / "whole")
    assert main(["lineage", "2", "--dir", str(directory), "--samples", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["problems"], second["parent"]["problems"]) == ([], [])
    recorded = {s["name"]: s for s in second["iteration"]["stages"]}
    assert {s["state"] for n, s in recorded.items() if n != "promote"} == {"as recorded"}
    assert recorded["train-operations"]["made"]["digest"] == second["digest"]
    assert len(second["samples"]) > 4


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """What the run is known by (settings, samples, models) is what the checkpoint of 0.1.0 says it is of."""
    store = open_store(restored("0.1.0", "whole", tmp_path / "whole") / "store")
    frozen = load_frozen(store, "whole")
    assert frozen is not None
    spec = frozen.iteration.spec
    context = StageContext(frozen, store, TRAIN_CAPTIONS, tmp_path)
    data = training_data(context, context.frozen.node(context.stage), PromptSet.load(spec.recipe.prompts))
    start = model_dir(context, policy_of(context))
    run = GrpoRun(
        start,
        data.train,
        data.held_out,
        factory.similarity(spec),
        grpo_settings(spec, declared(TRAIN_CAPTIONS)),
        tmp_path / "work",
        None,
    )
    kept = GOLDEN / "0.1.0" / "others" / "checkpoints" / "whole" / TRAIN_CAPTIONS / "grpo/checkpoints/step-000001"
    state = json.loads((kept / "state.json").read_text("utf-8"))
    check_own(state, run.fingerprint, kept)
    assert state["step"] == 1
