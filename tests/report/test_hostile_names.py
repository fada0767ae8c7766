"""Can a name in a recorded file do anything but be read?"""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.synthetic_run import manifest, profile, write_run

from common.report.html import write_report
from common.report.tables import Table, escape_html, inline_html

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></svg><svg onload=alert(1)>",
    "</style><b>",
    "\x1b[31mred\x1b[0m\x07",
    "two\nlines\r\nand\u2028more",
    "back`tick|pipe\\|slash",
    "``<img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp; &#60;",
    "[link](javascript:alert(1))",
    "right\u202eto left, half \ud800",
)
TAGS = frozenset(
    ("html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "h3", "h4", "p",
     "nav", "ul", "li", "main", "section", "article", "div", "span", "strong", "code", "table",
     "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "details", "summary",
     "figure", "figcaption", "svg", "desc", "rect", "line", "circle", "path", "text", "script")
)  # fmt: skip


class Reader(HTMLParser):
    """What a browser would build: tags, attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def hostile_page(place: Path, name: str) -> str:
    document = manifest(
        variants=("plain", name),
        title=name,
        question=name,
        revision=name,
        arguments=[name],
        not_applicable={"absent" + name: name},
        claims=[{"says": name, "claim": 'ratio("a", "b", "decode") >= 1'}],
        uncommitted_changes=True,
        profile_failures={name: name},
    )
    profiles = {name: profile([(name, 900), ("other " + name, 90)])}
    folder = write_run(place, document, profiles=profiles)
    trace = folder / "traces" / "javascript:alert(1)" / '"><img>.json'
    trace.parent.mkdir(parents=True)
    trace.write_text("{}", encoding="utf-8")
    return write_report([folder], folder / "report.html").read_text(encoding="utf-8")


# json.dump cannot write half a surrogate pair, so no recorded file can hold one as itself.
@pytest.mark.parametrize("name", HOSTILE[:-1])
def test_a_hostile_name_is_only_text_in_a_page(tmp_path: Path, name: str) -> None:
    seen = Reader(hostile_page(tmp_path, name))
    assert set(seen.tags) <= TAGS
    assert seen.tags.count("script") == 1
    for attribute, value in seen.attributes:
        assert not attribute.startswith("on") and attribute not in ("src", "style")
        assert attribute != "href" or not re.match(r"\w+:", value)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", seen.words)


def test_a_hostile_name_is_shown_as_it_is(tmp_path: Path) -> None:
    name = '<script>alert("1")</script>'
    assert name in Reader(hostile_page(tmp_path, name)).words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_table_on_a_terminal_sends_only_printable_text(name: str) -> None:
    table = Table(("variant", name), ((name, f"`{name}`"),))
    assert all(c.isprintable() or c == "\n" for c in table.text())
    assert len(table.text().split("\n")) == 3


def alive(markdown: str) -> bool:
    """Whether a CommonMark reader finds a tag or a link in the line: code spans pair by length."""
    at = 0
    while at < len(markdown):
        if markdown[at] == "\\":
            at += 2
        elif markdown[at] == "`":
            run = len(re.match(r"`+", markdown[at:])[0])  # type: ignore[index]
            close = re.compile(rf"(?<!`)`{{{run}}}(?!`)").search(markdown, at + run)
            at = close.end() if close else at + run
        elif re.match(r"<[A-Za-z/!?]|\]\(", markdown[at:]):
            return True
        else:
            at += 1
    return False


def test_the_reader_of_this_test_finds_what_is_alive() -> None:
    assert alive("```<img>`") and alive("`a` <b>") and alive(r"\`<b>`") and alive("[a](b)")
    assert not alive("`<b>`") and not alive("&lt;b>")


def cells(row: str) -> list[str]:
    """Splits a row as GFM does: at every pipe without a backslash, before anything else."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def assert_inert(name: str) -> None:
    table = Table(("a", name), ((name, f"`{name}`"),))
    lines = table.markdown().split("\n")
    assert len(lines) == 3
    for line in (lines[0], lines[2]):
        assert len(cells(line)) == 2, name
        assert not any(alive(cell) for cell in cells(line)), name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_in_its_markdown_cell(name: str) -> None:
    assert_inert(name)


def test_no_mixture_of_marks_gets_out_of_its_markdown_cell() -> None:
    choose = random.Random(7)
    marks = ["`", "``", "```", "\\", "|", "<b>", "<img onerror=x>", "[", "](", " ", "x", "&", "\n"]
    for _ in range(4000):
        assert_inert("".join(choose.choices(marks, k=choose.randint(1, 9))))


def test_ordinary_cells_keep_their_code_and_bold() -> None:
    row = ("`aten::mm<float>` › `b`", "**sum**")
    table = Table(("operator", "ms"), (row,), ("ms",))
    assert table.markdown().split("\n")[2] == f"| {row[0]} | {row[1]} |"
    page = table.html("Times")
    assert '<th scope="row"><code>aten::mm&lt;float&gt;</code> › <code>b</code></th>' in page
    assert '<td class="n"><strong>sum</strong></td>' in page


def test_a_badge_marks_only_the_words_it_stands_for() -> None:
    table = Table(("claim", "result"), (("a", "reproduced: yes"), ("b", "reproduced<b>")))
    page = table.html("Claims", {"reproduced": "yes"})
    assert '<span class="badge yes">reproduced</span>: yes' in page
    assert "<td>reproduced&lt;b&gt;</td>" in page


def test_escaped_text_is_safe_in_a_quoted_attribute() -> None:
    assert escape_html("\"'<&\x00") == "&quot;&#x27;&lt;&amp;\\x00"
    assert inline_html("`<b>`") == "<code>&lt;b&gt;</code>"
