"""The real command line in a process of its own, on a root that a test made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
# As `python -m common.cli`, but the machine's bandwidths are given up at once: they need torch and
# seconds, and `test_a_bench_measures_the_floors_of_its_machine` has them for all.
DRIVER = """
import sys
from common.experiments import floors_pass
floors_pass.LIMIT_SECONDS = 0.001
from common.cli import main
sys.exit(main())
"""


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WORKLOG_")}
    return {
        **kept,
        "PYTHONPATH": str(CHECKOUT),
        "WORKLOG_ROOT": str(root),
        "WORKLOG_VARIANTS": str(root / "variants"),
        "WORKLOG_CACHE": str(root / ".cache"),
        **more,
    }


def command(*arguments: str) -> list[str]:
    if arguments and arguments[0] in ("bench", "run"):
        return [sys.executable, "-P", "-c", DRIVER, *arguments]
    return [sys.executable, "-P", "-m", "common.cli", *arguments]


def worklog(
    root: Path, *arguments: str, cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(root, **more),
        cwd=cwd or root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def start(root: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        env=environment(root, **more),
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in the background of a script inherit SIGINT ignored; a user at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def processes_naming(text: str) -> list[int]:
    """Processes (no zombies) with `text` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(text.encode() in word for word in words):
                found.append(int(entry.name))
    return found


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    """Poll a callable until it is true; False if it never was."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def assert_one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Exit code, no traceback, nothing on stdout, and the last line of stderr is the error."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    return last


def run_folders(root: Path) -> Sequence[Path]:
    return sorted((root / "results").glob("*/*/*"))


def run_here(problem: str, variants: Sequence[str], scratch: Path) -> tuple[Path, dict[str, Any]]:
    """`worklog run` of a problem of this checkout, preset tiny, empty cache: folder and summary."""
    words = ["run", problem, "--json", "--preset", "tiny", "--device", "cpu"]
    words += ["--out", str(scratch / "results")]
    for name in variants:
        words += ["--variant", name]
    done = subprocess.run(
        [sys.executable, "-m", "common.cli", *words], check=False, capture_output=True, text=True,
        timeout=900, env={**os.environ, "WORKLOG_CACHE": str(scratch / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (scratch / "results" / problem).glob("*/*")
    return folder, json.loads(done.stdout)
