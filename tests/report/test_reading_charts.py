"""Do charts say their values to the pointer, to the keyboard, and where there is no script?

And the pages of recorded runs, of every problem: nothing twice, nothing clipped, nothing too heavy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import NOT_HERE, Page, program

from common.diff.diff import compare_files
from common.report.diff_html import difference_html
from common.report.html import write_report
from common.report.html_environment import settings_in_words
from common.report.html_page import write_text

ROOT = Path(__file__).parents[2]
RUN_TINY = ROOT / "tests" / "data" / "run_tiny"
RECORDED = sorted((ROOT / "problems").glob("*/recorded/*/*"))
SAID = "document.querySelector('.readout').textContent"
HIDDEN = "document.querySelector('.readout').hidden"

pytestmark = pytest.mark.skipif(program() is None, reason=NOT_HERE)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of every recorded run of every problem."""
    return write_report(RECORDED, tmp_path_factory.mktemp("all") / "all.html")


def opened(page: Page, path: Path, width: int = 1280) -> Page:
    page.media(prefers_reduced_motion="reduce")  # nothing glides under the pointer
    page.size(width)
    page.open(path)
    return page


def point_at(page: Page, selector: str, across: float = 0.5) -> dict[str, Any]:
    """Put the pointer on the middle of the first such mark, or `across` of its width."""
    box: dict[str, Any] = page.run(
        f"(() => {{ const mark = document.querySelector({selector!r}); mark.scrollIntoView("
        "{block: 'center', behavior: 'instant'}); return mark.getBoundingClientRect().toJSON() })()"
    )
    x, y = box["x"] + box["width"] * across, box["y"] + box["height"] / 2
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.settle()
    return {**box, "pointer": x}


def test_the_pointer_on_a_dot_reads_out_the_ratio_its_interval_and_the_place(
    page: Page, report: Path
) -> None:
    opened(page, report)
    box = point_at(page, "#run1-times ~ figure .row:nth-of-type(3) .plot > svg", 0.25)
    said = page.run(SAID)
    number = r"[\d.]+"
    assert re.match(rf"float8wo-0.14.1: {number}× ?, 95 % interval {number} … {number}, ", said)
    there = re.search(rf"pointer at ({number})×$", said)
    assert there is not None
    low, high = page.run(
        "[document.querySelector('.row.axis').dataset].flatMap((d) => [+d.low, +d.high])"
    )
    share = (box["pointer"] - box["left"]) / box["width"]
    assert float(there[1]) == pytest.approx(low * (high / low) ** share, rel=0.01)
    assert page.run("getComputedStyle(document.querySelector('.hair')).display") == "block"
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    page.settle()
    assert page.run(HIDDEN) is True


def test_the_arrow_keys_read_a_waterfall_step_by_step(page: Page, report: Path) -> None:
    opened(page, report)
    page.run("document.querySelector('.waterfall figure').focus()")
    told = []
    for _ in range(4):
        page.press("ArrowDown", 40)
        told.append(page.run(SAID))
    assert told[0].startswith("bf16: ") and len(set(told)) == 4
    moved = r": ([+-][\d.,]+) ms of the difference, ([+-][\d.,]+) \(.* %.*\); "
    step = moved + r"from ([\d.,]+) to ([\d.,]+)$"
    found = [re.search(step, text) for text in told[1:]]
    assert all(found)
    for match in found:
        assert match is not None
        delta, _, before, after = (round(float(n.replace(",", "")) * 1e6) for n in match.groups())
        assert before + delta == after, "a step that does not lead where it says"
    page.press("ArrowUp", 38)
    assert page.run(SAID) == told[2]
    page.press("Escape", 27)
    assert page.run(HIDDEN) is True


def test_every_part_of_a_stacked_bar_is_reached_by_keys_and_seen_as_reached(
    page: Page, report: Path
) -> None:
    opened(page, report)
    page.run("document.querySelector('figure.chart:has(rect.seg)').focus()")
    page.press("ArrowDown", 40)
    row = page.run(SAID)
    page.press("ArrowRight", 39)
    part = page.run(SAID)
    assert row != part and re.search(r": .* ms, [\d.]+ %$", part)
    assert page.run("document.querySelectorAll('.at').length") == 1
    assert page.run("document.querySelector('.at').matches('rect')")


