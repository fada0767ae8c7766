"""How many damaged files are survived? The long run, with a recorded seed; and one case by number.

    python tests/fuzz/long_run.py --cases 1000000 --seed 11 --out RESULT.json
    python tests/fuzz/long_run.py --seed 11 --one 123456          (shows the case and its fault)

Where WORKLOG_TEST_DATA names the folder of real files, about a third of the cases start from
slices of those (`real_seeds.py`); their hashes are in the result, because a case is made again
from (seed, number) and the same files.

Cases run in a process of their own: one that is killed (a crash in C code, more than ten CPU
seconds for one case) is a fault like any other, and the run goes on behind it. The numbers that
are printed at the end are what was run, not what was meant to be.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz.real_seeds import RealSeed

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

LONGEST_CPU_SECONDS = 10
MEMORY_FACTOR = 4
TRACED_EVERY = 1000  # tracemalloc makes a case several times as slow
SMALLEST_TRACED_BYTES = 1 << 20
BATCH = 5_000
SEEDS = "seeds.pickle"


@cache
def real_seeds() -> list[RealSeed]:
    """Slices of the real files, where there are any; of our own compiled kernels always."""
    from fuzz.real_seeds import cut_all

    return cut_all(
        Path(os.environ.get("WORKLOG_TEST_DATA") or os.devnull), ROOT / "tests" / "data/compiled"
    )


def work(
    seed: int, start: int, stop: int, report: Path, status: Path, real: Sequence[RealSeed]
) -> None:
    """Run cases [start, stop) and append what was found; the status file says how far it got."""
    from fuzz.cases import GOOD, make
    from fuzz.oracle import THOROUGH_EVERY, Fault, Judge

    from common.memory import peak_resident_bytes

    good = {**GOOD, **{one.name: one.data for one in real}}
    judge = Judge(good)
    with status.open("r+b") as stream, mmap.mmap(stream.fileno(), 8) as place:
        faults: list[dict[str, Any]] = []
        base = {name: judge.peak_bytes(data) for name, data in good.items()}
        before = peak_resident_bytes()
        slowest, highest, from_real = 0.0, 0.0, 0
        for number in range(start, stop):
            place[:8] = number.to_bytes(8, "little")
            signal.setitimer(signal.ITIMER_PROF, LONGEST_CPU_SECONDS)
            began = time.process_time()
            case = make(seed, number, real=real)
            from_real += bool(case.seed)
            origin = case.seed or case.format
            try:
                judge.judge(case, number % THOROUGH_EVERY == 0)
                if number % TRACED_EVERY == 0 and origin in base:
                    allowed = max(SMALLEST_TRACED_BYTES, MEMORY_FACTOR * base[origin])
                    grown = MEMORY_FACTOR * max(0, len(case.data) - len(good[origin]))
                    used = judge.peak_bytes(case.data)
                    highest = max(highest, used / (allowed + grown))
                    if used > allowed + grown:
                        raise Fault(f"{used} bytes held, {allowed + grown} allowed")
            except Fault as fault:
                faults.append(
                    {
                        "number": number,
                        "real_file": case.seed,
                        "changes": list(case.changes),
                        "fault": str(fault)[:400],
                    }
                )
            slowest = max(slowest, time.process_time() - began)
        signal.setitimer(signal.ITIMER_PROF, 0)
        after = peak_resident_bytes()
        if after > MEMORY_FACTOR * before:
            says = f"the process grew from {before} to {after} bytes"
            faults.append({"number": stop - 1, "changes": [], "fault": says})
        line = {
            "cases": stop - start, "from_real_files": from_real, "faults": faults,
            "outcomes": dict(judge.outcomes),
            "slowest_s": round(slowest, 3), "memory_ratio": round(after / before, 3),
            "traced_share_of_limit": round(highest, 3), "cpu_s": round(time.process_time(), 1),
        }  # fmt: skip
    judge.close()
    with report.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def run(
    seed: int, first: int, cases: int, out: Path | None, real: Sequence[RealSeed] | None = None
) -> dict[str, Any]:
    """Run them batch by batch; the result so far is written after every batch."""
    if real is None:
        real = real_seeds()
    total: dict[str, Any] = {
        "seed": seed, "first": first, "cases": 0, "from_real_files": 0, "outcomes": Counter(),
        "faults": [],
        "killed": 0, "slowest_s": 0.0, "memory_ratio": 0.0, "traced_share_of_limit": 0.0,
        "cpu_s": 0.0, "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(), "machine": machine(),
        "real_files": {one.name: one.sha256 for one in real},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="worklog-fuzz-") as folder:
        status = Path(folder) / "status"
        (Path(folder) / SEEDS).write_bytes(pickle.dumps(list(real)))
        at, end = first, first + cases
        while at < end:
            at = _batch(total, seed, at, min(end, at + BATCH), Path(folder), status)
            if out is not None:
                out.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
            print(
                f"{total['cases']} cases, {len(total['faults'])} faults, {total['cpu_s']} CPU s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return total


def _batch(
    total: dict[str, Any], seed: int, start: int, stop: int, folder: Path, status: Path
) -> int:
    """Where to go on: `stop`, or behind the case that ended the process."""
    report = folder / "report.jsonl"
    report.unlink(missing_ok=True)
    status.write_bytes(start.to_bytes(8, "little"))
    own = [sys.executable, __file__, "--seed", str(seed), "--worker", str(start), str(stop)]
    done = subprocess.run(
        [*own, str(report), str(status)], check=False, stderr=subprocess.PIPE, text=True
    )
    if done.returncode == 0:
        for line in report.read_text(encoding="utf-8").splitlines():
            _add(total, json.loads(line))
        return stop
    reached = int.from_bytes(status.read_bytes(), "little")
    if done.returncode > 0:
        sys.exit(f"the harness itself failed at case {reached}:\n{done.stderr[-2000:]}")
    how = {-signal.SIGPROF: f"more than {LONGEST_CPU_SECONDS} CPU seconds"}
    says = how.get(done.returncode, f"signal {-done.returncode}")
    total["faults"].append({"number": reached, "changes": [], "fault": says})
    total["killed"] += 1
    total["cases"] += reached + 1 - start
    return reached + 1


def _add(total: dict[str, Any], line: dict[str, Any]) -> None:
    total["cases"] += line["cases"]
    total["from_real_files"] += line["from_real_files"]
    total["outcomes"].update(line["outcomes"])
    total["faults"] += line["faults"]
    total["cpu_s"] = round(total["cpu_s"] + line["cpu_s"], 1)
    for key in ("slowest_s", "memory_ratio", "traced_share_of_limit"):
        total[key] = max(total[key], line[key])


def machine() -> str:
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{os.cpu_count()} CPUs, {model}"


def one(seed: int, number: int) -> int:
    from fuzz.cases import GOOD, make
    from fuzz.oracle import Fault, Judge

    real = real_seeds()
    case = make(seed, number, real=real)
    print(f"{case.seed or case.format}: {'; '.join(case.changes)} ({len(case.data)} bytes)")
    judge = Judge({**GOOD, **{one.name: one.data for one in real}})
    try:
        judge.judge(case, thorough=True)
    except Fault as fault:
        print(f"fault: {fault}")
        return 1
    finally:
        judge.close()
    print(dict(judge.outcomes))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, metavar="NUMBER")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        start, stop, report, status = given.worker
        real = pickle.loads(Path(report).with_name(SEEDS).read_bytes())  # our own parent wrote it
        work(given.seed, int(start), int(stop), Path(report), Path(status), real)
        return 0
    if given.one is not None:
        return one(given.seed, given.one)
    total = run(given.seed, given.first, given.cases, given.out)
    print(json.dumps(total, indent=1))
    return 1 if total["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
