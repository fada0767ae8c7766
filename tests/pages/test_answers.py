"""Are numbers of the text compared at their own digits, and is nothing but arithmetic computed?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.contract.claims import Measured
from common.contract.problem import load_problem
from common.errors import UsageError
from common.pages.answers import CHECK, EvidenceFunctions, WrongAnswer, check_answer, compute
from common.pages.check import asked
from common.pages.evidence_rules import open_evidence
from common.pages.text_rules import check_typed_numbers

CHECKOUT = Path(__file__).resolve().parents[2]

TABLE = {
    "columns": ["family", "entries", "output"],
    "rows": [["GEMM", "1,245", "RED"], ["GEMV", "44", "stored"], ["GEMV 2", "7 %", "RED"]],
}
FUNCTIONS = EvidenceFunctions(
    {
        "ratio": lambda *_: Measured(64.83),
        "figure": lambda variant, name: Measured(None, reason=f"no {name}"),
    },
    {"variants": {"bf16": {"median_ns": 9_680_000}}},
    lambda variant: {"t": TABLE} if variant == "v" else {},
)


def answer(body: str, visible: str) -> None:
    check_answer(body, visible, load_problem("gemlite_autotune"), lambda key: FUNCTIONS)


@pytest.mark.parametrize(
    ("body", "visible"),
    [
        ("7.35 = 14 * 525_336_576 / 1e9", "It is 7.35 GB."),
        ("7.4 = 14 * 525_336_576 / 1e9", "about 7.4"),
        ("120 within 1% = 119.3", "120 tokens/s"),
        ("8 = 2 ** 3", "Eight: those with"),
        ("8 = 2 ** 3", "8."),
        ("-3 = 4 - 7", "-3 blocks"),
        ("525,336,576 = 128_256 * 4096", "525,336,576 elements"),
        ("64.8 = ratio('a', 'b', 'c') run=x", "64.8 times"),
        ("9.68 = summary('variants', 'bf16', 'median_ns') / 1e6 run=x", "9.68 ms"),
        ("1,245 = cell('v', 't', 'GEMM', 'entries') run=x", "1,245"),
        ('"RED" = cell("v", "t", "GEMM", "output") run=x', "by RED"),
        ("2 = rows('v', 't', 'output', 'RED') run=x", "two of them"),
        ("3 = rows('v', 't') run=x", "3 rows"),
        ("0.5 = round(min(0.49, 3), 1)", "0.5"),
        ("2 = ceil(1.2)", "2"),
        ("test tests/pages/test_answers.py::test_right_answers_pass", ""),
    ],
)
def test_right_answers_pass(body: str, visible: str) -> None:
    answer(body, visible)


@pytest.mark.parametrize(
    ("body", "visible", "says"),
    [
        ("7.36 = 14 * 525_336_576 / 1e9", "7.36", "the text says 7.36, the evidence gives 7.35471"),
        ("7.3 = 14 * 525_336_576 / 1e9", "7.3", "the evidence gives"),
        ("7.35 = 14 * 525_336_576 / 1e9", "7.351", "which the text beside it does not say"),
        ("35 = 5 * 7", "7.35", "which the text beside it does not say"),
        ("35 = 5 * 7", "35,000", "which the text beside it does not say"),
        ("120 within 0.1% = 119.3", "120", "the evidence gives 119.3"),
        ('"CAS" = cell("v", "t", "GEMM", "output") run=x', "CAS", "the evidence says 'RED'"),
        ("1 = 1e400 - 1e400", "1", "the evidence nan"),
    ],
)
def test_wrong_answers_are_said_with_what_is_right(body: str, visible: str, says: str) -> None:
    with pytest.raises(WrongAnswer, match=says.replace("(", r"\(")):
        answer(body, visible)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("nonsense", "cannot be read; write NUMBER = EXPRESSION"),
        ("1 = 1 +", "is no expression"),
        ("1 = __import__('os').system('true')", "is not allowed"),
        ("1 = (1).__class__", "is not allowed"),
        ("1 = [1][0]", "is not allowed"),
        ("1 = open('x')", "needs evidence; add run=KEY"),
        ("1 = open('x') run=x", "unknown function open; use one of"),
        ("1 = 9 ** 9 ** 9", "an exponent above 64"),
        ("1 = 1 / 0", "ZeroDivisionError"),
        ("1 = 'a' * 1000000000", "text in arithmetic"),
        ("1 = ratio('a', 'b', 'c')", "needs evidence"),
        ("1 = figure('v', 'gone') run=x", "no gone"),
        ("1 = cell('v', 'nope', 'a', 'b') run=x", "has no table 'nope'"),
        ("1 = cell('v', 't', 'zzz', 'entries') run=x", "no row 'zzz'"),
        ("1 = summary('variants', 'none') run=x", "KeyError"),
        ("test tests/pages/test_answers.py::test_not_there", "has no test test_not_there"),
        ("test tests/gone.py::test_x", "does not exist"),
        ("test ../../etc/passwd::test_x", "cannot be read"),
    ],
)
def test_what_cannot_be_checked_says_why(body: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        answer(body, "1")
    assert not isinstance(refused.value, WrongAnswer)


def test_an_expression_is_never_evaluated_by_python() -> None:
    touched: list[Any] = []
    hostile = EvidenceFunctions({"ratio": touched.append}, {}, lambda name: {})
    for text in ("(lambda: 1)()", "ratio.__globals__", "f'{1}'", "1 if 1 else 2", "a := 1"):
        with pytest.raises(UsageError):
            compute(text, hostile)
    assert touched == []


def test_every_example_of_the_guide_is_right() -> None:
    guide = (CHECKOUT / "common" / "pages" / "README.md").read_text(encoding="utf-8")
    problems = {name: load_problem(name) for name in ("float8_weight_only", "gemlite_autotune")}
    runs = {name: open_evidence(problem)[0] for name, problem in problems.items()}
    examples = [line for line in guide.splitlines() if CHECK.search(line) and "…" not in line]
    assert len(examples) >= 7
    for line in examples:
        body = CHECK.search(line)["body"]  # type: ignore[index]
        name = "float8_weight_only" if "bf16" in body else "gemlite_autotune"
        check_answer(body, line.split("<!--")[0], problems[name], asked(problems[name], runs[name]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes 12.5 ms.", ["'12.5 ms'"]),
        ("A weight of 2048 × 2048 and 29 bytes in 3 passes, step 5.", []),
        ("2.5× slower, 40 % of it, 3 GB/s", ["'2.5×'", "'40 %'", "'3 GB/s'"]),
        ("`12.5 ms` and\n\n```\n12.5 ms\n```\n", []),
        ("<!-- worklog:claims run=cpu -->\n| 12.5 ms |\n<!-- /worklog:claims -->", []),
        ("It takes 12.5 ms. <!-- check: 12.5 = 25 / 2 -->", []),
        ("It takes 12.5 ms.\n\n<!-- check: 12.5 = 25 / 2 -->", ["'12.5 ms'"]),
        ("9.19 GB <!-- published: 9.19 pytorch/ao #3288 -->", []),
        ("9.19 GB <!-- published: 9.2 pytorch/ao #3288 -->", ["'9.19 GB'"]),
        ("9.19 GB <!-- published: 9.19 -->", ["'9.19 GB'"]),
    ],
)
def test_measured_numbers_are_told_from_counted_ones(text: str, found: list[str]) -> None:
    page = f"## Card\n\n{text}\n\n## Question\n\n12.5 ms may stand here.\n"
    messages = [str(finding) for finding in check_typed_numbers(Path("p.md"), page)]
    assert [message.split(" is typed")[0].split(": ")[1] for message in messages] == found
