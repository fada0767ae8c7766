"""Do the pages of a difference add up, stay small, and keep what is hostile harmless?"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest
from helpers.differences import difference, judgement, large, row, side
from msgspec.structs import replace

from common.diff.by_name import aggregate
from common.diff.difference import Difference, GapCause, Gaps, Remainder, Tier
from common.report.diff_html import difference_html
from common.report.diff_markdown import LIMIT, code, difference_markdown, prose
from common.report.diff_sides import fact_differences, warnings_of
from common.report.diff_text import SCREEN, difference_text
from common.report.diff_view import direction
from common.report.diff_waterfall import steps

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</code></td></table><svg onload=alert(1)>",
    "\x1b[31mred\x1b[0m\x07\x9b2J",
    "two\nlines\r\nand\u2028more\x0b",
    "[link](javascript:alert(1))",
    "`<b>` ``x`` | pipe \\| \\",
    "right\u202eto left\u2066 \u200f, half \ud800",
    "@everyone #1 GH-2 https://example.org www.example.org a@b.org !image $x$ ~~s~~",
    "&lt;b&gt; &amp; &#60;",
    "a" * 10_000,
    "\x1b" * 10_000,
    "",
    "   ",
)
MIB = 1 << 20


def hostile(name: str) -> Difference:
    """A difference with the name in every place that a file can fill."""
    rows = [
        row(name, 900, 100, name_b=name + "2", tier=Tier.POSITION, path=name,
            metrics={name: name, "reading": name, "pair": {"a": name, "b": name, "unit": name}},
            children=(row(name, 1, 2, path=name), row(name, 1, 2, name_b=name))),
        row("other" + name, 5, 9),
        row("other" + name, 5, 10, path=name),
    ]  # fmt: skip
    cause = GapCause(name, 50, 20, 1, 1, (GapCause(name, 50, 20, 1, 1),))
    facts = {"format": name, name: name, "driver": name, "warnings": [{"says": name}, name]}
    return difference(
        rows,
        (Remainder(name, 1, 2),),
        (50, 20),
        by=name,
        a=side(name, 911, 50, name, **facts),
        b=side(name + "b", 121, 20, name + "b", **{**facts, "driver": name + "b"}),
        gaps=Gaps(50, 20, (cause,)),
        judgement=judgement("AMBIGUOUS", 1.2, reasons=(name,)),
        notes=(name,),
        warnings=(name,),
    )


def figures(page: str) -> list[int]:
    """The numbers at the beginnings of lines, in the table of rows: deltas in ns or bytes."""
    lines = page.split("\n")
    head = next(n for n, line in enumerate(lines) if line.strip().startswith("delta"))
    found = []
    for line in lines[head + 1 :]:
        if not line:
            break
        number = re.match(r"\s*([+-]?[\d,]+(\.\d{6})?)\s", line)
        if number:
            found.append(int(re.sub(r"[,.]", "", number[1])))
    return found


def markdown_cells(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose header begins with `head`, as GFM splits them."""
    lines = page.split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


