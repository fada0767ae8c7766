"""Is the README's figure of a problem that is not a ratio read, and a slip in it found at once?"""

from __future__ import annotations

import pytest

from common.contract.headline import read_headline
from common.contract.problem import load_problem, problem_names
from common.errors import UsageError


def test_without_it_there_is_none() -> None:
    assert read_headline({}) is None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"effect": "{a} times"}, "'a' is not both"),
        ({"effect": "twice", "figures": {"a": "1 + 1"}}, "'a' is not both"),
        ({"effect": "{a} times, {b", "figures": {"a": "1"}}, "write {NAME}"),
        ({"effect": "x", "floor": "{share} %"}, "'share' is not both"),
    ],
)
def test_a_slip_is_one_line_that_says_what_to_do(table: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_headline({"headline": table})


def test_every_problem_that_is_not_timed_by_variants_has_one() -> None:
    problems = [load_problem(name) for name in problem_names()]
    assert [p.name for p in problems if p.kind != "timed" and p.headline is None] == []
