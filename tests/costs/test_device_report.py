"""Reports of the kit: what is read of them, which plan they change and how, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from viper.cli import main
from viper.costs import Range, load_table
from viper.costs.demand import Demand
from viper.costs.device import load_report
from viper.costs.estimate import call_seconds
from viper.costs.table import default_table
from viper.errors import SpecError

DRAWING = {"work": "reconstruct", "engine": "qwen-image", "steps": 20, "passes": 2, "megapixels": 1.0}
MEMORY = {"interface": "reconstructor", "engine": "qwen-image", "planned": 60 * 2**30, "weights": 56 * 2**30}


def seconds(low: float, high: float, **rate: Any) -> dict[str, Any]:
    return figure("s", low, high, rate={**DRAWING, **rate})


def figure(unit: str, low: float, high: float, **fields: Any) -> dict[str, Any]:
    shared = {"name": "f", "unit": unit, "value": low, "low": low, "high": high, "repetitions": 2, "sure": "medium"}
    return {**shared, **fields}


def report(*figures: dict[str, Any], **fields: Any) -> dict[str, Any]:
    device = {"backend": "cuda", "name": "NVIDIA H200", "memory": 150 * 10**9}
    made = {"kind": "viper-device-report", "schemaVersion": 1, "device": device, "figures": list(figures)}
    return {**made, **fields}


def written(tmp_path: Path, data: Any, name: str = "report.json") -> Path:
    file = tmp_path / name
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


def took(tmp_path: Path, figures: list[dict[str, Any]], gpu: str = "H200", **demand: Any) -> tuple[Range, str]:
    table = load_table(written(tmp_path, report(*figures)))
    wanted: dict[str, Any] = {"engine": "qwen-image", "steps": 20, "passes": 2, "megapixels": 1.0, **demand}
    return call_seconds(Demand(wanted.pop("work", "reconstruct"), calls=Range(1, 1), **wanted), gpu, table)


def test_what_was_measured_takes_the_place_of_what_was_published(tmp_path: Path) -> None:
    found, known = took(tmp_path, [seconds(9, 11)])
    assert (found, known) == (Range(9, 11), "measured: f on NVIDIA H200")
    elsewhere, known = took(tmp_path, [seconds(9, 11)], gpu="A100")
    assert known == "measured: f on NVIDIA H200, for A100"
    assert elsewhere.low > 9


def test_a_rate_of_the_very_gpu_counts_before_one_that_was_measured_on_another(tmp_path: Path) -> None:
    assert took(tmp_path, [seconds(9, 11)], gpu="H100")[1] == "published"


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        ({}, (10, 10)),
        ({"steps": 50}, (25, 25)),  # scaled from 20, not from 4
        ({"steps": 5}, (3.75, 3.75)),
        ({"passes": 1, "steps": 4}, (2, 2)),
        ({"megapixels": 0.25, "steps": 4}, (1, 1)),
        ({"megapixels": 0.3, "steps": 4}, (1.2, 1.2)),
        ({"factors": ("compile",)}, (7, 7)),
        ({"factors": ("cache",)}, (4, 10)),  # two with the same settings: never and always reused
        ({"factors": ("cache", "compile")}, (2.8, 9.5)),  # equally near: each with the other's shipped factor
    ],
)
def test_of_several_the_one_with_the_nearest_settings_is_scaled(
    tmp_path: Path, demand: dict[str, Any], expected: tuple[float, float]
) -> None:
    figures = [
        seconds(10, 10),
        seconds(3, 3, steps=4),
        seconds(2, 2, steps=4, passes=1),
        seconds(1, 1, steps=4, megapixels=0.25),
        seconds(7, 7, factors=["compile"]),
        seconds(10, 10, factors=["cache"]),
        seconds(4, 4, factors=["cache"]),
    ]
    found, _ = took(tmp_path, figures, **demand)
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        ({"batch": 1, "images": 1}, (8, 8)),
        ({"batch": 256, "images": 1}, (1, 1)),
        ({"batch": 256, "images": 2}, (3, 3)),
        ({"batch": 256, "images": 1, "billions": 3.0}, (1 * 3 / 7, 1 * 3 / 7)),
        ({"batch": None, "images": None}, (1, 8)),
    ],
)
def test_batch_and_images_choose_and_where_nothing_tells_all_span_the_range(
    tmp_path: Path, demand: dict[str, Any], expected: tuple[float, float]
) -> None:
    def writing(each: float, batch: int, images: int) -> dict[str, Any]:
        rate = {"work": "write", "engine": "vllm", "billions": 7, "batch": batch, "images": images}
        return figure("s", each, each, rate=rate)

    figures = [writing(8, 1, 1), writing(1, 12, 1), writing(3, 6, 2)]
    wanted = {"work": "write", "engine": "vllm", "steps": None, "passes": None, "megapixels": None, **demand}
    found, _ = took(tmp_path, figures, **wanted)
    assert (found.low, found.high) == pytest.approx(expected)


def test_files_are_laid_over_one_another(tmp_path: Path) -> None:
    first = written(tmp_path, report(seconds(9, 11)), "first.json")
    second = written(
        tmp_path,
        "version: 1\nrates:\n"
        "- {work: reconstruct, engine: qwen-image, gpu: H200, seconds: [1, 2], kind: assumed, source: me}\n",
        "second.yaml",
    )
    tables = [load_table(*files) for files in ((first, second), (second, first))]
    assert [t.fitting("reconstruct", "qwen-image", "H200")[0].seconds for t in tables] == [(1, 2), (9, 11)]
    assert load_table(first).gpus == default_table().gpus


def test_a_gpu_of_ones_own_is_described_first(tmp_path: Path) -> None:
    data = report(seconds(9, 11), device={"backend": "cuda", "name": "NVIDIA B300", "memory": 1})
    file = written(tmp_path, data)
    with pytest.raises(SpecError, match="'NVIDIA B300', which is none of A100"):
        load_table(file)
    gpus = "version: 1\ngpus: {B300: {product: B300, speed: [4, 6], price: [5, 9], kind: assumed, source: its maker}}"
    table = load_table(written(tmp_path, gpus, "gpus.yaml"), file)
    assert [r.gpu for r in table.rates if r.kind == "measured"] == ["B300"]


def test_fields_of_later_versions_are_left_aside(tmp_path: Path) -> None:
    data = report(figure("B", 5, 6, memory={**MEMORY, "later": 1}, later=[]), later={}, schemaVersion=2)
    read = load_report(written(tmp_path, data))
    assert [(f.value, of.engine) for f, of in read.memory] == [(5, "qwen-image")]


def edited(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = report(seconds(9, 11), figure("B", 5, 6, memory=dict(MEMORY)))
    change(data)
    return data


BAD: list[tuple[Any, str]] = [
    ("", "is empty"),
    ("{", "not valid YAML"),
    ("just words", "say that it is|not a table of rates"),
    ("[1, 2]", "say that it is|not a table of rates"),
    ("[" * 5000, "nested|not valid YAML"),
    ('{"kind": "viper-device-report", "kind": "x"}', "is there twice"),
    ('{"kind": "viper-device-report", "schemaVersion": NaN}', "no number of JSON"),
    ({"kind": "something else"}, "say that it is|not a table of rates"),
    (edited(lambda d: d.update(schemaVersion="one")), "schemaVersion"),
    (edited(lambda d: d.update(schemaVersion=0)), "schemaVersion"),
    (edited(lambda d: d.pop("device")), "device"),
    (edited(lambda d: d.update(device="H200")), "device"),
    (edited(lambda d: d["device"].update(backend="abacus")), "device.backend"),
    (edited(lambda d: d["device"].update(name="")), "device.name"),
    (edited(lambda d: d["device"].update(memory=-1)), "device.memory"),
    (edited(lambda d: d.update(figures={})), "figures"),
    (edited(lambda d: d.update(figures=[7])), "figures.0"),
    (edited(lambda d: d["figures"][0].update(unit="h")), "figures.0.unit"),
    (edited(lambda d: d["figures"][0].update(unit="B")), "seconds have a `rate`"),
    (edited(lambda d: d["figures"][1].pop("memory")), "seconds have a `rate`"),
    (edited(lambda d: d["figures"][0].update(low=99)), "not in this order"),
    (edited(lambda d: d["figures"][0].update(value=0, low=0)), "figures.0"),
    (edited(lambda d: d["figures"][0].update(high=1e300)), "figures.0.high"),
    (edited(lambda d: d["figures"][0].update(value="fast")), "figures.0.value"),
    (edited(lambda d: d["figures"][0].update(repetitions=0)), "figures.0.repetitions"),
    (edited(lambda d: d["figures"][0].update(sure="very")), "figures.0.sure"),
    (edited(lambda d: d["figures"][1]["memory"].update(weights=-5)), "memory.weights"),
    (edited(lambda d: d["figures"][1].update(memory=[])), "figures.1.memory"),
]
#: What only a plan reads.
BAD_RATES: list[tuple[Any, str]] = [
    (edited(lambda d: d["figures"][0]["rate"].update(work="fly")), "figures.0.rate .*\n.*work"),
    (edited(lambda d: d["figures"][0]["rate"].update(steps=0)), "steps"),
    (edited(lambda d: d["figures"][0]["rate"].update(factors=["haste"])), "the factor haste"),
    (edited(lambda d: d["figures"][0]["rate"].update(factors="cache")), "factors"),
    (edited(lambda d: d["figures"][0]["rate"].update(speed=9)), "speed"),
    (edited(lambda d: d["device"].update(name="Voodoo 2")), "'Voodoo 2', which is none of"),
]


@pytest.mark.parametrize(("data", "said"), [*BAD, *BAD_RATES])
def test_a_bad_file_is_refused_by_the_plan(tmp_path: Path, data: Any, said: str) -> None:
    file = written(tmp_path, data)
    with pytest.raises(SpecError, match=said) as caught:
        load_table(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("data", "said"), BAD)
def test_a_bad_file_is_refused_by_doctor(
    tmp_path: Path, data: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, data)
    assert main(["doctor", "--measured", str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert "Traceback" not in error
    assert any(part in error for part in said.split("|")), error


@pytest.mark.parametrize("name", ["nothing.json", ".", "n" * 300 + ".json", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--measured", name]) == 2
    assert "Traceback" not in capsys.readouterr().err
