"""What does a named range cost, with nobody listening, under torch.profiler and under nsys?

    python tests/benchmarks/bench_ranges.py

The least of many short series, in ns per range; under nsys in a process of its own. Not a test:
`tests/recording/test_ranges.py` holds the limit of 1000 ns untraced.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

from common.recording.ranges import TRACED, named_range


def one() -> None:
    with named_range("decode"):
        pass


def least_ns(series: int = 400) -> float:
    return min(timeit.repeat(one, number=500, repeat=series)) / 500 * 1e9


def main() -> None:
    if "--alone" in sys.argv:
        print(f"under nsys ({TRACED}): {least_ns(40):.0f} ns")
        return
    print(f"untraced, no torch: {least_ns():.0f} ns")
    import torch

    print(f"untraced, torch loaded: {least_ns():.0f} ns")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        print(f"under torch.profiler: {least_ns(40):.0f} ns")
    nsys = shutil.which("nsys")
    if nsys is None:
        print("nsys is not installed here")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [nsys, "profile", "-t", "nvtx", "-s", "none", "--cpuctxsw=none"]
        program = [sys.executable, __file__, "--alone"]
        done = subprocess.run(
            [*command, "-o", str(Path(folder) / "report"), *program],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    print(next(line for line in done.stdout.splitlines() if line.startswith("under nsys")))


if __name__ == "__main__":
    main()
