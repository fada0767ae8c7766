"""How is NVIDIA's reader kept from taking this process along? It works in a process of its own.

`ncu_report` is C++ and takes a report for what it says it is: one flipped bit can end the process
(an abort, a violated bound) or keep it busy for ever. Here that is an error in one line.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.errors import PreconditionError, UsageError, WorklogError
from common.traces.ncu_model import KernelLaunch

LONGEST_SECONDS = 900


@dataclass(frozen=True)
class Extract:
    """What was read: `unreadable` launches are left out, the last two count values that are NaN."""

    launches: tuple[KernelLaunch, ...]
    unreadable: int
    nan: int
    nan_durations: int


def extract(report: Path, most: int | None) -> Extract:
    """The first `most` launches of an uncompressed report (None: all).

    Raises UsageError when NVIDIA's reader refuses the report, ends or does not come to an end,
    PreconditionError when it is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="worklog-") as folder:
        target = Path(folder) / "extract"
        limit = "" if most is None else str(most)
        command = [sys.executable, "-P", "-m", __name__, str(report.absolute()), limit, str(target)]
        try:
            done = subprocess.run(
                command, check=False, env=_environment(), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=LONGEST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UsageError(
                f"ncu_report read for {LONGEST_SECONDS} s without an end; copy or record it again"
            ) from error
        except OSError as error:
            raise PreconditionError(f"no process can be started ({error}); free memory") from error
        if done.returncode != 0:
            raise UsageError(
                f"ncu_report {_ended(done.returncode)} on it: the report is damaged; copy or "
                "record it again"
            )
        if not target.exists():
            raise UsageError("ncu_report gave nothing; copy or record it again")
        found = pickle.loads(target.read_bytes())  # our own process wrote it
    if isinstance(found, WorklogError):
        raise found
    assert isinstance(found, Extract)
    return found


def _environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *others])}


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended with {signal.Signals(-code).name}"
    except ValueError:
        return f"ended with signal {-code}"


def main() -> None:
    """The other process: reads, and writes an Extract or the error to the place it was told."""
    from common.traces.ncu_rep import launches_of

    report, limit, target = sys.argv[1:]
    found: object
    try:
        found = launches_of(Path(report), int(limit) if limit else None)
    except WorklogError as error:
        found = error
    Path(target).write_bytes(pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL))
    sys.stdout.flush()
    os._exit(0)  # not through NVIDIA's destructors: they too may end the process


if __name__ == "__main__":
    main()
