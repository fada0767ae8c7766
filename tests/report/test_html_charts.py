"""A run's charts stand in its report, switchable, and cannot act there."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.report.html_charts import MOST_BYTES, clean_svg
from problems.moe_batch_scaling.charts import Chart, Series

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'


def cleaned(tmp_path: Path, text: str) -> str:
    path = tmp_path / "chart.svg"
    path.write_text(text, encoding="utf-8")
    return clean_svg(path)


def test_a_chart_keeps_its_curves_its_values_and_its_legend(tmp_path: Path) -> None:
    series = (Series("ours & <theirs>", (1.0, 2.0), (3.0, 4.5)), Series("b", (1.0,), (2.0,)))
    text = cleaned(tmp_path, Chart("t", "batch", "ms", series).svg())
    for part in ('data-series="0"', 'data-series="1"', 'data-legend="1"', "4.5 at 2", "viewBox"):
        assert part in text
    assert "ours &amp; &lt;theirs&gt;" in text
    assert text.count("<circle") == 3 and text.count("<polyline") == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<g onload='alert(1)'/>",
        "<a href='javascript:alert(1)'><text>x</text></a>",
        "<image href='https://example.org/x.png'/>",
        "<rect fill='url(https://example.org/#x)'/>",
        "<rect style='background:url(x)'/>",
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'/></foreignObject>",
        "<use href='#x'/>",
        "<text>&lt;img src=x onerror=alert(1)&gt;</text>",
    ],
)
def test_what_could_act_is_left_out(tmp_path: Path, hostile: str) -> None:
    text = cleaned(tmp_path, f"{HEAD}<line x1='1'/>{hostile}</svg>")
    assert '<line x1="1"></line>' in text, "the rest of the drawing stays"
    for word in ("<script", " on", "href", "style", "<a", "<image", "url(h", "foreign", "<use"):
        assert word not in text.replace("&lt;img src=x onerror", "")


@pytest.mark.parametrize(
    "text",
    [
        "<p>no drawing</p>", "<svg", "", HEAD + "x" * MOST_BYTES + "</svg>",
        f'<!DOCTYPE svg [<!ENTITY a "b">]>{HEAD}<text>&a;</text></svg>',
    ],
)  # fmt: skip
def test_what_is_no_drawing_is_not_shown(tmp_path: Path, text: str) -> None:
    assert cleaned(tmp_path, text) == ""


def test_a_file_that_is_not_there_is_not_shown(tmp_path: Path) -> None:
    assert clean_svg(tmp_path / "gone.svg") == ""