class Reader(HTMLParser):
    """What a browser would build: tags, attributes, text, and the cells of the table of rows."""

    VOID = frozenset(("meta", "link", "img", "br", "input"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.first_cells: list[str] = []
        self.in_groups = self.cell = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.in_groups = int("groups" in (dict(attrs).get("class") or ""))
        elif tag == "tr":
            self.cell = 0
        elif tag == "td":
            self.cell += 1
            if self.in_groups and self.cell == 1:
                self.first_cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.in_groups and self.cell == 1 and self.open[-1] == "td":
            self.first_cells[-1] += data

    @property
    def deltas(self) -> list[int]:
        return [int(re.sub(r"[,.]", "", cell)) for cell in self.first_cells]


TAGS = frozenset(
    ("html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "p", "nav", "ul",
     "li", "main", "section", "div", "span", "strong", "small", "b", "code", "bdi", "table",
     "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "dl", "dt", "dd", "details", "summary",
     "figure", "figcaption", "svg", "desc", "rect", "line", "text", "script")
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_control_character_of_a_name_reaches_the_terminal(name: str, width: int) -> None:
    text = difference_text(hostile(name), width=width, lines=SCREEN)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, text.split("\n"))) <= max(width, 120)
    assert len(text.split("\n")) <= SCREEN + 5


@pytest.mark.parametrize("name", HOSTILE)
def test_colour_is_the_only_escape_and_only_when_asked(name: str) -> None:
    plain = difference_text(hostile(name), width=100)
    painted = difference_text(hostile(name), width=100, colour=True)
    assert re.sub(r"\x1b\[(?:\d+;?)+m", "", painted) == plain != painted


def alive(cell: str) -> list[str]:
    """What GitHub would make more of than text, outside code spans that pair by length."""
    outside = re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", cell)
    return re.findall(r"[`<>\[\]@#$*_~!]|\\[^|]|://|www\.|&#?\w+;|\w+@\w|GH-\d", outside)


def test_the_judge_of_markdown_finds_what_is_alive() -> None:
    for text in ("<b>", "[a](b)", "@x", "#1", "a `b", "www.x.org", "&lt;", "\\`", "`a`` <b>"):
        assert alive(text)
    assert not alive("plain `<b>` text, 5 % of ``a`b``")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_text_in_markdown(name: str) -> None:
    page = difference_markdown(hostile(name))
    assert all(c.isprintable() or c == "\n" for c in page)
    own = ("<details><summary>How the rows were matched</summary>", "</details>",
           "<details><summary>Warnings</summary>")  # fmt: skip
    for line in page.split("\n"):
        bare = line.removeprefix("### ").replace("\\|delta\\|", "").replace("**", "")
        if line not in own:
            assert not alive(bare), line
    for cells in markdown_cells(page, "| delta"):
        assert len(cells) in (5, 9)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_text_in_the_page(name: str) -> None:
    seen = Reader(difference_html(hostile(name)))
    assert set(seen.tags) <= TAGS
    assert seen.tags.count("script") == 1 and not seen.unbalanced
    for attribute, value in seen.attributes:
        assert not attribute.startswith("on") and attribute not in ("src", "style")
        assert attribute != "href" or value.startswith("#")
    words = seen.words.split("Skip to the report")[1].split("// Sorts")[0]
    assert all(c.isprintable() or c == "\n" for c in words)


def test_a_hostile_name_is_shown_as_it_is() -> None:
    name = "<script>alert(1)</script>"
    assert name in Reader(difference_html(hostile(name))).words
    assert f"`{name}`" in difference_markdown(hostile(name))
    assert name in difference_text(hostile(name), width=200)


def test_a_code_span_always_holds_exactly_one_name() -> None:
    assert code("a`b|c") == "`a\\x60b\\x7cc`"
    assert code("") == code(" ") == "`(no name)`"
    assert prose("see @me at <b>x</b> now") == "see `@me` at `<b>x</b>` now"
    assert prose("up 4.5 %, span (A) 1.2 × B") == "up 4.5 %, span (A) 1.2 × B"


@pytest.mark.parametrize("top", [0, 1, 7, 20, 10_000])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_column_of_deltas_sums_to_the_total_on_a_terminal(top: int, width: int) -> None:
    found = large(800, 90)
    *parts, total = figures(difference_text(found, top=top, width=width))
    assert len(parts) == min(top, len(aggregate(found.rows))) + (2 if top < 10_000 else 1)
    assert sum(parts) == total == found.delta


@pytest.mark.parametrize("top", [0, 7, 20])
def test_the_column_of_deltas_sums_to_the_total_in_markdown(top: int) -> None:
    found = large(800, 90)
    cells = markdown_cells(difference_markdown(found, top=top), "| delta ms | of")
    *parts, total = (int(re.sub(r"[,.]", "", row[0])) for row in cells)
    assert sum(parts) == total == found.delta
    shares = sum(float(row[1].removesuffix(" %")) for row in cells[:-1])
    assert shares == pytest.approx(100, abs=0.05 * len(cells))


@pytest.mark.parametrize(("rows", "names"), [(800, 90), (5000, 5000)])
def test_the_column_of_deltas_sums_to_the_total_in_the_page(rows: int, names: int) -> None:
    found = large(rows, names)
    *parts, total = Reader(difference_html(found)).deltas
    assert sum(parts) == total == found.delta


def test_the_waterfall_leads_from_a_to_b_without_a_gap() -> None:
    found = large(800, 90)
    drawn = steps(found, aggregate(found.rows))
    at = found.total_a
    for step in drawn:
        assert step.start == at
        at += step.delta
    assert at == found.total_b
    page = difference_html(found)
    assert f"{found.total_a:,}"[:3] in page
    assert page.count('class="row"') == len(drawn) + 2


def test_idle_causes_below_the_shown_ones_are_summed() -> None:
    causes = tuple(GapCause(f"cause {n}", 10 * n, n, n, 1) for n in range(1, 30))
    gaps = Gaps(sum(c.a_ns for c in causes), sum(c.b_ns for c in causes), causes)
    found = difference([row("k", 1, 2)], gaps=gaps)
    text = difference_text(found, width=100).split("idle time by cause\n")[1].split("\n\n")[0]
    *parts, total = (int(re.sub(r"[,.]", "", line.split()[0])) for line in text.split("\n"))
    assert sum(parts) == total == gaps.delta_ns
    cells = markdown_cells(difference_markdown(found), "| delta ms | A | B | gaps")
    *parts, total = (int(re.sub(r"[,.]", "", row[0])) for row in cells)
    assert sum(parts) == total == gaps.delta_ns


def test_opposite_directions_are_said_in_one_sentence() -> None:
    found = difference([row("k", 1000, 1045)], a={"span_ns": 10_000}, b={"span_ns": 5_600})
    says = "GPU time up 4.5 %, span down 44.0 %: they point in opposite directions."
    assert direction(found) == says
    assert says in difference_text(found, width=100)
    assert says in difference_markdown(found)
    assert says in difference_html(found)


@pytest.mark.parametrize(
    ("gpu", "span", "says"),
    [
        ((1000, 1100), (2000, 2100), "GPU time up 10.0 %, span up 5.0 %."),
        ((1000, 1000), (2000, 2100), "GPU time the same, span up 5.0 %."),
        ((10**9, 10**9 + 1), (2000, 1000), "GPU time up 1e-07 %, span down 50.0 %."),
        ((0, 100), (2000, 1000), "span down 50.0 %."),
    ],
)
def test_directions_that_agree_or_hardly_differ_are_only_told(
    gpu: tuple[int, int], span: tuple[int, int], says: str
) -> None:
    found = difference([row("k", *gpu)], a={"span_ns": span[0]}, b={"span_ns": span[1]})
    assert direction(found) == says


def test_the_first_screen_answers_in_order_and_fits() -> None:
    found = replace(large(3000, 400), notes=("The first finding.",))
    for width in (80, 100, 120):
        text = difference_text(found, width=width, lines=SCREEN)
        lines = text.split("\n")
        assert len(lines) <= SCREEN and max(map(len, lines)) <= width
        places = [
            text.index(words)
            for words in ("AMBIGUOUS (single capture", "one capture a side", "GPU time, ms",
                          "span,",
                          "GPU time up", "The first finding.", "delta ms", "kernel_", "more rows)",
                          "remainder: negative durations", "residual 0", "idle time by cause",
                          "matched, % of A / B", "one to one")
        ]  # fmt: skip
        assert places == sorted(places)


def test_a_screen_is_filled_but_no_row_is_hidden_where_all_fit() -> None:
    found = difference([row(f"k{n}", n, 2 * n) for n in range(1, 6)])
    text = difference_text(found, width=120, lines=SCREEN)
    assert "more row" not in text and all(f"  k{n}" in text for n in range(1, 6))


def test_nothing_that_differs_is_a_page_like_any_other() -> None:
    found = difference([row("k", 7_000_000, 7_000_000)], judgement=judgement("SAME", 1.0))
    for page in (difference_text(found, width=100), difference_markdown(found)):
        assert "SAME" in page and "7.000000" in page and "residual 0" in page
    page = difference_html(found)
    assert "residual 0" in page and 'id="waterfall"' not in page


@pytest.mark.parametrize("quantity", ["gpu_time_ns", "peak_allocated_bytes", "something_else"])
def test_no_rows_at_all_is_a_page_like_any_other(quantity: str) -> None:
    found = difference(quantity=quantity)
    assert "residual 0" in difference_text(found, width=80)
    assert "residual 0" in difference_markdown(found)
    assert "There are no rows" in difference_html(found)


def test_memory_is_shown_in_whole_bytes_and_mebibytes() -> None:
    rows = [row("private", 3 * MIB, 5 * MIB + 1), row("default", MIB, MIB - 7)]
    found = difference(rows, quantity="peak_allocated_bytes")
    text = difference_text(found, width=120)
    assert figures(text) == [2 * MIB + 1, -7, 2 * MIB - 6]
    assert "peak of requested bytes " in text and "+2.00" in text and "delta bytes" in text
    markdown = difference_markdown(found)
    assert "+2,097,153 (+2.00 MiB)" in markdown
    page = difference_html(found)
    assert "+2,097,153<small>+2.00 MiB</small>" in page
    assert "size effect" in page and "duration effect" not in page.split("</style>")[1]


def test_a_residual_is_never_passed_over() -> None:
    whole = difference([row("k", 1, 2)])
    found = replace(whole, total_b=whole.total_b + 5)
    for page in (difference_text(found, width=100), difference_markdown(found),
                 difference_html(found)):  # fmt: skip
        assert "residual 0.000005: WRONG" in page


def test_different_devices_come_first() -> None:
    a, b = side("a", 1, 0, "NVIDIA H100"), side("b", 2, 0, "AMD MI300X")
    found = difference([row("k", 1, 2)], a=a, b=b, judgement=judgement("NOT_COMPARABLE"))
    assert fact_differences(found)[0] == ("devices", "NVIDIA H100", "AMD MI300X")
    page = difference_html(found)
    order = [page.index(f'id="{key}"') for key in ("verdict", "around", "totals", "rows")]
    assert order == sorted(order) and "Different devices." in page
    same = difference_html(difference([row("k", 1, 2)], a={"format": "old"}))
    assert same.index('id="rows"') < same.index('id="around"')


def test_what_metrics_say_is_read_out() -> None:
    metrics = {
        "reading": "Memory-bound; 12 % more DRAM bytes.",
        "dram_bytes": {"a": 1000, "b": 1120, "delta": 120, "unit": "byte"},
        "spills": {"a": None, "b": None, "unit": "count"},
        "instruction_mix": {"FFMA": {"a": 5, "b": 7, "unit": "inst"}},
    }
    found = difference([row("k", 1, 2, metrics=metrics)])
    assert "Memory-bound; 12 % more DRAM bytes." in difference_text(found, width=90)
    page = difference_html(found)
    assert "Memory-bound; 12 % more DRAM bytes." in page
    assert "<dt>dram bytes</dt><dd><bdi>1,000 → 1,120 byte</bdi></dd>" in page
    assert "FFMA 5 → 7 inst" in page and "spills" not in page


def test_warnings_of_the_files_are_told_once_each() -> None:
    found = difference(
        [row("k", 1, 2)],
        a={"warnings": [{"says": "2 cut off"}]},
        b={"warnings": ["3 cut off", "3 cut off"]},
        warnings=("A: 2 cut off",),
    )
    assert warnings_of(found) == ("A: 2 cut off", "B: 3 cut off")


def test_the_page_is_self_contained_and_its_policy_allows_only_itself() -> None:
    page = difference_html(large(300, 40))
    assert not re.search(r"https?://|<link|<img|<iframe|@import|url\(", page)
    assert not re.search(r"<[^>]*\s(src|style|on\w+)=", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_the_same_difference_gives_the_same_bytes() -> None:
    assert difference_html(large(300, 40)) == difference_html(large(300, 40))


SIZES = [(5000, 5000, 60), (5000, 5000, 10_000), (50_000, 400, 60), (50_000, 50_000, 60)]


@pytest.mark.parametrize(("rows", "names", "name_length"), SIZES)
def test_pages_stay_within_their_sizes_and_are_there_at_once(
    rows: int, names: int, name_length: int
) -> None:
    found = large(rows, names, name_length=name_length)
    began = time.process_time()
    text = difference_text(found, width=100, lines=SCREEN)
    markdown = difference_markdown(found)
    page = difference_html(found)
    spent = time.process_time() - began
    assert len(text.split("\n")) <= SCREEN
    assert len(markdown) <= LIMIT
    assert len(page.encode()) <= 2_000_000
    assert spent / 3 < 2


def test_markdown_stays_below_the_limit_however_many_rows_are_asked_for() -> None:
    found = large(5000, 5000, name_length=400)
    page = difference_markdown(found, top=5000)
    assert 20_000 < len(page) <= LIMIT
    *parts, total = (
        int(re.sub(r"[,.]", "", row[0])) for row in markdown_cells(page, "| delta ms | of")
    )
    assert sum(parts) == total == found.delta
    swamped = replace(
        found, notes=("n" * 9999,) * 5000, warnings=("<w>" * 9999,) * 5000,
        remainders=tuple(Remainder("r" * 5000 + str(n), 0, 0) for n in range(5000)),
        judgement=judgement(reasons=("`r` " * 3000,) * 500),
    )  # fmt: skip
    assert len(difference_markdown(swamped)) <= LIMIT
    assert len(difference_html(swamped).encode()) <= 2_000_000
    assert len(difference_text(swamped, width=80, lines=SCREEN).split("\n")) <= SCREEN + 5
