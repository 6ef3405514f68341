import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from trainers.reporting import charts
from trainers.reporting.charts import Series, line_chart, new_figure, save, short, spread_apart, thin, to_svg


def test_what_is_drawn_are_the_data():
    x, y = np.array([2.0, 0.0, 1.0, np.nan]), np.array([4.0, np.nan, 1.0, 3.0])
    (axes,) = line_chart([Series("a", x, y, low=y - 1, high=y + 1)], from_zero=True, x_label="steps").axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 1], [2, 4]])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0 and band[:, 1].max() == 5
    assert axes.get_xlim() == (0, 2) and axes.get_ylim()[0] == 0 and axes.get_xlabel() == "steps"


def test_curves_are_cut_at_an_interpolated_point():
    x, y = np.array([0.0, 10.0, 30.0]), np.array([0.0, 10.0, 50.0])
    line, dots = line_chart([Series("a", x, y), Series("", x, y, style=".")], x_max=20.0).axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 0], [10, 10], [20, 30]])
    np.testing.assert_allclose(dots.get_xydata(), [[0, 0], [10, 10]])


def test_a_level_goes_over_the_whole_width():
    level = Series("best", np.zeros(1), np.array([5.0]), "third", style="--")
    axes = line_chart([level, Series("run", np.arange(4.0), np.arange(4.0))]).axes[0]
    assert list(axes.lines[0].get_ydata()) == [5, 5] and list(axes.lines[0].get_xdata()) == [0, 1]


def test_logarithmic_axes_have_ticks_at_decades():
    figure = line_chart([Series("", np.arange(3.0), np.array([1000.0, 10.0, 0.1]))], log_y=True)
    texts = re.findall(r">([^<>\s]+)</text>", to_svg(figure, title="x"))
    assert {"0.1", "10", "1k"} <= set(texts)


def test_drawings_are_xml_in_the_page_s_colours_and_text_is_text():
    hostile = "</svg><script>$a_b$"
    x = np.arange(3.0)
    svg = to_svg(line_chart([Series(hostile, x, x), Series("b", x, x, "second")]), title='"><script>')
    tree = ElementTree.fromstring(svg)
    assert hostile in [text.text for text in tree.iter("text")] and "<script" not in svg
    assert "var(--run)" in svg and "var(--second)" in svg and not re.search(r"#[0-9a-f]{6}\b(?!\")", svg)
    assert "DejaVu" not in svg and "http" not in svg


def test_thinning_keeps_the_mean_and_joins_equal_steps():
    x, y = thin(np.array([1.0, 1.0, 2.0]), np.array([1.0, 3.0, 7.0]))
    np.testing.assert_allclose([x, y], [[1, 2], [2, 7]])
    x, y = thin(np.arange(1000.0), np.arange(1000.0) * 2, points=10)
    assert len(x) == 10 and y.mean() == 999.0


def test_labels_are_moved_apart_and_stay_inside():
    spots = spread_apart([0.5 + 0.001 * i for i in range(8)], 0.05)
    assert min(np.diff(spots)) >= 0.05 - 1e-9 and spots[0] == 0.5
    spots = spread_apart([0.98, 0.99, 1.0], 0.1)
    np.testing.assert_allclose(spots, [0.8, 0.9, 1.0])
    assert spread_apart([0.1, 0.9], 0.05) == [0.1, 0.9] and spread_apart([], 0.1) == []


def test_short_numbers():
    numbers = (0, 0.25, 950, 1500, 50_000, 5.13e6)
    assert [short(value) for value in numbers] == ["0", "0.25", "950", "1.5k", "50k", "5.13M"]


@pytest.mark.parametrize("y", [[5.0], [0.0], [0.0, 0.0], [-2.0, -2.0]])
def test_one_value_and_constant_values_can_be_drawn(y):
    text = to_svg(line_chart([Series("a", np.arange(len(y)) * 1.0, np.array(y))]), title="a")
    assert "nan" not in text and "inf" not in text


def test_nothing_finite_draws_nothing():
    assert line_chart([Series("a", np.array([1.0]), np.array([np.nan]))]) is None and line_chart([]) is None


def test_files_are_written_as_they_are_named(tmp_path):
    figure, axes = new_figure(size=(2, 1), columns=2)
    assert len(axes) == 2 and set(charts.COLOURS) >= {"run", "ink"}
    assert save(figure, tmp_path / "a" / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in save(figure, tmp_path / "x.svg").read_bytes()
