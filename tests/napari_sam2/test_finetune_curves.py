"""The curves: what is drawn of many points, where the ticks are, and that it is drawn at all."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam2.curves import Curve, CurvePlot, smoothed, thinned, ticks, value_range

values = st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)


@given(y=arrays(float, st.integers(0, 400), elements=values), columns=st.integers(1, 40))
def test_thinning_loses_nothing_that_would_be_seen(y, columns):
    x = np.arange(y.size, dtype=float)
    pieces = thinned(x, y, columns)
    finite = y[np.isfinite(y)]
    drawn = np.concatenate([[], *(ys for _, ys in pieces)])
    assert np.isfinite(drawn).all()
    gaps = np.flatnonzero(~np.isfinite(y))
    for xs, _ in pieces:
        assert (np.diff(xs) > 0).all()
        assert not ((gaps > xs[0]) & (gaps < xs[-1])).any()
    if finite.size:
        assert (drawn.min(), drawn.max()) == (finite.min(), finite.max())
        assert drawn[0] == finite[0]
        assert drawn[-1] == finite[-1]


def test_many_points_become_few():
    x = np.arange(10_000.0)
    ((xs, _),) = thinned(x, np.sin(x), 300)
    assert 600 <= xs.size <= 4 * 301


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), count=st.integers(2, 10))
def test_ticks_are_few_round_and_cover_the_range(low, span, count):
    found = ticks(low, low + span, count)
    numbers = [value for value, _ in found]
    assert 2 <= len(found) <= count + 1
    step = numbers[1] - numbers[0]
    assert numbers[0] < low + span
    assert numbers[-1] > low
    assert step <= 10 * span
    assert len({text for _, text in found}) == len(found)
    assert all(float(text) == pytest.approx(value, abs=step / 100) for value, text in found)


def test_ticks_read_well():
    assert [text for _, text in ticks(0, 300, 4)] == ["0", "100", "200", "300"]
    assert [text for _, text in ticks(0.0, 1.0, 6)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_the_range_of_what_there_is():
    assert value_range([]) == (0.0, 1.0)
    assert value_range([np.array([math.nan])]) == (0.0, 1.0)
    low, high = value_range([np.array([2.0, 2.0])])
    assert low < 2 < high
    outlier = np.concatenate([[1000.0], np.linspace(1, 2, 500)])
    assert value_range([outlier])[1] < 3


def test_a_running_mean_jumps_over_gaps():
    y = np.array([1.0, math.nan, 3.0, 5.0, math.nan, math.nan, math.nan])
    assert smoothed(y, 3) == pytest.approx([1, 2, 4, 4, 5, math.nan, math.nan], nan_ok=True)
    assert smoothed(np.zeros(0), 3).size == 0


def colours(plot):
    image = plot.grab().toImage()
    return {image.pixelColor(x, y).name() for x in range(0, image.width(), 1) for y in range(0, image.height(), 1)}


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(3, 0.5)], [(1, 0.2), (2, 0.7), (3, math.inf)]])
def test_it_draws_whatever_there_is(qtbot, points):
    plot = CurvePlot("Loss", "step")
    qtbot.addWidget(plot)
    plot.resize(300, 120)
    empty = colours(plot)
    plot.set_curves([Curve.of("a", points), Curve.of("b", [(1, 0.3), (2, 0.4)])], 10)
    assert "#e07b26" in colours(plot) - empty
    plot.resize(20, 10)
    plot.grab()


def test_ten_thousand_points_do_not_slow_it(qtbot):
    plot = CurvePlot("Loss")
    qtbot.addWidget(plot)
    plot.resize(400, 200)
    noise = np.random.default_rng(0).normal(size=10_000)
    plot.set_curves([Curve.of("loss", list(enumerate(noise)), smooth=True)], 10_000)
    plot.grab()
    spent = []
    for _ in range(5):
        started = time.process_time()
        plot.grab()
        spent.append(time.process_time() - started)
    assert min(spent) < 0.05
