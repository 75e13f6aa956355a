from __future__ import annotations

from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.report.svg import MAX_POINTS, Axes, Mark, Series, forest, line_chart, thinned, ticks


def parsed(svg: str) -> Element:
    return fromstring(svg)  # noqa: S314 (made by the function under test)


finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.52, [0.3, 0.35, 0.4, 0.45, 0.5, 0.55]),
        (-3.0, 7.0, [-4, -2, 0, 2, 4, 6, 8]),
        (1.0, 24.0, [0, 5, 10, 15, 20, 25]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-4, 1e6))
def test_ticks_cover_any_range_in_few_steps(low: float, span: float) -> None:
    found = ticks(low, low + span)
    step = found[1] - found[0]
    assert found[0] <= low + step * 1e-6
    assert found[-1] >= low + span - step * 1e-3
    assert 2 <= len(found) <= 9


@given(st.lists(st.tuples(finite, finite), max_size=1000))
def test_long_lines_are_thinned_and_keep_their_ends_in_range(points: list[tuple[float, float]]) -> None:
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS
    if points:
        low, high = min(y for _, y in points), max(y for _, y in points)
        assert all(low - 1e-3 <= y <= high + 1e-3 for _, y in kept)


@given(st.lists(st.tuples(finite, finite), max_size=20), st.text())
def test_any_data_and_any_text_give_well_formed_svg(points: list[tuple[float, float]], text: str) -> None:
    text = "".join(c for c in text if c.isprintable()) + "<&\"'"
    marks = [Mark(x, y, y - 1, y + 1, "ring", text) for x, y in points]
    svg = line_chart(text, text, [Series("s1", points, marks)], Axes(x_label=text))
    root = parsed(svg)
    assert root.get("aria-label") == text
    assert root.findtext("desc") == text
    assert "nan" not in svg
    assert "inf" not in svg.replace(text, "")


def test_a_chart_without_data_has_axes() -> None:
    assert "<line" in line_chart("empty", "", [], Axes())


def test_a_flat_line_is_drawn_inside_the_panel() -> None:
    svg = parsed(line_chart("flat", "", [Series("s1", [(1, 0.5), (2, 0.5)])], Axes(height=200)))
    line = svg.find("polyline")
    assert line is not None
    assert all(10 <= float(pair.split(",")[1]) <= 170 for pair in line.get("points", "").split())


def test_noise_does_not_fill_a_panel_with_a_least_span() -> None:
    labels = parsed(line_chart("noise", "", [Series("s1", [(1, 0.500), (2, 0.501)])], Axes(min_span=0.2))).findall(
        "text"
    )
    values = [float(t.text or "") for t in labels if t.get("text-anchor") == "end" and t.text]
    assert max(values) - min(values) >= 0.2


def test_a_difference_beyond_the_limit_stays_inside_its_row() -> None:
    svg = parsed(forest((-3.0, -2.0, 5.0), 1.0, "bad", "far"))
    xs = [float(svg.findall("line")[1].get(k, "0")) for k in ("x1", "x2")]
    assert xs == [5.0, 175.0]
