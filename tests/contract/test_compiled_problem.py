"""A problem that is compiled, not timed: what its file may leave out, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.contract.problem import read_problem
from common.errors import UsageError

TEXT = """
schema = "worklog.problem/1"
kind = "compiled"
title = "t"
status = "s"
question = "q"
symptom = "s"
cause = "c"
baseline = "one"
[variants.one]
title = "first"
[variants.two]
title = "second"
[presets.cpu]
devices = ["cpu"]
needs_device_bytes = 0
settings = {}
[[claims]]
says = "two has a figure"
claim = 'figure("two", "registers") <= 64'
presets = ["cpu"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "problem.toml"
    path.write_text(text)
    return path


def test_it_needs_neither_phases_nor_tolerances_nor_rounds(tmp_path: Path) -> None:
    problem = read_problem(write(tmp_path, TEXT))
    assert (problem.kind, dict(problem.phases)) == ("compiled", {})
    assert problem.presets["cpu"].max_rounds == 1
    assert problem.claim_presets == {'figure("two", "registers") <= 64': ("cpu",)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "compiled"', 'kind = "guessed"', "none of timed, compiled"),
        ('kind = "compiled"', 'kind = "compiled"\nphases = { a = "" }', "times no phases"),
        ('kind = "compiled"', "", "min_rounds"),  # a timed one does need them
        ('figure("two",', 'figure("three",', "is no variant"),
        ('presets = ["cpu"]', 'presets = ["gpu"]', "'gpu', which is no preset"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_problem(write(tmp_path, TEXT.replace(old, new)))


@pytest.mark.parametrize("number", ["0", "-1", "true", '"2"', "1.5"])
def test_at_once_is_a_number_of_variants(tmp_path: Path, number: str) -> None:
    text = TEXT.replace('kind = "compiled"', f'kind = "compiled"\nat_once = {number}')
    with pytest.raises(UsageError, match="at_once"):
        read_problem(write(tmp_path, text))


def test_only_what_is_not_timed_may_be_worked_out_side_by_side(tmp_path: Path) -> None:
    assert read_problem(write(tmp_path, TEXT)).at_once == 1
    two = TEXT.replace('kind = "compiled"', 'kind = "compiled"\nat_once = 2')
    assert read_problem(write(tmp_path, two)).at_once == 2
    with pytest.raises(UsageError, match="disturb each other"):
        read_problem(write(tmp_path, two.replace('kind = "compiled"', 'kind = "sweep"')))
