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
import json, resource, subprocess, sys, time
begin = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
wall = time.perf_counter() - begin
used = resource.getrusage(resource.RUSAGE_CHILDREN)
last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, done.returncode,
                  last[0] if last else ""]))
"""


# Compiled modules are kept between runs, as on any user's machine.
_NOT_PASSED_ON = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_bytes: int

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        peak = max(self.peak_bytes, other.peak_bytes)
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, peak)


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
    wall, cpu, peak, code, says = json.loads(done.stdout)
    if code:
        raise Failed(says or f"exit code {code}")
    return Cost(wall, cpu, peak)


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

    A first round is thrown away: it compiles modules and brings the files into memory.
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


def medians(costs: Mapping[str, list[Cost]]) -> dict[str, dict[str, float]]:
    """Medians of the times, the largest of the peaks."""
    return {
        name: {
            "wall_s": round(statistics.median(cost.wall_s for cost in found), 3),
            "cpu_s": round(statistics.median(cost.cpu_s for cost in found), 3),
            "peak_mib": round(max(cost.peak_bytes for cost in found) / (1 << 20)),
            "runs": len(found),
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
