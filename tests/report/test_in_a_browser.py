"""Does the report work where it is read? Loads, sorts, filters, prints, and asks for nothing.

Every page is opened once in headless Chromium; the tests look at what it found.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from helpers.chromium import NOT_HERE, Page, program
from helpers.synthetic_run import manifest, write_run

from common.diff.diff import compare_files
from common.report.diff_html import difference_html
from common.report.html import write_report
from common.report.html_page import page_text, write_text
from common.report.tables import FIRST_ROWS, Table

REAL = Path(__file__).parents[1] / "data" / "run_tiny"
EVIL = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style><style>*{display:none}",
    "<a href=javascript:alert(1)>x</a>",
)
MANY = 5000

pytestmark = pytest.mark.skipif(program() is None, reason=NOT_HERE)


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One table of 5,000 rows, as a problem that compiles kernels has them."""
    rows = tuple(
        (f"`kernel_{n:04d}`", *(f"{(n * 7919) % 1000 + k / 10:,.1f}" for k in range(8)))
        for n in range(MANY)
    )
    columns = ("kernel", *(f"figure {k}" for k in range(8)))
    body = Table(columns, rows, columns[1:]).html("Kernels", style="sortable")
    text = page_text("Long", "", [], f"<h2>Kernels</h2>{body}")
    return write_text(tmp_path_factory.mktemp("long") / "long.html", text)


def opened(page: Page, path: Path, width: int = 1280) -> Page:
    page.media()
    page.size(width)
    page.open(path)
    return page


def column(page: Page, table: int, number: int) -> list[str]:
    """Texts of one column of a sortable table, as they stand."""
    found: list[str] = page.run(
        f"[...document.querySelectorAll('table.sortable')[{table}].tBodies]"
        ".flatMap((body) => [...body.rows])"
        f".filter((row) => !row.hidden).map((row) => row.cells[{number}].textContent)"
    )
    return found


def head(page: Page, table: int, number: int, what: str) -> object:
    return page.run(
        f"document.querySelectorAll('table.sortable')[{table}].tHead.rows[0].cells[{number}].{what}"
    )


def test_a_report_loads_without_a_word_on_the_console_and_asks_for_nothing(
    page: Page, report: Path
) -> None:
    opened(page, report)
    assert page.problems == []
    assert page.requests == [report.absolute().as_uri()]
    assert page.run("document.querySelectorAll('section').length") >= 9


def test_a_blocked_script_would_have_been_heard(page: Page, tmp_path: Path) -> None:
    """The guard of the test above: the page's policy speaks up, and so does an exception."""
    text = page_text("Broken", "", [], "<img src='https://example.org/x.png'>")
    broken = write_text(tmp_path / "broken.html", text)
    opened(page, broken)
    page.run("new Promise((done) => setTimeout(done, 200))")
    page.settle()
    assert any("Content Security Policy" in problem for problem in page.problems)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(page: Page, report: Path, width: int) -> None:
    opened(page, report, width)
    assert page.run("document.documentElement.scrollWidth") <= width
    # Only boxes that say that they scroll do.
    outside = page.run(
        "[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, svg, details:"
        f"not([open])') && e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML"
        ".slice(0, 120))"
    )
    assert outside == []


