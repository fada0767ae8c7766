"""Where is a profiler, what can it do, and how is it run to a proper end?"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import PreconditionError
from common.recording.process_tree import (
    adopt_orphans,
    children_of,
    end_tree,
    interrupts_held,
    start_logged,
)
from common.recording.tool_help import ToolHelp, read_help, short_version

HELP = {"nsys": ("profile", "--help"), "ncu": ("--help",)}
INSTALL = {
    "nsys": "install Nsight Systems (DOCKER_README.md) or use the image: ./run.sh nsys",
    "ncu": "install Nsight Compute (DOCKER_README.md) or use the image: ./run.sh ncu",
}
PROBE_SECONDS = 60.0
# How long a profiler that was told to stop may take to write its report.
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Tool:
    name: str
    path: str
    help: ToolHelp

    @property
    def version(self) -> str:
        return self.help.version


def find_tool(name: str) -> Tool | None:
    """The profiler on PATH (or the one that NSYS or NCU names), None if there is none.

    Raises PreconditionError for one that is there and does not work.
    """
    wanted = os.environ.get(name.upper()) or name
    path = shutil.which(wanted)
    if path is None:
        if wanted != name:
            raise PreconditionError(f"{name.upper()}={wanted} is no program; unset it or mend it")
        return None
    version = _output(name, path, "--version")
    return Tool(name, path, read_help(short_version(version), _output(name, path, *HELP[name])))


def need_tool(name: str) -> Tool:
    tool = find_tool(name)
    if tool is None:
        raise PreconditionError(f"{name} is not installed here; {INSTALL[name]}")
    return tool


def _output(name: str, path: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [path, *arguments], check=True, capture_output=True, text=True, errors="replace",
            timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        how = f"exit code {error.returncode}" if hasattr(error, "returncode") else str(error)
        raise PreconditionError(
            f"{name} is installed but `{name} {' '.join(arguments)}` fails ({how}); "
            f"mend it, or {INSTALL[name]}"
        ) from error
    return done.stdout + done.stderr


def run_tool(
    argv: Sequence[str], environment: Mapping[str, str], log: Path, output: Path | None = None
) -> int:
    """Run to the end, all it says into `log` (stdout into `output` if given); its exit code.

    Ctrl-C reaches only this process: the profiler is told to stop, waited for while it writes what
    it has, and then KeyboardInterrupt goes on. Nothing that was started is left running, whatever
    session a profiler started it in.
    """
    adopt_orphans()
    before = children_of(os.getpid())
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupts_held():
            process = start_logged(argv, environment, log, output)
        return process.wait()
    except BaseException:
        if process is not None:
            _stop(process)
        raise
    finally:
        if process is not None:
            _signal(process, signal.SIGKILL)  # where there is no /proc: its group at least
            end_tree(process, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for way, patience in ((signal.SIGINT, STOP_SECONDS), (signal.SIGTERM, 5.0)):
        _signal(process, way)
        try:
            process.wait(timeout=patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # a second Ctrl-C: at once, then
            return


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left of it


def last_line(log: Path) -> str:
    """The last words of a log, without the progress bars that overwrite themselves."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not re.match(r"\[\d+/\d+\] \[", line)]
    return kept[-1][:300] if kept else ""
