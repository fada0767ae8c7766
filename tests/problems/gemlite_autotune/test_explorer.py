"""The explorer: everything compiled once, failures kept to themselves, real kernels at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import PreconditionError, UsageError
from common.traces.compiled_kernel import parse_compiled, read_compiled
from problems.gemlite_autotune import explorer
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.explored_table import explored_table
from problems.gemlite_autotune.explorer import Cache, Outcome, explore, lots_of
from problems.gemlite_autotune.jobs import Job, parse_job, space_jobs, winner_job
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.ranking import rank
from problems.gemlite_autotune.shipped_tables import Config, shipped_tables
from problems.gemlite_autotune.static_metrics import (
    atomics,
    bytes_in_flight,
    load_widths,
    metrics,
    split_traffic,
    steps,
)

W4 = Layer(4096, 4096, "a16w4", 128)
WINNER = Config(16, 128, 64, warps=8, stages=1, split_k=16, a_order=2, group_m=8)
DATA = Path(__file__).parents[2] / "data" / "compiled"
# What a compiler does as a job's number of warps says, in place of compiling. The server that
# forks it, and what happens when it dies, are the real ones.
STAND_IN = """
import contextlib, json, os, time
def preload(): pass
@contextlib.contextmanager
def for_gpu(gpu):
    if gpu == "h200-sxm":
        raise ImportError("No module named 'gemlite'")
    yield
def one(job):
    warps = job["config"]["warps"]
    if warps == 1:
        os._exit(11)
    if warps == 2:
        return {"failed": "CompilationError: no such layout"}
    if warps == 16:
        os.kill(os.getpid(), 11)
    if warps == 32:
        time.sleep(60)
    template = json.loads(open(os.environ["STAND_IN_TEMPLATE"]).read())
    with open(os.environ["STAND_IN_LOG"], "a") as log:
        log.write("compiled\\n")
    return {"compiled": {**template, "job": job, "seconds": {"cpu": 0.5}}}
def answer(request):
    return {"answers": [one(job) for job in request["jobs"]]}
