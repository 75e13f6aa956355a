"""From a version back to the base; what is missing is said, and the walk goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from lineage_builders import NAME, Ancestry

from viper.errors import InputError, StageError
from viper.lineage.archive import Records
from viper.lineage.records import VersionRecord
from viper.lineage.samples import find_sample, samples, score_table
from viper.lineage.walk import walk
from viper.registry import ModelVersion
from viper.registry.tags import ITERATION_URI, PARENT_VERSION
from viper.stage import FrozenIteration, Manifest


def walked(one: Ancestry, reference: str = "generator") -> VersionRecord:
    return walk(Records(one.registry), one.registry.resolve(NAME, reference))


class Altered(Records):
    """The registry with other tags on some versions."""

    def __init__(self, one: Ancestry, tags: Mapping[int, Mapping[str, str | None]]) -> None:
        super().__init__(one.registry)
        self.tags = tags

    def version(self, model: str, number: int) -> ModelVersion:
        found = super().version(model, number)
        tags = {**found.tags, **self.tags.get(number, {})}
        return replace(found, tags={k: v for k, v in tags.items() if v is not None})


def altered(one: Ancestry, number: int = 3, **tags: Mapping[str, str | None]) -> VersionRecord:
    archive = Altered(one, {int(k.removeprefix("v")): v for k, v in tags.items()})
    return walk(archive, archive.version(NAME, number))


def test_the_walk_ends_at_the_base(ancestors: Ancestry) -> None:
    chain = walked(ancestors).chain()
    assert [(v.version, v.origin, v.aliases) for v in chain] == [
        (3, "iteration", ("generator",)),
        (2, "iteration", ()),
        (1, "base", ()),
    ]
    assert [v.problems for v in chain] == [(), (), ()]
    assert [v.iteration.name for v in chain if v.iteration] == ["demo-2", "demo-1"]
    assert chain[-1].uri == "smallworld:starter"


def test_every_stage_is_the_one_the_version_was_registered_with(ancestors: Ancestry) -> None:
    iteration = walked(ancestors).iteration
    assert iteration is not None
    assert {s.state for s in iteration.stages if s.name != "promote"} == {"as recorded"}
    stages = {s.name: s for s in iteration.stages}
    there = ancestors.store.get("iterations/demo-2/stages/validate-captions/manifest.json")
    manifest = Manifest.read(there)
    assert stages["validate-captions"].manifest == manifest.content_digest
    assert stages["validate-captions"].accepted == manifest.accepted > 0
    assert sum(stages["validate-captions"].samples.values()) == manifest.accepted


def test_data_and_checkpoints_are_joined(ancestors: Ancestry) -> None:
    iteration = walked(ancestors).iteration
    assert iteration is not None
    stages = {s.name: s for s in iteration.stages}
    theta0, theta1 = stages["synthesize-captions"].author, stages["synthesize-operations"].author
    assert theta0 is not None
    assert (theta0.name, theta0.version, theta0.stage) == ("θ0", 2, None)
    assert theta1 is not None
    assert theta1 == stages["train-captions"].made
    assert (theta1.name, theta1.version, theta1.stage) == ("θ1", None, "train-captions")
    made = stages["train-operations"].made
    assert made is not None
    assert made.digest == walked(ancestors).digest


def test_a_sample_names_who_wrote_it_and_how_its_outputs_scored(ancestors: Ancestry) -> None:
    iteration = walked(ancestors).iteration
    assert iteration is not None
    found = samples(iteration)
    assert {(s.stage, s.author.name if s.author else "") for s in found} == {
        ("validate-captions", "θ0"),
        ("validate-operations", "θ1"),
    }
    assert {s.critic.name for s in found if s.critic} == {"θ0"}
    scored = [s for s in found if s.rollouts]
    assert len(scored) == 6
    first = scored[1]
    assert [(r.stage, r.step, r.outputs) for r in first.rollouts] == [
        ("train-captions", 1, 5),
        ("train-captions", 6, 5),
    ]
    # The builder's rewards of the second prompt are 0, 0.1, 0.2, 0.3, 0.4.
    assert (first.rollouts[0].reward, first.rollouts[0].recall, first.rollouts[0].items) == (pytest.approx(0.2), 0.5, 2)


def test_rollouts_are_averaged_by_step_and_other_lines_are_left_out() -> None:
    rows = [
        {"step": 2, "sample_id": "a", "reward": 1.0, "recall": 1.0, "items": 3},
        {"step": 1, "sample_id": "a", "reward": 0.0, "recall": 0.5, "items": 1},
        {"step": 1, "sample_id": "a", "reward": 0.5, "recall": 0.0, "items": 2},
        {"sample_id": "b"},
    ]
    table = score_table("train-captions", [*(json.dumps(r).encode() for r in rows), b"torn {", b"[]"])
    assert list(table) == ["a"]
    assert [(s.step, s.outputs, s.reward, s.recall, s.items) for s in table["a"]] == [
        (1, 2, 0.25, 0.25, 1.5),
        (2, 1, 1.0, 1.0, 3.0),
    ]


def test_a_sample_of_an_earlier_iteration_is_found_by_the_beginning_of_its_id(ancestors: Ancestry) -> None:
    version = walked(ancestors)
    assert version.parent is not None
    assert version.parent.iteration is not None
    wanted = samples(version.parent.iteration)[0]
    found = find_sample(version, wanted.sample_id[:20])
    assert (found.sample_id, found.iteration) == (wanted.sample_id, "demo-1")
    assert found.image_source.startswith("scene-")


def test_a_rejected_sample_is_found_with_its_reason(ancestors: Ancestry) -> None:
    iteration = walked(ancestors).iteration
    assert iteration is not None
    rejected = next(s for s in samples(iteration, everything=True) if not s.accepted)
    assert find_sample(walked(ancestors), rejected.sample_id).reason == rejected.reason != ""


def test_an_unknown_or_an_ambiguous_sample_is_refused(ancestors: Ancestry) -> None:
    with pytest.raises(InputError, match="no iteration of this lineage has such a sample"):
        find_sample(walked(ancestors), "nothing like it")
    with pytest.raises(InputError, match="samples of demo-2 begin with it"):
        find_sample(walked(ancestors), "")


def test_a_store_that_is_gone_is_said_and_the_walk_goes_on(own_ancestors: Ancestry, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    chain = walked(own_ancestors).chain()
    assert [(v.version, v.origin) for v in chain] == [(3, "foreign"), (2, "foreign"), (1, "base")]
    assert ["the store is gone" in " ".join(v.problems) for v in chain] == [True, True, False]


def test_one_iteration_that_is_gone_costs_only_its_own_part(own_ancestors: Ancestry, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store" / "iterations" / "demo-2")
    chain = walked(own_ancestors).chain()
    assert [v.origin for v in chain] == ["foreign", "iteration", "base"]
    assert "it is not in the store" in chain[0].problems[0]


def test_a_missing_and_a_replaced_manifest_are_said(own_ancestors: Ancestry, tmp_path: Path) -> None:
    stages = tmp_path / "store" / "iterations" / "demo-2" / "stages"
    (stages / "evaluate" / "manifest.json").unlink()
    file = stages / "validate-captions" / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**manifest, "accepted": manifest["accepted"] + 1}), "utf-8")
    (stages / "ingest-images" / "manifest.json").write_text("{", "utf-8")
    version = walked(own_ancestors)
    assert version.iteration is not None
    states = {s.name: s.state for s in version.iteration.stages}
    assert (states["evaluate"], states["validate-captions"], states["train-captions"]) == (
        "missing",
        "differs",
        "as recorded",
    )
    text = "\n".join(version.problems)
    assert "evaluate: there is no manifest in the store" in text
    assert "validate-captions: the manifest is another one" in text
    assert "train-captions: was made from another validate-captions" in text
    assert "ingest-images: " in text
    assert "is not a manifest" in text


def test_samples_of_a_damaged_part_are_refused(own_ancestors: Ancestry, tmp_path: Path) -> None:
    iteration = walked(own_ancestors).iteration
    assert iteration is not None
    (part,) = (tmp_path / "store/iterations/demo-2/stages/validate-captions/parts").glob("00000-*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StageError, match="digest"):
        samples(iteration)


def test_a_foreign_version_is_called_foreign(ancestors: Ancestry) -> None:
    version = altered(ancestors, v3={ITERATION_URI: None, PARENT_VERSION: None, "viper.parent_uri": None})
    assert (version.origin, version.iteration, version.parent) == ("foreign", None, None)
    assert "registered by something else" in version.problems[0]


def test_a_generator_outside_the_registry_ends_the_walk(ancestors: Ancestry) -> None:
    version = altered(ancestors, v3={PARENT_VERSION: None})
    assert version.origin == "iteration"
    assert version.parent is None
    assert "its θ0 was no version of the registry: file:///models/v2" in version.problems[0]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({PARENT_VERSION: "9"}, "its parent, version 9, cannot be read"),
        ({PARENT_VERSION: "3"}, "cannot be its parent"),
        ({PARENT_VERSION: "two"}, "cannot be its parent"),
        ({"viper.parent_digest": "sha256:other"}, "version 2 is another model now"),
        ({"viper.identity": "another"}, "is another one than the one that made this version"),
        ({ITERATION_URI: "nonsense"}, "is not the URI of an iteration"),
    ],
    ids=["deleted-parent", "itself", "no-number", "other-weights", "other-iteration", "no-uri"],
)
def test_tags_that_lead_nowhere_are_said(ancestors: Ancestry, tags: dict[str, str], words: str) -> None:
    assert words in "\n".join(altered(ancestors, v3=tags).problems)


def test_tags_in_a_circle_end_the_walk(ancestors: Ancestry) -> None:
    chain = altered(ancestors, v2={PARENT_VERSION: "3"}).chain()
    assert [v.version for v in chain] == [3, 2]
    assert "cannot be its parent" in chain[1].problems[-1]


def test_a_version_of_other_weights_than_its_training_made_is_said(ancestors: Ancestry) -> None:
    archive = Records(ancestors.registry)
    found = replace(archive.version(NAME, 3), digest="sha256:stranger")
    assert any("which is not the model of this version" in p for p in walk(archive, found).problems)


def test_the_frozen_iteration_is_the_stores(ancestors: Ancestry) -> None:
    frozen: FrozenIteration = Records(ancestors.registry).frozen(f"{ancestors.store.uri}/iterations/demo-1")
    assert frozen.identity == ancestors.iterations[0].identity
