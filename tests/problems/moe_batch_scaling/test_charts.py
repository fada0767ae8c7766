"""Does a chart's legend stand beside the curves, and name those alone that are drawn?"""

from __future__ import annotations

import math
import re

import pytest

from problems.moe_batch_scaling.charts import Chart, Series

X = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
RISING = tuple(10 * x**0.5 for x in X)
FALLING = tuple(100 / x**0.5 for x in X)


def drawing(*curves: tuple[float, ...]) -> str:
    """The curves as six series side by side, so that the legend is tall."""
    series = [
        Series(f"curve {n} {k}", X, tuple(v * (1 + 0.02 * k) for v in curve))
        for n, curve in enumerate(curves)
        for k in range(6 // len(curves))
    ]
    return Chart("t", "batch", "ms", tuple(series)).svg()


def legend_places(text: str) -> list[tuple[float, float]]:
    found = re.findall(r'data-legend="\d+">.*?<text x="([\d.]+)" y="([\d.]+)"', text)
    return [(float(x), float(y)) for x, y in found]


@pytest.mark.parametrize("curves", [(RISING,), (FALLING,)])
def test_the_legend_hides_no_point(curves: tuple[tuple[float, ...], ...]) -> None:
    text = drawing(*curves)
    points = [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)
    ]
    names = legend_places(text)
    assert len(names) == 6 and len(points) == 36
    for x, y in points:
        assert not any(abs(y - (b - 4)) < 7 and a - 25 <= x <= a + 60 for a, b in names), (x, y)


def test_a_curve_without_points_is_not_named() -> None:
    series = (Series("empty", (), ()), Series("nan", X[:1], (math.nan,)), Series("one", X, RISING))
    text = Chart("t", "batch", "ms", series).svg()
    assert 'data-legend="2"' in text and "empty" not in text and "nan" not in text
    assert text.count("data-legend") == 1 and text.count("data-series") == 3
