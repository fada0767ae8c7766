"""Is a chart in a file by itself well-formed, inside its frame, and does it say what it shows?"""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from common.report.dot_chart import LABEL, VALUE, WIDTH, Chart, Mark, dot_chart
from common.report.svg import Scale

SVG = "{http://www.w3.org/2000/svg}"


def chart(*marks: Mark, scale: Scale | None = None) -> Chart:
    origin = "measured-cpu: a CPU"
    return Chart("a < b", "how & why", "ms", marks, scale or Scale(0, 10), origin, one=1.0)


def test_text_is_escaped_and_every_row_is_labelled() -> None:
    text = dot_chart(chart(Mark('<script>"x"', 3, "3 ms"), Mark("b", 4, "4 ms", (3, 5))))
    root = ElementTree.fromstring(text)
    words = [node.text for node in root.iter(f"{SVG}text")]
    assert {'<script>"x"', "3 ms", "b", "a < b", "how & why", "measured-cpu: a CPU"} <= set(words)
    assert root.find(f"{SVG}title") is not None and root.get("role") == "img"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_nothing_is_drawn_outside_of_the_plot(logarithmic: bool) -> None:
    scale = Scale(1, 100, logarithmic=logarithmic)
    marks = [Mark("low", 0.1, "", (0.01, 5)), Mark("high", 1e6, "", (50, 1e9)), Mark("mid", 10, "")]
    text = dot_chart(chart(*marks, scale=scale))
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', text)]
    places += [float(x) for x in re.findall(r"[MH]([\d.]+)", text)]
    assert len(places) > 6
    assert all(LABEL <= x <= WIDTH - VALUE for x in places)


def test_the_parts_of_a_bar_follow_each_other_and_add_up() -> None:
    text = dot_chart(chart(Mark("bar", 0, "", parts=((2, 0), (3, 1), (5, 2)))))
    bars = [
        (float(node.get("x", 0)), float(node.get("width", 0)))
        for node in ElementTree.fromstring(text).iter(f"{SVG}rect")
        if (node.get("class") or "").startswith("s")
    ]
    assert len(bars) == 3
    for (x, width), (following, _) in pairwise(bars):
        assert x + width == pytest.approx(following, abs=0.11)
    assert bars[-1][0] + bars[-1][1] == pytest.approx(WIDTH - VALUE, abs=0.11)