"""
WORK = "stand_in_work"


def job(warps: int, stages: int = 1) -> Job:
    return Job("rtx-4090", W4, 8, "GEMM_SPLITK", Config(16, 64, 64, warps, stages, split_k=4))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / f"{WORK}.py").write_text(STAND_IN)
    log = tmp_path / "log"
    log.touch()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("STAND_IN_TEMPLATE", str(DATA / "winner_4090.json"))
    monkeypatch.setenv("STAND_IN_LOG", str(log))
    return log


def test_a_compiler_that_dies_takes_only_its_own_job(stand_in: Path, tmp_path: Path) -> None:
    jobs = [job(4), job(1), job(2), job(8), job(16)]  # all in one lot
    found = explore(jobs, folder=tmp_path / "cache", workers=1, work=WORK)
    assert [outcome.job for outcome in found] == jobs
    assert [outcome.kernel is not None for outcome in found] == [True, False, False, True, False]
    assert found[1].failure == "the compiler ended with code 11"
    assert found[2].failure == "CompilationError: no such layout"
    assert found[4].failure == "the compiler ended with signal 11"
    table = explored_table(found).text()
    assert "no kernel: CompilationError: no such layout" in table


def test_a_compiler_that_hangs_is_given_up(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer, "JOB_SECONDS", 1.0)
    found = explore([job(32), job(8)], folder=tmp_path / "cache", workers=1, work=WORK)
    assert found[0].failure == "the compiler was stopped after 1 s"
    assert found[1].kernel is not None


def test_compilers_that_do_not_start_are_said_in_one_line(stand_in: Path, tmp_path: Path) -> None:
    elsewhere = replace(job(4), gpu="h200-sxm")
    with pytest.raises(UsageError, match=r"for h200-sxm does not start \(ImportError"):
        explore([elsewhere], folder=tmp_path / "cache", work=WORK)
    with pytest.raises(UsageError, match=r"does not start .*; run \./run\.sh setup"):
        explore([job(4)], folder=tmp_path / "cache", work="no_such_module")


def test_what_is_in_the_cache_is_not_compiled_again(stand_in: Path, tmp_path: Path) -> None:
    jobs = [job(4), job(8), job(2), job(1)]
    explore(jobs, folder=tmp_path / "cache", workers=2, work=WORK)
    before = stand_in.read_text().count("compiled")
    said: list[str] = []

    def say(text: str, done: int) -> None:
        said.append(text)

    again = explore(jobs, say, tmp_path / "cache", 2, WORK)
    assert stand_in.read_text().count("compiled") == before
    assert [outcome.cached for outcome in again] == [True, True, True, False]
    assert said[0] == "3 of 4 in the cache"  # the one that died is tried again


def test_lots_share_a_start_of_the_disassembler_and_hold_every_job_once() -> None:
    jobs = space_jobs("rtx-4090", W4, 8, "fast")
    lots = lots_of(jobs)
    assert sorted(str(each) for lot in lots for each in lot) == sorted(map(str, jobs))
    assert len(lots) == 3 and max(map(len, lots)) <= explorer.LOT
    sizes = [lot[0].config.block_n * lot[0].config.block_k for lot in lots]
    assert min(sizes) == max(each.config.block_n * each.config.block_k for each in jobs)


@pytest.mark.parametrize("damage", ["", "{", "null", '{"job": 3}', "whole[:200]", "other job"])
def test_a_corrupt_entry_is_rebuilt(stand_in: Path, tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path / "cache")
    explore([job(4)], folder=cache.folder, workers=1, work=WORK)
    path = cache.path(job(4))
    whole = path.read_text()
    if damage == "other job":
        document = json.loads(whole)
        document["job"]["m"] = 9
        path.write_text(json.dumps(document))
    else:
        path.write_text(whole[:200] if damage == "whole[:200]" else damage)
    assert cache.get(job(4)) is None
    (found,) = explore([job(4)], folder=cache.folder, workers=1, work=WORK)
    assert not found.cached and found.kernel is not None
    assert stand_in.read_text().count("compiled") == 2
    assert cache.get(job(4)) is not None


def test_a_job_survives_its_journey_and_has_a_name_of_its_own() -> None:
    jobs = space_jobs("rtx-4090", W4, 8, "fast")
    assert [parse_job(json.loads(json.dumps(each.to_json()))) for each in jobs] == jobs
    assert len({each.key for each in jobs}) == len(jobs) == 17
    assert job(4).key != job(4, stages=2).key


def test_winners_of_one_gpu_can_be_compiled_for_another() -> None:
    found = winner_job("h200-sxm", W4, 8, shipped_tables(), "rtx-4090")
    assert found is not None and (found.gpu, found.config) == ("h200-sxm", WINNER)
    assert winner_job("h200-sxm", W4, 8, shipped_tables()) is None


def test_what_is_counted_from_the_tile() -> None:
    assert steps("GEMM_SPLITK", W4, WINNER) == 4
    tile = 16 * 64 * 2 + 64 * 128 // 2
    assert bytes_in_flight("GEMM_SPLITK", W4, WINNER) == tile
    five = Config(16, 128, 64, warps=8, stages=5, split_k=4)
    assert bytes_in_flight("GEMM_SPLITK", W4, five) == 4 * tile
    assert split_traffic("GEMM_SPLITK", W4, 8, WINNER, 2) == 17 * 8 * 4096 * 2
    assert split_traffic("GEMM", W4, 128, Config(64, 32, 128, 8, 1), 2) == 0
    row = Config(1, 512, 32, warps=4, stages=2)
    assert split_traffic("GEMV_REVSPLITK", W4, 1, row, 2) == 65 * 4096 * 2
    assert bytes_in_flight("GEMV_REVSPLITK", W4, row) == 2 * (32 * 2 + 32 * 512 // 2)


def test_loads_and_atomics_are_told_apart() -> None:
    assert load_widths({"LDG.E.128": 3, "LDG.E.U16": 2, "LDGSTS.E.BYPASS.128": 1, "LDS": 9}) == {
        "2": 2,
        "16": 4,
    }
    assert atomics({"RED.E.ADD.F16x2.RN.STRONG.GPU": 1}) == "red"
    assert atomics({"ATOMG.E.CAS.STRONG.GPU": 1, "RED.E.ADD": 1}) == "compare-and-swap"
    assert atomics({"STG.E.128": 4}) == "none"


def test_a_kernel_that_cannot_launch_is_found_before_any_gpu_sees_it() -> None:
    resources = {"registers": 199, "stack_bytes": 0, "shared_bytes": 101_377, "threads": 128}
    found = metrics(
        describe("rtx-4090"), "GEMM_SPLITK", W4, 8, WINNER, (32, 4), resources, {"LDG": 1}, 2
    )
    assert found["can_launch"] is False and "waves" not in found
    assert found["refused"] == ("needs 101377 bytes of shared memory, a block may have 101376")
    fits = {**resources, "shared_bytes": 101_376}
    assert metrics(
        describe("rtx-4090"), "GEMM_SPLITK", W4, 8, WINNER, (32, 4), fits, {"LDG": 1}, 2
    )["blocks_per_sm"] == 1  # fmt: skip


def test_the_rank_counts_programs_once_and_ties_apart() -> None:
    kernel = read_compiled(DATA / "winner_4090.json")
    document = kernel.to_json()

    def variant(occupancy: float, program: str, warps: int) -> tuple[Job, Any]:
        changed = json.loads(json.dumps(document))
        changed["metrics"]["occupancy"] = occupancy
        changed["facts"]["program_sha256"] = program
        return job(warps), parse_compiled(changed, "test")

    wanted = variant(0.5, "a", 4)
    pool = [wanted, variant(0.5, "a", 8), variant(0.9, "b", 2), variant(0.5, "c", 16)]
    found = {each.order: each for each in rank(wanted[0], pool, describe("rtx-4090"))}
    best = found["occupancy"]
    assert (best.rank, best.ties, best.of) == (2, 1, 3)


def test_a_process_serves_one_gpu_only(environment: dict[str, str]) -> None:
    code = (
        "from problems.gemlite_autotune.described_device import described\n"
        "from problems.gemlite_autotune.devices import describe\n"
        "import torch\n"
        "before = torch.cuda.get_device_properties\n"
        "with described(describe('rtx-4090')):\n"
        "    assert torch.cuda.get_device_capability() == (8, 9)\n"
        "assert torch.cuda.get_device_properties is before\n"
        "with described(describe('h200-sxm')): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert PreconditionError.__name__ in done.stderr.splitlines()[-1]
    assert "start another for h200-sxm" in done.stderr


@pytest.mark.slow
def test_real_kernels_are_compiled_for_three_architectures(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The shipped winner for 8 rows, and one row, by GemLite's own forward."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from problems.gemlite_autotune.explorer import explore\n"
        "from problems.gemlite_autotune.jobs import Job, winner_job\n"
        "from problems.gemlite_autotune.layers import Layer\n"
        "from problems.gemlite_autotune.shipped_tables import shipped_tables\n"
        "layer, tables = Layer(4096, 4096, 'a16w4', 128), shipped_tables()\n"
        "jobs = [winner_job(g, layer, 8, tables, 'rtx-4090')\n"
        "        for g in ('rtx-4090', 'h200-sxm', 'rtx-5090')]\n"
        "found = explore(jobs, folder=Path(sys.argv[1]), workers=1)\n"
        "print(json.dumps([o.kernel.to_json() if o.kernel else o.failure for o in found]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, env=environment, check=True, timeout=500,
    )  # fmt: skip
    kernels = [parse_compiled(each, "answer") for each in json.loads(done.stdout)]
    assert [kernel.architecture for kernel in kernels] == ["sm_89", "sm_90", "sm_120"]
    assert kernels[0].to_json() == read_compiled(DATA / "winner_4090.json").to_json()
    assert all(kernel.count("HMMA") for kernel in kernels)
    assert all(kernel.by_class().get("other", 0) == 0 for kernel in kernels)
    assert Outcome(jobs_of_one(), kernels[0], None, 0.0, False).can_launch


def jobs_of_one() -> Job:
    return Job("rtx-4090", W4, 8, "GEMM_SPLITK", WINNER)
