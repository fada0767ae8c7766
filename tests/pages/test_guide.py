"""Do the worklogs read as a guide? A screen for each step, words explained, tables put away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.document_commands import ROOT

from common.pages.markdown import COMMENT, prose, sections

PAGES = sorted((ROOT / "problems").glob("*/WORKLOG.md"))
STEP = re.compile(r"^\*\*Step (\d+)\. ", re.MULTILINE)
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
SCREEN = 60  # lines that are open; a long table is folded, and its finding stands in the text


def steps(text: str) -> list[tuple[int, str]]:
    """(number, what is open of it) of the investigation."""
    body = next(s for s in sections(text) if s.title == "Investigation")
    whole = text[body.start : body.end]
    starts = [*STEP.finditer(whole)]
    ends = [*(m.start() for m in starts[1:]), len(whole)]
    return [
        (int(m[1]), COMMENT.sub("", FOLDED.sub("", whole[m.start() : end])))
        for m, end in zip(starts, ends, strict=True)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_each_step_fits_a_screen_and_says_what_came_out(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = steps(text)
    assert [number for number, _ in found] == list(range(1, len(found) + 1)) and len(found) >= 5
    long = {number: body.count("\n") for number, body in found if body.count("\n") > SCREEN}
    assert long == {}, f"{page}: fold the long tables of these steps"
    for number, body in found:
        prose = [line for line in body.splitlines() if line and not line.startswith(("|", "_"))]
        assert len(prose) >= 2, f"{page}: step {number} is a table and nothing else"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_what_is_folded_is_opened_by_words_and_closed_again(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<details>") == text.count("</details>")
    for summary in re.findall(r"<details><summary>(.*?)</summary>", text):
        assert summary == "Answer" or len(summary.split()) >= 3, f"{page}: {summary!r} says little"
    # A table inside needs the empty line before it, or GitHub shows its pipes.
    assert not re.search(r"</summary>\n(?!\n)\s*(?:<!-- worklog|\|)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_a_term_of_the_field_is_set_in_italics_where_it_is_explained(page: Path) -> None:
    text = prose(page.read_text(encoding="utf-8"))
    unexplained = [
        term
        for term in TERMS
        if re.search(rf"(?<![\w-]){term}s?(?![\w-])", text, re.IGNORECASE)
        and not re.search(rf"(?<!\*)\*{term}s?\*(?!\*)", text, re.IGNORECASE)
    ]
    assert unexplained == [], page


TERMS = (
    "GEMV", "warp", "wave", "occupancy", "split-K", "LDGSTS", "SM", "pruner", "winner", "KL",
    "coordinate descent", "interleaved", "logits", "opaque", "eager", "prefill", "decode",
    "CUDA graph", "private pool", "default pool", "retained", "router", "top-k", "skew", "knee",
    "intensity",
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_no_table_is_a_head_without_rows(page: Path) -> None:
    lines = [*page.read_text(encoding="utf-8").splitlines(), ""]
    heads = [n for n, line in enumerate(lines) if re.fullmatch(r"\|(:?-+:?\|)+", line)]
    assert heads, "the tables were not found"
    assert [lines[n - 1] for n in heads if not lines[n + 1].startswith("|")] == []
