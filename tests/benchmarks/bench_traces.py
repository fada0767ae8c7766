"""How long does reading a trace take, beside the least that any reader needs?

    python tests/benchmarks/bench_traces.py [FILE …] [--events 100000 --events 1000000] [--rounds 5]

Every reader runs as a whole process, all of them in turn within a round, so that a busy machine
slows all alike; the table shows medians and the ratio to `msgspec`, a bare typed decode of five
fields with float times, which is the lower bound. Not a test: nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BARE = """
import mmap, sys
import msgspec
class Event(msgspec.Struct, gc=False):
    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
class File(msgspec.Struct, gc=False):
    traceEvents: list[Event]
with open(sys.argv[1], "rb") as stream:
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    print(len(msgspec.json.decode(data, type=File).traceEvents))
"""
OURS = """
import os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from pathlib import Path
from common.traces.formats import open_trace
print(open_trace(Path(sys.argv[1])).events)
"""
PLAIN = "import json, sys; print(len(json.load(open(sys.argv[1]))['traceEvents']))"
ORJSON = (
    "import orjson, sys; print(len(orjson.loads(open(sys.argv[1], 'rb').read())['traceEvents']))"
)


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_bytes: int
    printed: str


def run(code: str, path: Path) -> Cost:
    """One process: its wall and CPU time and the most memory that it held."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read().strip()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"a reader failed on {path.name} with exit code {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, printed)


def measure(path: Path, readers: dict[str, str], rounds: int) -> list[str]:
    """Rows of the table for one file."""
    costs: dict[str, list[Cost]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, code in readers.items():
            costs[name].append(run(code, path))
    counted = {cost.printed for found in costs.values() for cost in found}
    if len(counted) != 1:
        raise SystemExit(f"the readers disagree about the events of {path.name}: {counted}")
    bound = statistics.median(cost.wall_s for cost in costs["msgspec"])
    rows = []
    for name, found in costs.items():
        wall = statistics.median(cost.wall_s for cost in found)
        cpu = statistics.median(cost.cpu_s for cost in found)
        peak = max(cost.peak_bytes for cost in found) / (1 << 20)
        size = path.stat().st_size / 1e6
        rows.append(
            f"| {path.name} | {size:,.1f} | {int(counted.copy().pop()):,} | {name} | {wall:.3f} | "
            f"{cpu:.3f} | {wall / bound:.2f} | {peak:,.0f} |"
        )
    return rows


def generate(folder: Path, events: int) -> Path:
    path = folder / f"generated_{events}.json"
    command = [sys.executable, str(HERE / "generate_trace.py"), str(events), str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="traces that are not gzipped")
    parser.add_argument("--events", action="append", type=int, help="size of a generated trace")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bounds-only", action="store_true", help="leave the slow readers out")
    given = parser.parse_args()
    readers = {"ours": OURS, "msgspec": BARE}
    if not given.bounds_only:
        readers["json"] = PLAIN
        if importlib.util.find_spec("orjson"):
            readers["orjson"] = ORJSON
    print("| file | MB | events | reader | wall s | CPU s | ratio | peak MiB |")
    print("|---|--:|--:|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        sizes = given.events or ([] if given.files else [100_000, 1_000_000])
        for path in [*given.files, *(generate(Path(folder), events) for events in sizes)]:
            print("\n".join(measure(path, readers, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
