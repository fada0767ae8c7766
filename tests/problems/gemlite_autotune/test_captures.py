"""What the profilers are told, as text: thirty launches of one configuration, in its range."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common.contract.problem import load_problem, read_problem
from common.errors import UsageError

PROBLEM = load_problem("gemlite_autotune")
CAPTURED = ["gpu-default", "gpu-shipped", "gpu-tuned"]


def dry(tool: str, *arguments: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", tool, "gemlite_autotune", "--dry-run", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_ncu_is_aimed_at_a_few_launches_of_gemlites_kernel_in_the_range() -> None:
    lines = dry("ncu")
    measured = [words for words in lines if "--nvtx" in words]
    assert [value(words, "--variant") for words in measured] == CAPTURED
    for words in measured:
        assert value(words, "--nvtx-include") == "worklog@launch/"
        assert value(words, "--kernel-name") == "regex:(gemm_|gemv_)"
        assert value(words, "--launch-count") == "5"
        assert value(words, "--device") == "cuda" and value(words, "--preset") == "cpu"
        assert Path(words[words.index("--variant") - 1]).name == "repro.py"
    assert sum("--import" in words for words in lines) == 3  # and each is exported as a table


def test_nsys_takes_both_modes_of_each_and_only_what_was_named() -> None:
    lines = dry("nsys")
    modes = [word for words in lines for word in words if word.startswith("--cuda-graph-trace=")]
    assert len(lines) == 6 and modes == ["--cuda-graph-trace=graph", "--cuda-graph-trace=node"] * 3
    assert all("--nvtx-capture=launch@worklog" in words for words in lines)
    (one,) = dry("nsys", "--variant", "gpu-tuned", "--mode", "node")
    assert value(one, "--variant") == "gpu-tuned"


@pytest.mark.parametrize("tool", ["nsys", "ncu"])
def test_the_capture_scripts_hand_everything_on(tool: str, tmp_path: Path) -> None:
    words, log = tmp_path / "worklog", tmp_path / "log"
    words.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\n')
    words.chmod(0o755)
    script = PROBLEM.folder / f"capture_{tool}.sh"
    subprocess.run(
        [str(script), "--variant", "gpu-tuned", "--out", str(tmp_path / "out")],
        env={**os.environ, "WORKLOG": str(words), "DOCKER": "none"}, check=True,
        capture_output=True,
    )  # fmt: skip
    assert log.read_text().split() == [
        tool, "gemlite_autotune", "--out", str(tmp_path / "out"), "--variant", "gpu-tuned",
    ]  # fmt: skip


def test_a_capture_without_a_gpu_is_refused_with_the_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", "nsys", "gemlite_autotune", "--device", "cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.startswith("error: gpu-default needs a GPU of compute capability 8.0")


def test_a_capture_of_a_variant_that_is_none_is_found_when_the_file_is_read(tmp_path: Path) -> None:
    text = (PROBLEM.folder / "problem.toml").read_text()
    place = tmp_path / "problem.toml"
    before, capture, after = text.partition("[capture]")
    place.write_text(before + capture + after.replace('"gpu-tuned"]', '"gpu-fastest"]', 1))
    with pytest.raises(UsageError, match=r"\[capture\] names 'gpu-fastest', no variant; use some"):
        read_problem(place)
