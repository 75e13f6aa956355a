"""The table of throughputs, and the profiles that come with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from viper.costs import Range, load_table
from viper.costs.profiles import find_profile, shipped_profiles
from viper.costs.table import default_table
from viper.errors import SpecError
from viper.spec import Profile

ROOT = Path(__file__).parents[2]
TABLE = default_table()


def test_every_figure_says_how_it_is_known() -> None:
    figures = [
        *TABLE.rates,
        *TABLE.gpus.values(),
        *TABLE.factors.values(),
        *TABLE.calls.values(),
        *TABLE.acceptance.values(),
        *TABLE.startup.values(),
        *TABLE.storage.values(),
    ]
    assert {f.kind for f in figures} == {"published", "assumed"}
    assert all(len(f.source) > 10 for f in figures)
    rough = [r for r in TABLE.rates if r.kind == "assumed"]
    assert all(r.seconds[1] >= 1.5 * r.seconds[0] for r in rough)


def test_every_gpu_of_a_rate_is_known() -> None:
    assert {r.gpu for r in TABLE.rates} <= {*TABLE.gpus, "cpu"}


def test_a_rate_of_the_very_engine_and_gpu_is_preferred() -> None:
    named, other = (TABLE.fitting("edit", *on)[0] for on in (("omnigen2", "H100"), ("something", "A100")))
    assert (named.engine, named.gpu, other.engine) == ("omnigen2", "A100", None)
    assert TABLE.fitting("edit", "omnigen2", "cpu") == TABLE.fitting("edit", "smallworld", "cpu")


def test_gpus_compare_both_ways() -> None:
    there, back = TABLE.relative("A100", "H100"), TABLE.relative("H100", "A100")
    assert there.low * back.high == pytest.approx(1)
    assert TABLE.relative("H100", "H100") == Range(1, 1)
    assert TABLE.gpu_of("NVIDIA-A100-SXM4-80GB") == "A100"
    assert TABLE.gpu_of("Tesla-V100") is None


def test_a_table_of_ones_own_is_read(tmp_path: Path) -> None:
    data = TABLE.dump()
    data["rates"] = [{"work": "edit", "gpu": "A100", "seconds": [1, 2], "kind": "assumed", "source": "mine, really"}]
    file = tmp_path / "rates.json"
    file.write_text(yaml.safe_dump(data))
    (found, *_) = load_table(file).fitting("edit", "any", "A100")
    assert found.seconds == (1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid YAML"),
        ("[1, 2", "not valid YAML"),
        ("", "is empty"),
        ("[]", "not a table of rates|is empty"),
        ("version: 2", "version"),
        ("gpus: {}", "version"),
        ("version: 1\ngpus: [A100]", "gpus"),
        ("rates: [{work: fly, gpu: A100, seconds: [2, 1], kind: assumed, source: s}]", "rates.0.seconds"),
        ("version: 1\nrates: [{work: edit, gpu: B9, seconds: [1, 2], kind: assumed, source: s}]", "rates name B9"),
        (
            "version: 1\nrates: [{work: edit, gpu: cpu, seconds: [1, 2], kind: assumed, source: s, factors: [x]}]",
            "the factor x",
        ),
        ("[" * 20_000, "not valid YAML|nested more than"),
        ('{"a":' * 20_000, "not valid YAML|nested more than"),
        ("\0", "not valid YAML"),
    ],
)
def test_a_table_that_cannot_be_used_says_where_it_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=said) as caught:
        load_table(file)
    assert str(file) in str(caught.value)


def test_a_table_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SpecError, match="there is no such file"):
        load_table(Path("/nowhere/rates.yaml"))


def test_the_shipped_profiles_are_the_charts() -> None:
    values = yaml.safe_load((ROOT / "charts/viper/values.yaml").read_text())
    assert shipped_profiles() == {n: Profile.model_validate(p["spec"]) for n, p in values["profiles"].items()}


def test_a_profile_is_found_by_name_or_in_a_file(tmp_path: Path) -> None:
    assert find_profile("a100-8x").of("synthesize-captions").shards == 8
    meta = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperProfile", "metadata": {"name": "mine"}}
    file = tmp_path / "profile.yaml"
    file.write_text(yaml.safe_dump({**meta, "spec": {"defaults": {"gpus": 3}}}))
    assert find_profile(str(file)).of("evaluate").gpus == 3
    with pytest.raises(SpecError, match="neither a profile that comes with ViPER"):
        find_profile("a100")
    with pytest.raises(SpecError, match="not a ViperProfile"):
        find_profile(str(ROOT / "examples/demo.yaml"))
