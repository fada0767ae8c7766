"""Do the laws of the diff hold on programs that nobody wrote down? Drawn by hypothesis.

`test_laws.py` tries the same laws on recorded files; here it is the shapes that are many.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from helpers.changes import (
    Change,
    Events,
    by_name,
    renumbered,
    shifted,
    shuffled,
    streams_swapped,
)
from helpers.programs import Program
from hypothesis import given, settings
from hypothesis import strategies as st

from common.diff.diff import compare_files
from common.diff.difference import Difference

EXAMPLES = 12
laws = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)

kernels = st.tuples(st.sampled_from(["gemm", "relu", "add<float>", "copy"]), st.integers(1, 5_000))
operators = st.tuples(
    st.lists(st.sampled_from(["@layer.0", "@layer.1", "mm", "linear", "norm"]), min_size=1,
             max_size=3),
    st.lists(kernels, max_size=3),
    st.integers(1, 2),  # thread
    st.sampled_from([7, 8, 20]),  # stream
    st.integers(0, 1),  # device
)  # fmt: skip
graphs = st.lists(kernels, min_size=1, max_size=4)


@st.composite
def programs(draw: st.DrawFn) -> Events:
    """Threads, streams, devices, graphs, operators without work; the first has some."""
    made = Program()
    made.operator("mm", [("gemm", draw(st.integers(1, 5_000)))])
    for part in draw(st.lists(st.one_of(operators, graphs), max_size=7)):
        if isinstance(part, tuple):
            names, work, thread, stream, device = part
            made.operator(names, work, thread, stream, device)
        else:
            made.graph(part, first_node=1)
    return made.events


def difference(a: Events, b: Events, by: str = "kernel") -> Difference:
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder) / f"{name}.json" for name in "ab"]
        head = {"schemaVersion": 1, "deviceProperties": [{"id": n, "name": "X"} for n in range(2)]}
        for side, events in zip(sides, (a, b), strict=True):
            side.write_text(json.dumps({**head, "traceEvents": events}))
        return compare_files(str(sides[0]), str(sides[1]), by)


def after(first: Events, second: Events) -> Events:
    """Both programs one behind the other, as one trace."""
    end = max(event["ts"] + event["dur"] for event in first)
    moved = copy.deepcopy(second)
    for event in moved:
        event["ts"] += end
        if "correlation" in event["args"]:
            event["args"]["correlation"] += 1_000_000
    return [*first, *moved]


def recorded(events: Events) -> int:
    return sum(round(1000 * event["dur"]) for event in events if event["cat"] == "kernel")


@laws
@given(programs(), programs(), st.sampled_from(["kernel", "operator", "range", "gap"]))
def test_it_closes_and_the_other_way_round_is_the_negative(a: Events, b: Events, by: str) -> None:
    there, back = difference(a, b, by), difference(b, a, by)
    assert there.residual == back.residual == 0 and there.delta == -back.delta
    if by != "gap":
        assert there.delta == recorded(b) - recorded(a)
    assert by_name(there.rows) == by_name(back.rows, swapped=True)
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    verdict = there.judgement.verdict
    assert back.judgement.verdict == opposite.get(verdict, verdict)


@laws
@given(programs(), st.sampled_from(["kernel", "operator", "range", "gap"]))
def test_a_trace_beside_itself_is_the_same(a: Events, by: str) -> None:
    found = difference(a, a, by)
    assert not [row for row in found.rows if row.delta or row.count_a != row.count_b]
    assert found.judgement.verdict == "SAME" and found.gaps is not None
    assert found.gaps.delta_ns == 0


@laws
@given(programs(), programs(), programs(), programs())
def test_differences_of_programs_one_behind_the_other_add_up(
    a: Events, b: Events, c: Events, d: Events
) -> None:
    def totals(found: Difference) -> Counter[str]:
        """Of each name what it costs more in B."""
        sums: Counter[str] = Counter()
        for row in found.rows:
            sums[row.name] -= row.a
            sums[row.name_b or row.name] += row.b
        return Counter({name: delta for name, delta in sums.items() if delta})

    one, two = difference(a, b), difference(c, d)
    joined = difference(after(a, c), after(b, d))
    assert joined.delta == one.delta + two.delta
    added = totals(one)
    added.update(totals(two))
    assert totals(joined) == Counter({name: delta for name, delta in added.items() if delta})


@pytest.mark.parametrize("change", [shifted, shuffled, renumbered, streams_swapped])
@laws
@given(a=programs(), b=programs())
def test_what_must_not_matter_does_not(change: Change, a: Events, b: Events) -> None:
    other = copy.deepcopy(b)
    change(other)
    same = difference(b, other)
    assert not [row for row in same.rows if row.delta or row.count_a != row.count_b]
    assert same.judgement.verdict == "SAME"
    plain, changed = difference(a, b), difference(a, other)
    assert by_name(plain.rows) == by_name(changed.rows)
    assert plain.gaps is not None and changed.gaps is not None
    assert plain.gaps.delta_ns == changed.gaps.delta_ns
