"""What all tests share, and the guard over what may be left out.

In CI (WORKLOG_CI is set) a skip whose reason is not on the list below fails the run: a check that
is silently not done must not look like one that passed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# What measures time, or takes both cores itself, is run by itself; the rest two at a time.
ALONE: tuple[str, ...] = (
    "tests/experiments/test_bench.py",
    "tests/experiments/test_capture.py",
    "tests/floors/test_measure.py",
    "tests/problems/test_float8_weight_only.py",
    "tests/problems/test_fused_float8_cpu.py",
    "tests/test_cli.py",
    "tests/test_cli_diff_files.py",
    "tests/timing/test_worker.py",
    "tests/workloads/test_expert_parallel.py",
)

KNOWN_REASONS: tuple[str, ...] = (
    "ncu-report is not installed",  # NVIDIA's optional package, not there for every Python
    "a small file system cannot be mounted here",  # needs root
    "this system has no transparent huge pages",  # a setting of the host
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real profiler files; skips where there is none."""
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        pytest.skip("WORKLOG_TEST_DATA is not set")
    return Path(place)


_unexpected: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and os.environ.get("WORKLOG_CI"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "no reason"
        if not any(known in reason for known in KNOWN_REASONS):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected:
        print("\nskipped for a reason that is not on the list in tests/conftest.py:")
        print("\n".join(_unexpected))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(item.config.rootpath).as_posix() in ALONE:
            item.add_marker(pytest.mark.alone)
