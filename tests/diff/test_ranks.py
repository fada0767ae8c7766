"""Do the laws of a difference hold over folders of ranks, and is every rank accounted for?"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.command import assert_one_line_error, worklog
from helpers.programs import Program

from common.diff.by_name import document
from common.diff.diff import compare_files
from common.diff.difference import Difference
from common.diff.rank_diff import compare_ranks
from common.diff.rank_files import are_rank_folders, pair_ranks
from common.diff.rank_pool import at_once, in_processes
from common.errors import PreconditionError, UsageError

RANKS = 5


def program(rank: int, slower: int = 0) -> Program:
    made = Program()
    for layer in range(6):
        made.operator("mm", [("gemm", 100 + layer + rank), (f"own{rank}", 7)], thread=1)
        made.operator("relu", [("relu", 10 + slower * (rank + 1))], thread=2, stream=8)
    return made


def job(folder: Path, slower: int = 0, name: str = "rank{}.json", ranks: int = RANKS) -> Path:
    folder.mkdir()
    for rank in range(ranks):
        program(rank, slower).write(folder / name.format(rank))
    return folder


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("jobs")
    return job(place / "a"), job(place / "b", slower=3, name="run2_rank-{}.pt.trace.json")


@pytest.fixture(scope="module")
def found(jobs: tuple[Path, Path]) -> Difference:
    return compare_files(*map(str, jobs))


def test_the_sum_is_that_of_the_ranks_exactly(jobs: tuple[Path, Path], found: Difference) -> None:
    alone = [
        compare_files(
            str(jobs[0] / f"rank{rank}.json"), str(jobs[1] / f"run2_rank-{rank}.pt.trace.json")
        )
        for rank in range(RANKS)
    ]
    assert found.residual == 0 and found.delta == sum(one.delta for one in alone) != 0
    assert (found.total_a, found.total_b) == (
        sum(one.total_a for one in alone), sum(one.total_b for one in alone)
    )  # fmt: skip
    by_name: Counter[str] = Counter()
    for one in alone:
        for row in one.rows:
            by_name[row.name] += row.delta
    assert {row.name: row.delta for row in found.rows} == dict(by_name)
    assert found.gaps is not None
    assert found.gaps.delta_ns == sum(one.gaps.delta_ns for one in alone if one.gaps)
    assert found.gaps.a_ns == sum(cause.a_ns for cause in found.gaps.causes)
    for key in ("gpu_time_ns", "busy_ns", "kernels", "events"):
        assert found.a[key] == sum(one.a[key] for one in alone)
    assert "span_ns" not in found.a  # clocks of ranks do not add up


def test_the_laws_hold_in_the_document_of_every_rank(found: Difference) -> None:
    read = json.loads(json.dumps(document(found)))
    assert read["schema"] == "worklog.diff/1" and len(read["ranks"]) == RANKS
    for part in (read, *read["ranks"]):
        rows, left = part["rows"], part["remainders"]
        assert part["residual"] == 0
        assert part["delta"] == part["total_b"] - part["total_a"]
        assert part["delta"] == sum(row["delta"] for row in [*rows, *left])
        assert part["gaps"]["a_ns"] == sum(cause["a_ns"] for cause in part["gaps"]["causes"])
        assert all(row["count_effect"] + row["duration_effect"] == row["delta"] for row in rows)
    for key in ("total_a", "total_b", "delta"):
        assert read[key] == sum(rank[key] for rank in read["ranks"])
    assert [rank["rank"] for rank in read["ranks"]] == ["0", "1", "2", "3", "4"]
    assert read["missing_ranks"] == read["failed_ranks"] == []


def test_the_other_way_round_is_the_negative(jobs: tuple[Path, Path], found: Difference) -> None:
    back = compare_files(str(jobs[1]), str(jobs[0]))
    assert back.delta == -found.delta
    assert {r.name: -r.delta for r in back.rows} == {r.name: r.delta for r in found.rows}
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    verdict = found.judgement.verdict
    assert back.judgement.verdict == opposite.get(verdict, verdict)


def test_a_job_beside_itself_is_the_same_under_any_names(
    jobs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    for rank in range(RANKS):  # packed, named otherwise, made in another order
        data = (jobs[0] / f"rank{RANKS - 1 - rank}.json").read_bytes()
        name = f"host_r{RANKS - 1 - rank:03d}.json.gz"
        (tmp_path / "copy" / name).write_bytes(gzip.compress(data))
    same = compare_files(str(jobs[0]), str(tmp_path / "copy"))
    assert same.judgement.verdict == "SAME" and same.delta == 0
    assert not [row for row in same.rows if row.delta]
    assert len(same.extra["ranks"]) == RANKS


def test_slowest_fastest_and_most_changed_are_named(found: Difference) -> None:
    said = "\n".join(found.notes)
    assert "in A rank 4 has the most" in said and "rank 0 the least" in said
    assert "rank 4 changed most: +90,000, most of it relu (+90,000)" in said


def test_one_slower_rank_makes_the_job_slower_and_says_which(tmp_path: Path) -> None:
    a, b = job(tmp_path / "a", ranks=3), job(tmp_path / "b", ranks=3)
    long = Program()
    for layer in range(6):
        long.operator("mm", [("gemm", 3_000 + layer)])
    long.write(b / "rank1.json")
    found = compare_files(str(a), str(b))
    assert found.judgement.verdict == "SLOWER"
    assert found.judgement.judged_on == "span of rank 1"
    assert found.judgement.reasons[0] == "3 ranks: SAME on ranks 0, 2; SLOWER on rank 1"
    assert compare_files(str(b), str(a)).judgement.verdict == "FASTER"


REAL = {
    "torch": (("bert_small_h100.json.gz", "bert_small_mi300.json.gz"),
              ("tutorial_h100_a.json.gz", "tutorial_h100_b.json.gz")),
    "nsys": (("small_fwd.sqlite.gz", "small_fwd_cl4096.sqlite.gz"),
             ("mock.sqlite.gz", "small_fwd.sqlite.gz")),
    "memory": (("small_fwd_fp32.pickle.gz", "small_fwd_bf16.pickle.gz"),
               ("attn_forward.pickle.gz", "attn_backward.pickle.gz")),
}  # fmt: skip


@pytest.mark.parametrize("format_", REAL)
def test_real_files_of_any_format_add_up(real_data: Path, tmp_path: Path, format_: str) -> None:
    alone = []
    for rank, pair in enumerate(REAL[format_]):
        files = [real_data / format_ / name for name in pair]
        alone.append(compare_files(*map(str, files)))
        for side, file in zip("ab", files, strict=True):
            (tmp_path / side).mkdir(exist_ok=True)
            ending = file.name.partition(".")[2]
            (tmp_path / side / f"job_{side}_rank{rank}.{ending}").symlink_to(file)
    found = compare_files(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.residual == 0 and found.total_a == sum(one.total_a for one in alone)
    assert [rank["delta"] for rank in found.extra["ranks"]] == [one.delta for one in alone]
    assert found.delta == sum(one.delta for one in alone) != 0
    assert not found.extra["failed_ranks"]


# Which file is which rank


def touched(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("a", "b", "ranks"),
    [
        (("x.json", "y.json"), ("x.json", "y.json"), ["x.json", "y.json"]),
        (("rank0.json", "rank10.json", "rank2.json"),) * 2 + (["0", "2", "10"],),
        (("trace_rank_00.json", "trace_rank_01.json"), ("r0.json.gz", "r1.json.gz"), ["0", "1"]),
        (("worker0.17.json", "worker1.18.json"), ("worker0.99.json", "worker1.98.json"),
         ["0", "1"]),
        (("a.0.sqlite", "a.1.sqlite"), ("b.0.sqlite", "b.1.sqlite"), ["0", "1"]),
        (("rank0.sqlite", "rank0.nsys-rep"), ("rank0.sqlite",), ["0"]),
        (("rank0.json", "notes.txt", "-rank1.json"), ("rank0.json", "rank1 x\n.json"), ["0", "1"]),
    ],
)  # fmt: skip
def test_files_are_paired_by_name_and_then_by_rank(
    tmp_path: Path, a: tuple[str, ...], b: tuple[str, ...], ranks: list[str]
) -> None:
    pairs = pair_ranks(touched(tmp_path / "a", *a), touched(tmp_path / "b", *b))
    assert [pair.rank for pair in pairs] == ranks
    assert all(pair.a and pair.b for pair in pairs)


def test_the_rank_that_torch_recorded_tells_files_without_one_in_their_names(
    tmp_path: Path,
) -> None:
    for side, names in (("a", ("ab", "cd")), ("b", ("ef", "gh"))):
        (tmp_path / side).mkdir()
        for rank, name in enumerate(names):
            held = {"schemaVersion": 1, "distributedInfo": {"backend": "nccl", "rank": rank}}
            document = {**held, "traceEvents": program(rank).events}
            (tmp_path / side / f"{name}.json").write_text(json.dumps(document))
    pairs = pair_ranks(tmp_path / "a", tmp_path / "b")
    assert [(p.rank, p.a and p.a.name, p.b and p.b.name) for p in pairs] == [
        ("0", "ab.json", "ef.json"), ("1", "cd.json", "gh.json")
    ]  # fmt: skip


def test_two_files_of_one_rank_are_an_error_that_names_both(tmp_path: Path) -> None:
    a = touched(tmp_path / "a", "rank0.json", "again_rank0.json")
    b = touched(tmp_path / "b", "r0.json")
    with pytest.raises(UsageError, match=r"two files of rank 0, again_rank0\.json and rank0\.json"):
        pair_ranks(a, b)


def test_folders_without_a_common_rank_are_an_error(tmp_path: Path) -> None:
    a, b = touched(tmp_path / "a", "rank0.json"), touched(tmp_path / "b", "rank1.json")
    with pytest.raises(UsageError, match="neither names nor ranks agree"):
        pair_ranks(a, b)


def test_runs_and_folders_of_other_things_are_no_ranks(tmp_path: Path) -> None:
    ranks = touched(tmp_path / "ranks", "rank0.json")
    run = touched(tmp_path / "run", "manifest.json", "rank0.json")
    runs = touched(tmp_path / "runs" / "one", "manifest.json").parent
    other = touched(tmp_path / "other", "notes.txt")
    assert are_rank_folders(str(ranks), str(ranks))
    for folder in (run, runs, other, tmp_path / "none", ranks / "rank0.json"):
        assert not are_rank_folders(str(ranks), str(folder))


# What is missing or broken is named, and in no sum


def test_a_rank_of_one_side_only_is_named_and_fails_a_strict_gate(
    tmp_path: Path, jobs: tuple[Path, Path]
) -> None:
    b = tmp_path / "b"
    shutil.copytree(jobs[0], b)
    (b / "rank3.json").unlink()
    (b / "rank9.json").write_bytes((jobs[0] / "rank0.json").read_bytes())
    found = compare_files(str(jobs[0]), str(b))
    assert found.extra["missing_ranks"] == [
        {"rank": "3", "only_in": "a"}, {"rank": "9", "only_in": "b"}
    ]  # fmt: skip
    assert found.a["ranks"] == found.b["ranks"] == 4 and found.delta == 0
    words = ("diff", str(jobs[0]), str(b), "--fail-on", "gpu_time=0%")
    done = worklog(tmp_path, *words)
    assert done.returncode == 0
    assert "warning: rank 3 is only in A (rank3.json) and in no sum" in done.stderr
    strict = worklog(tmp_path, *words, "--strict")
    assert strict.returncode == 1 and "failed: ranks 3, 9 are on one side only" in strict.stderr


def test_an_unreadable_rank_is_named_and_exit_code_2(
    tmp_path: Path, jobs: tuple[Path, Path]
) -> None:
    b = tmp_path / "b"
    shutil.copytree(jobs[0], b)
    (b / "rank1.json").write_text("{")
    (b / "rank2.json").unlink()
    (b / "rank2.json").symlink_to(tmp_path / "nowhere")
    done = worklog(tmp_path, "diff", str(jobs[0]), str(b), "--json")
    assert done.returncode == 2
    read = json.loads(done.stdout)
    assert [rank["rank"] for rank in read["ranks"]] == ["0", "3", "4"]
    assert [rank["rank"] for rank in read["failed_ranks"]] == ["1", "2"]
    shown = worklog(tmp_path, "diff", str(jobs[0]), str(b))
    assert "warning: rank 1 was not compared" in shown.stderr and "Traceback" not in shown.stderr
    for path in b.iterdir():
        path.unlink()
        path.write_text("{")
    none = worklog(tmp_path, "diff", str(jobs[0]), str(b))
    assert_one_line_error(none, 2)
    assert "none of the 5 ranks can be compared; rank 0" in none.stderr


def test_a_rank_of_another_kind_is_not_added_up(tmp_path: Path, jobs: tuple[Path, Path]) -> None:
    sides = [tmp_path / "a", tmp_path / "b"]
    for side in sides:
        shutil.copytree(jobs[0], side)
        events = [e for e in program(0).events if e["cat"] == "cpu_op"]
        (side / "rank0.json").write_text(json.dumps({"traceEvents": events}))
    found = compare_ranks(*map(str, sides))
    assert [one["rank"] for one in found.extra["failed_ranks"]] == ["0"]
    assert found.quantity == "gpu_time_ns" and found.a["ranks"] == 4


# Pages and gates


def test_every_page_shows_the_sum_and_the_ranks(tmp_path: Path, jobs: tuple[Path, Path]) -> None:
    pages = ("--markdown", "d.md", "--html", "d.html")
    done = worklog(tmp_path, "diff", *map(str, jobs), *pages)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("rank "))
    assert [line.split()[0] for line in lines[at + 2 :]] == ["0", "1", "2", "3", "4", "sum"]
    assert lines[-1].split()[3] == "+0.270000"
    markdown = (tmp_path / "d.md").read_text()
    assert "<summary>By rank</summary>" in markdown and "| sum |" in markdown
    assert "+0.270000" in (tmp_path / "d.html").read_text()
    few = worklog(tmp_path, "diff", *map(str, jobs), "--top", "2").stdout.splitlines()
    assert [line.split()[:2] for line in few[-4:-1]][-1] == ["3", "more"]


def test_gates_judge_the_sum(tmp_path: Path, jobs: tuple[Path, Path]) -> None:
    words = ("diff", *map(str, jobs), "--fail-on")
    assert worklog(tmp_path, *words, "gpu_time=+270us").returncode == 0
    failed = worklog(tmp_path, *words, "gpu_time=+269us")
    assert failed.returncode == 1 and "failed: gpu_time" in failed.stderr
    unknown = worklog(tmp_path, *words, "span=5%")
    assert_one_line_error(unknown, 2)


# The pool


def _noted(item: tuple[Path, int]) -> int:
    folder, number = item
    (folder / str(os.getpid())).touch()
    running = len(list(folder.iterdir()))
    time.sleep(0.05)
    (folder / str(os.getpid())).unlink()
    return 100 * running + number


def _dying(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), 9)
    if number == 3:
        raise UsageError("three; give another")
    return number


def test_no_more_run_at_once_than_asked_for(tmp_path: Path) -> None:
    found = dict(in_processes(_noted, [(tmp_path, number) for number in range(9)], 3))
    assert sorted(v % 100 for v in found.values() if isinstance(v, int)) == list(range(9))
    assert max(v // 100 for v in found.values() if isinstance(v, int)) in (2, 3)


@pytest.mark.parametrize("most", [2, 4])
def test_a_process_that_dies_costs_only_its_own_item(most: int) -> None:
    found = dict(in_processes(_dying, range(5), most))
    assert [found[n] for n in (0, 1, 4)] == [0, 1, 4]
    assert isinstance(found[2], PreconditionError) and "code -9" in str(found[2])
    assert isinstance(found[3], UsageError)


def test_large_ranks_run_one_after_the_other() -> None:
    assert at_once([1 << 60] * 64) == 1 and at_once([]) == 1
    assert at_once([1] * 64) == min(64, len(os.sched_getaffinity(0)))