def test_a_column_sorts_up_and_down_and_says_so(page: Page, report: Path) -> None:
    opened(page, report)
    before = column(page, 0, 3)
    page.run(
        "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[3].firstChild.click()"
    )
    values = [float(text) for text in column(page, 0, 3) if text]
    assert values == sorted(values) and len(values) > 3
    assert head(page, 0, 3, "getAttribute('aria-sort')") == "ascending"
    page.run(
        "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[3].firstChild.click()"
    )
    assert [float(t) for t in column(page, 0, 3) if t] == values[::-1]
    assert head(page, 0, 3, "getAttribute('aria-sort')") == "descending"
    assert sorted(column(page, 0, 3)) == sorted(before)


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(page: Page, report: Path) -> None:
    opened(page, report)
    page.run(
        "window.order = [...document.querySelectorAll('a[href], button, summary, [tabindex], "
        "input')].filter((e) => e.checkVisibility({contentVisibilityAuto: true}))"
    )
    number = page.run("window.order.length")
    assert number > 60
    seen = []
    for _ in range(number):
        page.press("Tab", 9)
        seen.append(
            page.run(
                "[window.order.indexOf(document.activeElement), "
                "getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert [place for place, _ in seen] == list(range(number))
    assert all(outline != "none" for _, outline in seen), "a focus that cannot be seen"


def test_enter_on_a_heading_sorts(page: Page, report: Path) -> None:
    opened(page, report)
    page.run("document.querySelector('table.sortable th button').focus()")
    page.press_enter()
    assert head(page, 0, 0, "getAttribute('aria-sort')") == "ascending"


def test_a_screen_reader_gets_names_for_tables_charts_and_boxes(page: Page, report: Path) -> None:
    opened(page, report)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node.get("role", {}).get("value", "")
            named.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("table", "image", "searchbox", "region", "button", "link"):
        assert named.get(role), role
        assert all(named[role]), f"a {role} has no name"
    assert len(named["rowheader"]) > 20 and len(named["main"]) == 1
    headings = [int(level) for level in page.run(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => h.tagName[1])")]  # fmt: skip
    assert headings.count(1) == 1


def test_a_filter_keeps_the_rows_that_have_every_word(page: Page, long_page: Path) -> None:
    opened(page, long_page)
    page.run("document.querySelector('.filter input').focus()")
    page.call("Input.insertText", text="KERNEL_01 ")
    assert len(column(page, 0, 0)) == 100
    assert page.run("document.querySelector('.filter output').textContent") == "100 of 5000 rows"
    page.call("Input.insertText", text="nothing-like-it")
    assert column(page, 0, 0) == []


def test_the_rest_of_a_long_table_is_a_check_away_and_needs_no_script(
    page: Page, long_page: Path
) -> None:
    opened(page, long_page)
    seen = "[...document.querySelectorAll('tbody tr')].filter((r) => r.offsetParent).length"
    assert page.run(seen) == FIRST_ROWS
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.run("document.querySelector('.rest input').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key=" ", text=" ")
    page.call("Input.dispatchKeyEvent", type="keyUp", key=" ")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert page.run(seen) == MANY


def test_five_thousand_rows_are_there_within_a_second_and_two_megabytes(
    page: Page, long_page: Path
) -> None:
    assert long_page.stat().st_size <= 2_000_000
    # Time of the page's own thread: what it would take on a machine that does nothing else.
    assert min(_busy_seconds(page, long_page) for _ in range(3)) <= 1.0
    before = _thread_seconds(page)
    page.run("document.querySelectorAll('table.sortable th button')[3].click()")
    page.run("document.body.offsetHeight")
    assert _thread_seconds(page) - before <= 1.0
    values = [float(text.replace(",", "")) for text in column(page, 0, 3)]
    assert values == sorted(values) and len(values) == MANY


def _busy_seconds(page: Page, path: Path) -> float:
    """Until all scripts have run and the layout stands, from the start of the navigation."""
    page.call("Performance.enable")
    page.call("Page.navigate", url="about:blank")
    page.settle()
    before = _thread_seconds(page)
    opened(page, path)
    page.run("document.body.offsetHeight")
    return _thread_seconds(page) - before


def _thread_seconds(page: Page) -> float:
    metrics = page.call("Performance.getMetrics")["metrics"]
    return float(next(m["value"] for m in metrics if m["name"] == "ThreadTime"))


def test_dark_and_light_both_can_be_read(page: Page, report: Path) -> None:
    opened(page, report)
    colours = {}
    for scheme in ("light", "dark"):
        page.media(prefers_color_scheme=scheme)
        colours[scheme] = page.run(
            "['color', 'backgroundColor'].map((k) => getComputedStyle(document.body)[k])"
        )
        for selector in ("body", ".note", ".badge.slow", ".badge.fast", "a", "dt"):
            contrast = _contrast(page, selector)
            assert contrast is None or contrast >= 4.5, (scheme, selector, contrast)
    assert colours["light"] != colours["dark"]


def _contrast(page: Page, selector: str) -> float | None:
    """WCAG's ratio of a text's colour to that of the page; None where nothing is selected."""
    found = page.run(
        f"(() => {{ const e = document.querySelector('{selector}'); return e && [getComputedStyle("
        "e).color, getComputedStyle(document.body).backgroundColor] })()"
    )
    if not found:
        return None
    light, dark = sorted((_luminance(text) for text in found), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(text: str) -> float:
    parts = [int(value) / 255 for value in re.findall(r"\d+", text)[:3]]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_nothing_moves_for_those_who_asked_for_that(page: Page, report: Path) -> None:
    opened(page, report)
    for wish, behaviour in (("reduce", "auto"), ("no-preference", "smooth")):
        page.media(prefers_reduced_motion=wish)
        style = "getComputedStyle(document.documentElement)"
        assert page.run(f"{style}.scrollBehavior") == behaviour
    page.media(prefers_reduced_motion="reduce")
    assert page.run(
        "[...document.querySelectorAll('*')].every((e) => { const s = getComputedStyle(e); return "
        "s.animationName === 'none' && parseFloat(s.transitionDuration) === 0 })"
    )


def test_on_paper_there_is_everything_but_the_controls(page: Page, report: Path) -> None:
    opened(page, report)
    page.media("print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    assert page.run(shown.format("nav")) == "none"
    assert page.run(shown.format(".filter")) == "none"
    data = page.pdf()
    assert data.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", data)) >= 4


def hostile_run(place: Path) -> Path:
    """A run whose kernels and operators have names that want to be more than names."""
    folder = write_run(place, manifest())
    for variant, scale in (("plain", 1), ("slow", 5)):
        events = [{"ph": "X", "cat": "user_annotation", "name": "decode", "pid": 1, "tid": 1,
                   "ts": 0, "dur": 4000}]  # fmt: skip
        for number, name in enumerate(EVIL):
            events.append({"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1,
                           "ts": 10 + 500 * number, "dur": 80 * scale})  # fmt: skip
            events.append({"ph": "X", "cat": "cpu_op", "name": name[::-1], "pid": 1, "tid": 1,
                           "ts": 20 + 500 * number, "dur": 10 * scale})  # fmt: skip
        trace = folder / "traces" / variant / "trace.json.gz"
        trace.parent.mkdir(parents=True)
        document = {"schemaVersion": 1, "traceEvents": events}
        trace.write_bytes(gzip.compress(json.dumps(document).encode()))
    return folder


def test_the_page_of_a_diff_works_too(page: Page, tmp_path: Path) -> None:
    sides = [f"{REAL}#{name}" for name in ("bf16", "float8wo-0.13.0")]
    path = write_text(tmp_path / "diff.html", difference_html(compare_files(*sides, "operator")))
    opened(page, path, 390)
    assert page.problems == [] and page.requests == [path.absolute().as_uri()]
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("document.querySelector('.filter input').focus()")
    page.call("Input.insertText", text="dequantize")
    shown = "[...document.querySelectorAll('table.groups tbody')].filter((b) => !b.hidden).length"
    assert page.run(shown) == 1
    assert "1 of " in page.run("document.querySelector('.filter output').textContent")


def test_hostile_kernel_names_are_inert(page: Page, tmp_path: Path) -> None:
    path = write_report([hostile_run(tmp_path)], tmp_path / "report.html")
    opened(page, path)
    assert page.problems == [] and page.requests == [path.absolute().as_uri()]
    assert page.run("document.title") == "An example that is slow"
    assert page.run("document.querySelectorAll('img, iframe, main script, main style').length") == 0
    text = page.run("document.body.innerText")
    for name in EVIL:
        assert name in text
    assert page.run("getComputedStyle(document.querySelector('main')).display") != "none"
