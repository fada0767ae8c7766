"""What does one whole process cost? Wall and CPU seconds and the most memory it held.

A small process of its own starts the measured one and asks the system about its children, so that
no memory of the benchmark itself is counted.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_WRAPPER = """
import json, os, resource, subprocess, sys, tempfile, threading, time

def resident(process):
    total = 0
    try:
        with open(f"/proc/{process}/statm") as stream:
            total = int(stream.read().split()[1]) * resource.getpagesize()
        for task in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{task}/children") as stream:
                total += sum(map(resident, stream.read().split()))
    except OSError:
        pass
    return total

peak, ended = 0, threading.Event()

def look():
    global peak
    while not ended.wait(0.05):
        peak = max(peak, resident(process.pid))

begin = time.perf_counter()
said = tempfile.TemporaryFile()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=said)
watching = threading.Thread(target=look)
watching.start()
process.wait()
wall = time.perf_counter() - begin
ended.set()
watching.join()
said.seek(0)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, process.returncode,
                  last[0] if last else "", max(peak, used.ru_maxrss * 1024)]))
"""


# Compiled modules are kept between runs, as on any user's machine.
_NOT_PASSED_ON = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Cost:
    """`peak_bytes` is the largest process's, `tree_peak_bytes` the largest sum of all of them."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    tree_peak_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        peak = max(self.peak_bytes, other.peak_bytes)
        tree = max(self.tree_peak_bytes, other.tree_peak_bytes)
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, peak, tree)


class Failed(Exception):
    """The measured process failed; the last line that it wrote."""


def cost_of(command: Sequence[str], limit_s: float = 600.0) -> Cost:
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON}
    environment["PYTHONPATH"] = str(ROOT)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _WRAPPER, *command],
            env=environment, capture_output=True, text=True, timeout=limit_s, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Failed(f"stopped after {limit_s:.0f} s") from error
    wall, cpu, peak, code, says, tree = json.loads(done.stdout)
    if code:
        raise Failed(says or f"exit code {code}")
    return Cost(wall, cpu, peak, tree)


@dataclass(frozen=True)
class Subject:
    """One thing to measure: its commands run one after the other."""

    name: str
    commands: tuple[tuple[str, ...], ...]

    def cost(self) -> Cost:
        total = Cost(0.0, 0.0, 0)
        for command in self.commands:
            total += cost_of(command)
        return total


def interleaved(
    subjects: Sequence[Subject], rounds: int
) -> tuple[dict[str, list[Cost]], dict[str, str]]:
    """({name: costs}, {name: why it failed}): all of them in turn within each round.

    What stands there several times is measured several times in each round. A first round is thrown
    away: it compiles modules and brings the files into memory.
    """
    costs: dict[str, list[Cost]] = {}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        for subject in subjects:
            if subject.name in failed:
                continue
            try:
                cost = subject.cost()
                if number:
                    costs.setdefault(subject.name, []).append(cost)
            except Failed as error:
                failed[subject.name] = str(error)
                costs.pop(subject.name, None)
    return costs, failed


def medians(costs: Mapping[str, list[Cost]]) -> dict[str, dict[str, Any]]:
    """Medians of the times and all wall times in measured order, the largest of the peaks."""
    return {
        name: {
            "wall_s": round(statistics.median(cost.wall_s for cost in found), 3),
            "cpu_s": round(statistics.median(cost.cpu_s for cost in found), 3),
            "peak_mib": round(max(cost.peak_bytes for cost in found) / (1 << 20)),
            "runs": len(found),
            "walls_s": [round(cost.wall_s, 3) for cost in found],
        }
        for name, found in costs.items()
    }


def about(command: str) -> dict[str, Any]:
    """When and on what it was measured."""
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        models = [line.partition(":")[2].strip() for line in stream if "model name" in line]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "command": command,
    }
