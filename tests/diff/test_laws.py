"""Laws that hold whatever the files say: what a change of the input must do to the difference.

Each law is tried on real files; what is changed in them is changed in the JSON or the database, so
that the readers are tried as well. Matching is tried on small programs whose answer is known.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import sqlite3
import subprocess
import sys
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
from helpers.command import CHECKOUT
from helpers.programs import Program

from common.diff.by_name import document
from common.diff.diff import compare_files
from common.diff.difference import Difference

PAIRS = (
    ("torch/bert_small_h100.json.gz", "torch/bert_small_mi300.json.gz"),
    ("torch/leimao_without_manual_capture.json.gz", "torch/leimao_with_manual_capture.json.gz"),
    ("torch/vllm_graph_decode.json.gz", "torch/compile_triton_mi300.json.gz"),
    ("torch/qwen_h100.json.gz", "torch/qwen_mi300.json.gz"),
    ("nsys/small_fwd.sqlite.gz", "nsys/small_fwd_cl4096.sqlite.gz"),
    ("nsys/small_fwd.sqlite.gz", "torch/bert_small_h100.json.gz"),
    ("nsys/mfu_2gpu_before.sqlite.gz", "torch/leimao_with_manual_capture.json.gz"),
    ("torch/hta_cpu_only.json.gz", "nsys/small_fwd.sqlite.gz"),
)
CHOICES = ("kernel", "operator", "range", "gap")
KEYS = {
    "schema", "source", "quantity", "a", "b", "delta", "rows", "remainders", "residual", "gaps",
    "verdict", "confidence", "reasons", "warnings",
}  # fmt: skip
GPU = {"kernel", "gpu_memcpy", "gpu_memset"}


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_rows_close_and_swapping_the_sides_changes_nothing_but_the_sign(
    real_data: Path, a: str, b: str
) -> None:
    for by in CHOICES:
        found = compare_files(str(real_data / a), str(real_data / b), by)
        back = compare_files(str(real_data / b), str(real_data / a), by)
        assert found.residual == back.residual == 0
        assert by_name(found.rows) == by_name(back.rows, swapped=True), by
        opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
        verdict = found.judgement.verdict
        assert back.judgement.verdict == opposite.get(verdict, verdict)
        printed = document(found)
        assert printed.keys() >= KEYS
        assert sum(row["delta"] for row in printed["by_name"]) == found.delta
        for row in found.rows:
            assert row.count_a or row.count_b  # else it would be called removed
            assert row.count_effect + row.duration_effect == row.delta


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_no_row_has_time_of_another_name(real_data: Path, a: str, b: str) -> None:
    from common.diff.sides import open_side

    rows = compare_files(str(real_data / a), str(real_data / b), "kernel").rows
    for side in ("a", "b"):
        trace = open_side(str(real_data / (a if side == "a" else b))).trace
        told: Counter[str] = Counter()
        recorded: Counter[str] = Counter()
        for row in rows:
            if getattr(row, f"count_{side}"):
                told[row.name if side == "a" else row.name_b or row.name] += getattr(row, side)
        for name, spent in zip(
            trace.gpu.name.tolist(), trace.gpu.duration_ns.tolist(), strict=True
        ):
            recorded[trace.names[name]] += spent
        assert told == recorded


@pytest.mark.parametrize(("a", "b"), [*PAIRS[:2], PAIRS[4]])
def test_the_same_files_give_the_same_document_in_every_process(
    real_data: Path, a: str, b: str
) -> None:
    command = [sys.executable, "-m", "common.cli", "diff", str(real_data / a), str(real_data / b)]
    printed = {
        subprocess.run(
            [*command, "--json"],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_equal_rows_stand_in_the_order_of_their_launches(tmp_path: Path) -> None:
    a, b = Program(), Program()
    for side in (a, b):
        for layer in range(40):
            side.operator([f"@layer.{layer}", "mm"], [("gemm", 10)])
    rows = compare(tmp_path, a, b).rows
    assert [row.path for row in rows] == [f"layer.{layer} / mm" for layer in range(40)]


# What must not matter


def rewritten(real: Path, to: Path, change: Change) -> Path:
    with gzip.open(real) as stream:
        held = json.load(stream)
    change(held["traceEvents"])
    to.write_text(json.dumps(held))
    return to


FILES = (
    "torch/bert_small_h100.json.gz",
    "torch/leimao_with_manual_capture.json.gz",
    "torch/vllm_graph_decode.json.gz",
)


@pytest.mark.parametrize("change", [shifted, shuffled, renumbered, streams_swapped])
@pytest.mark.parametrize("file", FILES)
def test_when_and_under_which_numbers_work_ran_does_not_matter(
    real_data: Path, tmp_path: Path, file: str, change: Change
) -> None:
    plain = rewritten(real_data / file, tmp_path / "plain.json", lambda _: None)
    other = rewritten(real_data / file, tmp_path / "other.json", change)
    found = compare_files(str(plain), str(other))
    assert found.delta == 0 and found.gaps is not None and found.gaps.delta_ns == 0
    assert not [row for row in found.rows if row.delta or row.count_a != row.count_b]
    assert found.judgement.verdict == "SAME"
    # Nor does it beside a third file.
    third = str(real_data / "torch/leimao_without_manual_capture.json.gz")
    assert by_name(compare_files(third, str(plain)).rows) == by_name(
        compare_files(third, str(other)).rows
    )


@pytest.mark.parametrize(
    "file",
    [*FILES, "torch/hta_cpu_only.json.gz", "nsys/small_fwd.sqlite.gz",
     "nsys/lm_2_7B_compile_ro.sqlite.gz", "ncu/toy_2080ti.raw.csv",
     "memory/small_from_empty.pickle.gz"],
)  # fmt: skip
def test_a_file_of_any_format_beside_its_copy_is_the_same(
    real_data: Path, tmp_path: Path, file: str
) -> None:
    copy_ = tmp_path / "under another name"
    copy_.write_bytes((real_data / file).read_bytes())
    found = compare_files(str(real_data / file), str(copy_))
    assert found.delta == found.residual == 0 and found.total_a == found.total_b != 0
    assert not [row for row in found.rows if row.delta or row.count_a != row.count_b]
    assert found.judgement.verdict == "SAME"


# What must matter, and by how much


@pytest.mark.parametrize("file", FILES)
def test_one_event_at_half_its_length_is_one_row_of_exactly_that(
    real_data: Path, tmp_path: Path, file: str
) -> None:
    lost = 0

    def halve(events: Events) -> None:
        nonlocal lost
        work = [event for event in events if event.get("cat") in GPU]
        chosen = sorted(work, key=lambda event: event["dur"])[-len(work) // 7]
        nanoseconds = round(chosen["dur"] * 1000)
        chosen["dur"] = (nanoseconds // 2) / 1000
        lost = nanoseconds - nanoseconds // 2

    plain = rewritten(real_data / file, tmp_path / "plain.json", lambda _: None)
    half = rewritten(real_data / file, tmp_path / "half.json", halve)
    found = compare_files(str(plain), str(half))
    changed = [row for row in found.rows if row.delta]
    assert [row.delta for row in changed] == [-lost] and found.delta == -lost
    assert changed[0].duration_effect == -lost and changed[0].count_effect == 0


@pytest.mark.parametrize("file", FILES)
def test_the_same_work_after_both_sides_adds_no_difference(
    real_data: Path, tmp_path: Path, file: str
) -> None:
    with gzip.open(real_data / PAIRS[1][0]) as stream:
        extra: Events = json.load(stream)["traceEvents"]

    def append(events: Events) -> None:
        end = max(event["ts"] + event.get("dur", 0) for event in events if "ts" in event)
        begin = min(event["ts"] for event in extra if event.get("ph") == "X")
        for event in copy.deepcopy(extra):
            if event.get("ph") != "X" or "ProfilerStep" in event["name"]:
                continue
            event["ts"] += end - begin + 1000
            args = event.get("args", {})
            for key in ("correlation", "External id"):
                if isinstance(args.get(key), int) and args[key] > 0:
                    args[key] += 10_000_000
            events.append(event)

    def slower(events: Events) -> None:
        for event in events:
            if event.get("cat") in GPU:
                event["dur"] = round(event["dur"] * 1000) * 3 // 2 / 1000

    def both(events: Events) -> None:
        slower(events)
        append(events)

    real = real_data / file
    sides = [
        str(rewritten(real, tmp_path / f"{number}.json", change))
        for number, change in enumerate((lambda _: None, slower, append, both))
    ]
    alone, longer = compare_files(*sides[:2]), compare_files(*sides[2:])
    named, all_named = by_name(alone.rows), by_name(longer.rows)
    assert alone.delta == longer.delta != 0
    assert all(delta == named.get(names, 0) for names, delta in all_named.items())


def test_a_shift_of_a_database_changes_nothing(real_data: Path, tmp_path: Path) -> None:
    sides = [tmp_path / "a.sqlite", tmp_path / "b.sqlite"]
    for side in sides:
        side.write_bytes(gzip.decompress((real_data / "nsys/small_fwd.sqlite.gz").read_bytes()))
    with sqlite3.connect(sides[1]) as database:
        for table in [row[0] for row in database.execute("SELECT name FROM sqlite_master")]:
            columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            if columns >= {"start", "end"}:
                database.execute(f"UPDATE {table} SET start = start + 5000000, end = end + 5000000")
            if "correlationId" in columns:
                database.execute(f"UPDATE {table} SET correlationId = correlationId + 12345")
    database.close()
    found = compare_files(*map(str, sides))
    assert found.delta == 0 and not [row for row in found.rows if row.delta]
    assert found.gaps is not None and not any(cause.delta_ns for cause in found.gaps.causes)


# Small programs: which piece of work is which is known


def compare(place: Path, a: Program, b: Program, by: str = "kernel") -> Difference:
    sides = [side.write(place / f"{name}.json") for side, name in ((a, "a"), (b, "b"))]
    return compare_files(*map(str, sides), by)


def changed(found: Difference) -> list[tuple[str, int, int]]:
    return sorted((row.name, row.a, row.b) for row in found.rows if row.delta)


def test_a_removed_operator_moves_no_other_pair(tmp_path: Path) -> None:
    a, b = Program(), Program()
    for layer in range(4):
        for side in (a, b):
            side.operator("mm", [("gemm", 100 + layer)])
            if side is a or layer != 2:
                side.operator("relu", [("relu", 10 + layer)])
            side.operator("add", [("add", 20 + layer)])
    assert changed(compare(tmp_path, a, b)) == [("relu", 12_000, 0)]


def test_operators_of_another_order_keep_their_partners(tmp_path: Path) -> None:
    a, b = Program(), Program()
    for side, order in ((a, "qkv"), (b, "vqk")):
        for name in order:
            side.operator([f"@{name}", "mm"], [("gemm", {"q": 11, "k": 22, "v": 33}[name])])
    assert changed(compare(tmp_path, a, b)) == []


def test_two_threads_that_launch_at_once_are_told_apart(tmp_path: Path) -> None:
    a, b = Program(), Program()
    for layer in range(4):
        a.operator("mm", [("gemm", 100 + layer)], thread=1, stream=7)
        a.operator("mm", [("gemm", 200 + layer)], thread=2, stream=8)
    for thread in (1, 2):
        for layer in range(4):
            b.operator("mm", [("gemm", 100 * thread + layer)], thread=thread, stream=6 + thread)
    b.delay(thread=2, us=5000)
    assert changed(compare(tmp_path, a, b)) == []


def test_work_before_the_first_step_is_never_taken_for_work_of_a_step(tmp_path: Path) -> None:
    a, b = Program(), Program()
    a.operator("mm", [("gemm", 555)])
    for side in (a, b):
        for number in range(3):
            with side.step(number):
                side.operator("mm", [("gemm", 100)])
                side.operator("mm", [("gemm", 101)])
    assert changed(compare(tmp_path, a, b)) == [("gemm", 555_000, 0)]


def test_a_step_that_does_more_moves_no_pair_of_the_other_steps(tmp_path: Path) -> None:
    a, b = Program(), Program()
    for side in (a, b):
        for number in range(4):
            with side.step(number):
                for layer in range(3 if side is a or number != 1 else 5):
                    side.operator("mm", [("gemm", 100 + layer)])
    found = compare(tmp_path, a, b)
    # Pairs of steps 0, 2 and 3 are of one length; only step 1 may have others.
    assert found.delta == 207_000
    assert sum(abs(row.delta) for row in found.rows) <= 207_000 + 4_000


def test_two_graphs_of_the_same_kernels_are_two_groups_where_their_nodes_differ(
    tmp_path: Path,
) -> None:
    a, b = Program(), Program()
    for side, slower, first in ((a, 0, 1), (b, 100, 51)):
        for _ in range(4):
            side.graph([("k1", 10), ("k2", 20)], first_node=first)
            side.graph([("k1", 11 + slower), ("k2", 31 + slower)], first_node=first + 10)
    assert changed(compare(tmp_path, a, b)) == [("k1", 44_000, 444_000), ("k2", 124_000, 524_000)]


@pytest.mark.parametrize("devices", [(2, 3), (1, 2)])
def test_a_job_on_other_gpus_did_not_swap_its_work(
    tmp_path: Path, devices: tuple[int, int]
) -> None:
    a, b = Program(), Program()
    for side, (one, two) in ((a, (0, 1)), (b, devices)):
        for _ in range(3):
            side.operator("mm", [("gemm", 100)], device=one)
            side.operator("mm", [("gemm", 200)], device=two, stream=8)
    found = compare(tmp_path, a, b)
    assert changed(found) == []
    assert [
        (clock["device_a"], clock["device_b"], clock["delta_span_ns"])
        for clock in found.extra["wall_clock"]
    ] == [(0, devices[0], 0), (1, devices[1], 0)]


def test_spans_of_one_microsecond_nest_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    def trace(path: Path, reverse: bool) -> str:
        ids = {"correlation": 5, "device": 0, "stream": 7}
        spans = [
            ("cpu_op", "outer", 100, 50, {"External id": 3}),
            ("cpu_op", "inner", 100, 50, {"External id": 4}),
            ("cuda_runtime", "cudaLaunchKernel", 100, 50, {"External id": 4, "correlation": 5}),
            ("kernel", "k", 200, 9, ids),
        ]
        events = [
            {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur}
            | {"args": args}
            for cat, name, ts, dur, args in spans
        ]
        path.write_text(json.dumps({"traceEvents": events[::-1] if reverse else events}))
        return str(path)

    sides = trace(tmp_path / "a.json", False), trace(tmp_path / "b.json", True)
    for by, name in (("operator", "outer"), ("kernel", "k")):
        found = compare_files(*sides, by)
        assert [(row.name, row.count_a, row.count_b) for row in found.rows] == [(name, 1, 1)]
        assert found.judgement.verdict == "SAME"
