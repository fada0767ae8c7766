"""How is an .nsys-rep read? By the `nsys` that is installed: only it knows its own format."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.errors import PreconditionError, UsageError
from common.traces.byte_source import ByteSource, unpacked
from common.traces.model import Trace
from common.traces.nsys import read_nsys

MAGIC = b"NVIDIA Tegra Profiler Report"
_WRITTEN_BY = re.compile(rb"Profiler Report (\d{4})@(\d+)@(\d+)")
_INSTALLED = re.compile(r"version (\d{4})\.(\d+)\.(\d+)")
LONGEST_EXPORT_S = 1800


def export_command(nsys: str, report: Path, target: Path) -> list[str]:
    """The command line that writes a report's events into a new SQLite file."""
    command = [nsys, "export", "--type", "sqlite", "--force-overwrite", "true"]
    return [*command, "--output", str(target), str(report)]


def written_by(head: bytes) -> tuple[int, ...] | None:
    """Version of nsys that wrote the report, where its first line says so (since about 2025)."""
    found = _WRITTEN_BY.search(head[:200])
    return tuple(int(part) for part in found.groups()) if found else None


def read_nsys_report(path: Path) -> Trace:
    """Export a report into a temporary file and read that.

    Raises PreconditionError without an installed nsys, UsageError when it refuses the report.
    """
    nsys = shutil.which("nsys")
    if nsys is None:
        raise PreconditionError(
            f"{path} can only be read with NVIDIA's nsys and none is installed; install Nsight "
            "Systems (package nsight-systems-cli), or run nsys export --type sqlite where it is "
            "and give that file"
        )
    writer = written_by(ByteSource(path).head())
    with (
        tempfile.TemporaryDirectory(prefix="worklog-") as folder,
        unpacked(path, ".nsys-rep") as report,
    ):
        target = Path(folder) / "report.sqlite"
        command = export_command(nsys, report, target)
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL, timeout=LONGEST_EXPORT_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PreconditionError(
                f"{nsys} could not export {path} ({error}); reinstall Nsight Systems"
            ) from error
        if done.returncode != 0 or not target.exists():
            raise UsageError(_refusal(path, writer, installed_version(nsys), done.stderr))
        try:
            return read_nsys(target)
        except UsageError as error:
            raise UsageError(
                f"what nsys exported of {path} cannot be read "
                f"({str(error).replace(str(target), 'the export')}); record it again"
            ) from error


def installed_version(nsys: str) -> tuple[int, ...] | None:
    """Version of the installed nsys; None if it does not say."""
    try:
        done = subprocess.run(
            [nsys, "--version"], check=False, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _INSTALLED.search(done.stdout)
    return tuple(int(part) for part in found.groups()) if found else None


def _refusal(
    path: Path, writer: tuple[int, ...] | None, installed: tuple[int, ...] | None, said: str
) -> str:
    ours = ".".join(map(str, installed)) if installed else "of unknown version"
    newer = bool(writer and installed and writer > installed)
    if newer or re.search(r"newer|more recent|unsupported.*version", said, re.IGNORECASE):
        theirs = ".".join(map(str, writer)) if writer else "a newer version"
        return (
            f"{path} was written by nsys {theirs}, which is newer than the installed nsys {ours}; "
            f"install nsys {theirs} or later, or run nsys export --type sqlite where it was "
            "recorded and give that file"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = lines[-1][:200] if lines else "it gave no reason"
    return f"{path} was refused by nsys {ours} ({reason}); record or copy the report again"
