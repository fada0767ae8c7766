"""Does analysing a file ever open a connection? Sockets are refused in the process that does it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.cases import GOOD
from helpers.command import CHECKOUT, environment

# Put in place of `sitecustomize`, so that it is there before the first import of the package, and
# in the processes that the command starts too.
REFUSING = """
import socket, sys

def refuse(event, arguments):
    if event.startswith("socket."):
        print("SOCKET", event, file=sys.stderr, flush=True)
        raise RuntimeError("this process may open no socket: " + event)

sys.addaudithook(refuse)
"""
RUN = CHECKOUT / "tests" / "data" / "run_tiny"


def offline(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "sitecustomize.py").write_text(REFUSING)
    known = environment(CHECKOUT)
    known["PYTHONPATH"] = os.pathsep.join([str(tmp_path), known["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, *command], env=known, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_refusal_works(tmp_path: Path) -> None:
    done = offline(tmp_path, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert done.returncode != 0 and "SOCKET" in done.stderr


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_show_diff_and_convert_open_no_socket(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(GOOD[kind])
    for words in (
        ["show", "a"], ["diff", "a", "a", "--html", "d.html", "--markdown", "d.md"],
        ["convert", "a", "--parquet", "tables"],
    ):  # fmt: skip
        done = offline(tmp_path, "-m", "common.cli", *words)
        assert done.returncode == 0 and "SOCKET" not in done.stderr, done.stderr


def test_detect_and_a_diff_of_ranks_open_no_socket(tmp_path: Path) -> None:
    for side in "ab":
        (tmp_path / side).mkdir()
        for rank in range(3):
            (tmp_path / side / f"rank{rank}.json").write_bytes(GOOD["torch"])
    for words in (["detect", "a/rank0.json"], ["diff", "a", "b"]):
        done = offline(tmp_path, "-m", "common.cli", *words)
        assert done.returncode == 0 and "SOCKET" not in done.stderr, done.stderr


def test_report_diff_of_a_run_and_check_open_no_socket(tmp_path: Path) -> None:
    sides = [f"{RUN}#bf16", f"{RUN}#int8wo-0.18.0"]
    for words in (
        ["report", str(RUN), "--out", "r.html"], ["diff", *sides], ["floors", "show"], ["doctor"],
        ["replay", "gemlite_autotune"], ["check", "gemlite_autotune"],
    ):  # fmt: skip
        done = offline(tmp_path, "-m", "common.cli", *words)
        assert done.returncode == 0 and "SOCKET" not in done.stderr, done.stderr
    page = (tmp_path / "r.html").read_text()
    assert "http-equiv" in page and "default-src 'none'" in page
