"""Does every program beside the package still start? Benchmarks and fuzzers are run by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.document_commands import ROOT

PROGRAMS = sorted(
    path
    for folder in ("tests/benchmarks", "tests/fuzz", "tests/faults", "docker", "notebooks")
    for path in (ROOT / folder).glob("*.py")
    if "argparse.ArgumentParser" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_it_says_what_it_does(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_there_are_such_programs() -> None:
    assert {"bench_diff.py", "bench_scale.py", "long_run.py", "kills.py"} <= {
        path.name for path in PROGRAMS
    }
