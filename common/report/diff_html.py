"""What does a reader get of a difference as a page? One file that needs no network.

Verdict and totals first (and the devices, where they differ), then the chart and the table of what
made the difference, which both add up to it; then idle time, devices, matching, files.
"""

from __future__ import annotations

from common.diff.difference import Difference
from common.report import diff_html_sections as sections
from common.report import diff_view as view
from common.report.diff_html_rows import rows_table
from common.report.diff_sides import fact_differences, path_of
from common.report.diff_waterfall import waterfall
from common.report.html_page import page_text
from common.report.tables import escape_html


def difference_html(d: Difference) -> str:
    """The page; at most 2 MB whatever the input."""
    rows = view.names_of(d)
    devices_differ = any(fact == "devices" for fact, *_ in fact_differences(d))
    around = ("around", "What differs around them", sections.surroundings(d))
    parts = [
        ("verdict", "Verdict", sections.verdict(d)),
        *([around] if devices_differ else []),
        ("totals", "Totals", sections.totals(d) + sections.notes(d)),
        ("waterfall", "From A to B", waterfall(d, rows)),
        ("rows", f"By {view.clipped(d.by, 40)}", rows_table(d, rows) if d.rows else _no_rows()),
        ("gaps", "Idle time", sections.gaps(d)),
        ("devices", "Wall clock", sections.wall_clock(d)),
        ("matching", "Matching", sections.matching(d)),
        *([] if devices_differ else [around]),
        ("files", "Files", sections.files(d)),
        ("warnings", "Warnings", sections.warnings(d)),
    ]
    shown = [part for part in parts if part[2]]
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape_html(heading)}</h2>\n'
        f"{content}</section>\n"
        for key, heading, content in shown
    )
    title = f"{path_of(d.a, 80)} → {path_of(d.b, 80)}"
    question = f"What makes the difference in {view.words_of(d.quantity)}?"
    links = [(key, heading) for key, heading, _ in shown]
    styles, scripts = ("page.css", "diff.css"), ("page.js", "diff.js", "charts.js")
    return page_text(title, question, links, body, styles, scripts)


def _no_rows() -> str:
    return "<p>There are no rows: neither side has anything of this quantity.</p>"
