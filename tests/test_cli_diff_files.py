"""`worklog diff` on files, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import CHECKOUT, assert_one_line_error, command, environment, worklog
from helpers.trace_files import call, document, kernel, write


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two traces; in the second `slow<b>\\x1b[31m` takes 30 us longer."""
    place = tmp_path_factory.mktemp("pair")
    traces = []
    for name, duration in (("a.json", "10.5"), ("b.json", "40.5")):
        events = (
            call("cudaLaunchKernel", "1", "1", 1),
            kernel("fast", "5", "2.001", 1),
            call("cudaLaunchKernel", "8", "1", 2),
            kernel("slow<b>\x1b[31m", "10", duration, 2),
        )
        traces.append(write(place / name, document(*events)))
    return traces[0], traces[1]


def test_two_files_are_told_apart_by_the_kernel_that_differs(pair: tuple[Path, Path]) -> None:
    done = worklog(pair[0].parent, "diff", *map(str, pair))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "+0.030000" in done.stdout and "slow<b>\\x1b[31m" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    read = json.loads(worklog(pair[0].parent, "diff", *map(str, pair), "--json").stdout)
    assert read["delta"] == 30_000 and read["residual"] == 0
    assert [r["name"] for r in read["by_name"] if r["delta"]] == ["slow<b>\x1b[31m"]


def test_a_file_against_itself_is_the_same(pair: tuple[Path, Path]) -> None:
    options = ("--json", "--fail-on", "slower=0%,gpu_time=0%", "--strict")
    done = worklog(pair[0].parent, "diff", str(pair[0]), str(pair[0]), *options)
    read = json.loads(done.stdout)
    assert (done.returncode, read["verdict"], read["delta"]) == (0, "SAME", 0)
    assert all(r["delta"] == 0 for r in read["rows"])


def test_a_bound_that_is_passed_is_exit_code_1(pair: tuple[Path, Path]) -> None:
    done = worklog(pair[0].parent, "diff", *map(str, pair), "--fail-on", "gpu_time=+29us")
    assert done.returncode == 1 and "failed: gpu_time" in done.stderr
    assert (
        worklog(pair[0].parent, "diff", *map(str, pair), "--fail-on", "gpu_time=+30us").returncode
        == 0
    )


def test_what_cannot_be_read_is_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for other in (tmp_path / "absent", tmp_path, write(tmp_path / "empty", "")):
        done = worklog(tmp_path, "diff", str(pair[0]), str(other), "--json")
        assert_one_line_error(done, 2)
        assert done.stdout == ""


def test_a_diff_imports_neither_torch_nor_pandas(pair: tuple[Path, Path]) -> None:
    code = (
        f"import sys; from common.cli import main; main({['diff', *map(str, pair)]!r}); "
        "sys.exit(7 if {'torch', 'pandas'} & sys.modules.keys() else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(CHECKOUT), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_diff_starts_about_as_fast_as_reading_one_file(pair: tuple[Path, Path]) -> None:
    seconds: dict[str, list[float]] = {"show": [], "diff": []}
    for _ in range(5):
        for name, files in (("show", pair[:1]), ("diff", pair)):
            began = time.perf_counter()
            assert worklog(pair[0].parent, name, *map(str, files)).returncode == 0
            seconds[name].append(time.perf_counter() - began)
    assert statistics.median(seconds["diff"]) <= 2 * statistics.median(seconds["show"]) + 0.1


def on_terminal(arguments: list[str], **more: str) -> str:
    """What a process writes to a terminal of its own."""
    there, here = pty.openpty()
    with subprocess.Popen(
        command(*arguments),
        stdout=here,
        stderr=subprocess.DEVNULL,
        env=environment(CHECKOUT, **more),
    ) as process:
        os.close(here)
        seen = b""
        while True:
            try:
                part = os.read(there, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
        assert process.wait(60) == 0
    os.close(there)
    return seen.decode()


def test_colour_is_for_terminals_and_can_be_refused(pair: tuple[Path, Path]) -> None:
    arguments = ["diff", *map(str, pair)]
    painted = on_terminal(arguments, TERM="xterm", NO_COLOR="")
    assert "\x1b[31m+0.030000\x1b[0m" in painted and "slow<b>\\x1b[31m" in painted
    assert "\x1b" not in on_terminal(arguments, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in on_terminal(arguments, TERM="dumb", NO_COLOR="")


def test_a_terminal_that_knows_only_ascii_still_gets_the_result(pair: tuple[Path, Path]) -> None:
    done = worklog(pair[0].parent, "diff", *map(str, pair), PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "residual 0" in done.stdout
