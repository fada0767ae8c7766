"""Two compiled kernels side by side: every instruction in one row, no verdict about speed."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest

from common.cli import main
from common.diff.compiled import CHOICES, diff_compiled
from common.diff.difference import Difference
from common.errors import UsageError
from common.traces.compiled_kernel import read_compiled, summarise_compiled

DATA = Path(__file__).parents[1] / "data" / "compiled"
NAMES = [path.stem for path in sorted(DATA.glob("*.json"))]


def difference(one: str, other: str, by: str | None = None) -> Difference:
    paths = [DATA / f"{name}.json" for name in (one, other)]
    a, b = map(read_compiled, paths)
    return diff_compiled(a, b, summarise_compiled(a, paths[0]), summarise_compiled(b, paths[1]), by)


@pytest.mark.parametrize("by", CHOICES)
@pytest.mark.parametrize(("one", "other"), list(permutations(NAMES, 2)))
def test_rows_add_up_to_the_whole_difference(one: str, other: str, by: str) -> None:
    found = difference(one, other, by)
    assert found.residual == 0
    assert sum(row.a for row in found.rows) == found.total_a
    assert sum(row.b for row in found.rows) == found.total_b
    for row in found.rows:
        assert row.count_effect + row.duration_effect == row.delta
        if row.children:
            assert sum(child.delta for child in row.children) == row.delta
    document = json.loads(json.dumps(found.to_json()))
    assert (document["source"], document["quantity"]) == ("compiled", "instructions")
    assert document["residual"] == 0
    assert document["verdict"] == "AMBIGUOUS" and "neither kernel was run" in document["reasons"][0]


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_the_same_as_itself(name: str) -> None:
    found = difference(name, name)
    assert found.delta == 0 and all(row.delta == 0 for row in found.rows)
    assert found.judgement.verdict == "SAME"
    assert found.extra["facts"] == []


def test_winner_against_listed_says_what_changed() -> None:
    found = difference("winner_4090", "listed_4090")
    by_name = {row.name: row for row in found.rows}
    assert by_name["async copy to shared"].a == 0 < by_name["async copy to shared"].b
    resources = {row["name"]: row for row in found.extra["resources"]}
    assert (resources["blocks_per_sm"]["a"], resources["blocks_per_sm"]["b"]) == (4, 1)
    assert resources["shared_bytes"]["delta"] == 87_040 - 18_432
    text = " ".join(found.notes)
    assert "Only B copies global memory to shared asynchronously" in text
    assert "blocks per SM: 4 in A, 1 in B." in text


def test_two_architectures_are_compared_with_a_warning() -> None:
    found = difference("winner_4090", "winner_h200")
    assert found.warnings == ("A is for sm_89, B for sm_90: one source, two instruction sets",)
    assert {"name": "architecture", "a": "sm_89", "b": "sm_90"} in found.extra["facts"]


def test_an_atomic_loop_is_noticed() -> None:
    found = difference("gemv_cas_4090", "gemv_red_4090")
    assert any("compare-and-swap" in note for note in found.notes)


def test_an_unknown_grouping_is_refused() -> None:
    with pytest.raises(UsageError, match="choose --by class, opcode"):
        difference("winner_4090", "listed_4090", "kernel")


def test_the_command_compares_two_compiled_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    places = [str(DATA / name) for name in ("winner_4090.json", "winner_h200.json")]
    assert main(["diff", *places, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["source"] == "compiled" and document["residual"] == 0
    assert document["delta"] == sum(row["delta"] for row in document["rows"]) != 0
