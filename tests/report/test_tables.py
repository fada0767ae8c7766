"""Do tables stay tables whatever stands in their cells, and numbers numbers?"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.report.tables import (
    Table,
    escape_markdown,
    interval,
    mebibytes,
    milliseconds,
    percent,
    printable,
    significant,
)


def cells(line: str) -> list[str]:
    """Split a row as GitHub does: an escaped character never separates."""
    inner = re.sub(r"\\(.)", lambda found: "\0" if found[1] == "|" else found[0], line)
    return inner.strip("|").split("|")


@given(st.lists(st.text(max_size=30), min_size=2, max_size=2))
def test_any_text_stays_in_its_own_markdown_cell(row: list[str]) -> None:
    lines = Table(("a", "b"), (tuple(row),), ("b",), "note").markdown().split("\n")
    assert lines[:2] == ["| a | b |", "|---|--:|"]
    assert len(lines) == 5 and lines[3:] == ["", "note"]
    assert len(cells(lines[2])) == 2


@given(st.text(max_size=40))
def test_no_tag_survives_outside_of_code(text: str) -> None:
    outside = escape_markdown(text.replace("`", ""))
    assert "<" not in outside and ">" not in outside


def test_code_keeps_its_brackets_and_loses_no_text() -> None:
    assert escape_markdown("`at::f<int>` <b>") == "`at::f<int>` &lt;b&gt;"
    assert escape_markdown("an ` unpaired <b>") == "an &#96; unpaired &#60;b&#62;"
    assert escape_markdown("a|b") == "a&#124;b"
    assert escape_markdown("a\\|b") == "a&#92;&#124;b"


@given(st.text(max_size=40))
def test_nothing_that_is_sent_to_a_terminal_controls_it(text: str) -> None:
    assert all(c.isprintable() for c in printable(text))
    shown = Table(("a",), ((text,),)).text()
    assert shown.count("\n") == 2 and "\x1b" not in shown


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    table = Table(("name", "ms"), (("a", "1"), ("longer", "100")), ("ms",), "said")
    assert table.text().split("\n") == [
        "name     ms", "------  ---", "a         1", "longer  100", "", "said",
    ]  # fmt: skip


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises((ValueError, IndexError)):
        Table(("a", "b"), (("1",),)).text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (0.5, "0.5"), (3.14159, "3.14"), (1234.5, "1,230"), (999.9, "1,000"),
     (2.5e7, "25,000,000"), (-1234, "-1,230"), (1e-5, "1e-05"), (0.00012345, "0.000123")],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [(123_456_789, "123"), (12_345_678, "12.3"), (1_234_567, "1.23"), (123_456, "0.123"),
     (1_234, "0.00123"), (12, "1.2e-05"), (0, "0")],
)  # fmt: skip
def test_milliseconds_never_read_as_nothing(value_ns: int, text: str) -> None:
    assert milliseconds(value_ns) == text


@given(st.floats(1e-9, 1e15))
def test_what_is_shown_is_within_half_a_percent(value: float) -> None:
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)
    assert float(milliseconds(value)) == pytest.approx(value / 1e6, rel=5.1e-3)


def test_the_other_units() -> None:
    assert interval(1.234, 5678) == "1.23 … 5,680"
    assert mebibytes(3 << 20) == "3.0"
    assert percent(0.1234) == "12.3 %"


def test_a_terminal_gets_no_marks_of_markdown() -> None:
    table = Table(("a", "n"), (("**sum**", "1"), ("**p", "2"), ("**", "3")), ("n",), "_said_")
    assert table.text().split("\n") == [
        "a    n",
        "---  -",
        "sum  1",
        "**p  2",
        "**   3",
        "",
        "said",
    ]
    assert "| **sum** | 1 |" in table.markdown() and table.markdown().endswith("_said_")