def test_the_read_out_stays_inside_a_phone(page: Page, report: Path) -> None:
    opened(page, report, 390)
    for across in (0.01, 0.99):
        point_at(page, ".waterfall .row:nth-of-type(3) .plot > svg", across)
        left, right = page.run(
            "(() => { const b = document.querySelector('.readout').getBoundingClientRect(); "
            "return [b.left, b.right] })()"
        )
        assert left >= 0 and right <= 390 and page.run(HIDDEN) is False
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_without_a_script_every_mark_has_its_title(page: Page, report: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.browser.events.clear()  # `open` waits for a timer, which is a script
        page.call("Page.navigate", url=report.absolute().as_uri())
        page.browser.wait_for("Page.loadEventFired", page.session)
        plain = "document.querySelectorAll('.row:not(.axis) .plot > svg > title').length"
        assert page.run(plain) > 20
        assert page.run("document.querySelectorAll('.row rect.seg > title').length") > 20
        assert page.run("document.querySelectorAll('.readout, figure[tabindex]').length") == 0
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_screen_reader_gets_the_same_names_with_the_script(page: Page, report: Path) -> None:
    named = re.findall(r'<svg role="img"[^>]*><title>([^<]+)</title>', report.read_text("utf-8"))
    opened(page, report)
    labels = page.run(
        "[...document.querySelectorAll('svg[role=img]')].map((s) => s.getAttribute('aria-label'))"
    )
    assert len(labels) == len(named) and all(labels)
    groups = page.run(
        "[...document.querySelectorAll('figure.chart')].map((f) => [f.getAttribute('role'), "
        "f.getAttribute('aria-label'), f.tabIndex])"
    )
    assert all(role == "group" and "arrow keys" in label and at == 0 for role, label, at in groups)


def test_a_diff_page_reads_out_its_waterfall_too(page: Page, tmp_path: Path) -> None:
    sides = [f"{RUN_TINY}#{name}" for name in ("bf16", "float8wo-0.13.0")]
    path = write_text(tmp_path / "diff.html", difference_html(compare_files(*sides, "operator")))
    opened(page, path)
    point_at(page, ".waterfall .row:nth-of-type(2) .plot > svg")
    assert "of the difference" in page.run(SAID) and page.problems == []


def test_the_page_of_all_recorded_runs_is_light_clean_and_says_what_it_left_out(
    page: Page, everything: Path
) -> None:
    text = everything.read_text(encoding="utf-8")
    assert len(RECORDED) >= 15 and everything.stat().st_size <= 2_000_000
    left_out, sections = text.count("are left out of this page of"), text.count("<section ")
    assert 0 < left_out < sections / 4  # the longest ones, not the page
    for run in RECORDED:
        assert f">Run {run.name}</h2>" in text
    assert not re.search(r"\{&#x27;|\[&#x27;|, \[\d", re.sub(r'data-\w+="[^"]*"', "", text))
    for width in (390, 1280):
        opened(page, everything, width)
        assert page.problems == [] and page.run("document.documentElement.scrollWidth") <= width


def test_no_section_stands_twice_and_no_table_is_empty(everything: Path) -> None:
    text = everything.read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for article in re.findall(r"<article.*?</article>", text, re.DOTALL):
        headings = re.findall(r"<h3[^>]*>([^<]+)", article)
        assert len(headings) == len(set(headings)), headings
    assert "<tbody></tbody>" not in text and "(0 rows)" not in text


def test_labels_of_a_trend_stand_on_one_line(page: Page, everything: Path) -> None:
    opened(page, everything)
    heights = page.run(
        "[...document.querySelectorAll('.trend .row:not(.axis)')].map((row) => "
        "[row.querySelector('.value').getBoundingClientRect().height, row.textContent])"
    )
    assert len(heights) > 8
    assert [text for height, text in heights if height > 24] == []
    overlapping = page.run(
        "[...document.querySelectorAll('.trend .row .value')].filter((v) => v.scrollWidth > "
        "v.clientWidth + 1).map((v) => v.textContent)"
    )
    assert overlapping == []


def test_settings_are_words() -> None:
    settings = {"model": "cpu", "batches": [1, 8], "rounds": {"least": 7, "of": [2]}, "on": True}
    told = settings_in_words(settings)
    assert told == "model cpu; batches 1, 8; rounds (least 7; of 2); on yes"
