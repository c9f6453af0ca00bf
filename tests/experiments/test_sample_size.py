"""From which sample size on a figure is stable."""

from __future__ import annotations

import pytest

from medgan.experiments.sample_size import Point, Stability, stability


def at(n: int, value: float, reach: float | None) -> Point:
    return Point(n=n, value=value, interval=None if reach is None else (value - reach, value + reach))


def test_the_smallest_size_whose_interval_is_narrow_and_stays_so():
    """Reaches of 20, 9.8, 8 and 5 % of the figure: 10 % are kept from 200 on, where it is 2.5 % above its last value."""
    found = stability([at(100, 40, 8), at(200, 41, 4.0), at(300, 40.5, 3.24), at(400, 40, 2)], most=0.1)
    assert found == Stability(n=200, width=pytest.approx(0.05), needed=0, drift=pytest.approx(0.025))


def test_a_narrow_interval_before_a_wide_one_is_luck():
    assert stability([at(100, 1, 0.01), at(200, 1, 0.3), at(300, 1, 0.05)], most=0.1).n == 300


def test_where_no_size_is_enough_intervals_narrow_with_the_root_of_the_number():
    """20 % at 100 images are 10 % at 400."""
    assert stability([at(50, 1, 0.4), at(100, 1, 0.2)], most=0.1) == Stability(n=0, width=pytest.approx(0.2), needed=400, drift=None)


def test_without_intervals_nothing_is_known():
    assert stability([at(20, 1, None), at(40, 1, None)], most=0.1) == Stability(n=0, width=None, needed=0, drift=None)
    # Beside a figure of 0 no share of it means anything, and a size without an interval ends what is stable.
    assert stability([at(20, 0, 0.1)], most=0.1).width is None
    assert stability([at(20, 1, 0.01), at(40, 1, None), at(80, 1, 0.01)], most=0.1).n == 80


def test_a_negative_figure_has_a_width_too():
    assert at(10, -2.0, 0.1).width == pytest.approx(0.05)
