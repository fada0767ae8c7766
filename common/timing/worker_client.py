"""The parent's end of a worker: start it, ask it, notice when it dies or hangs.

A worker that fails takes only its own variant with it; the error says what it was doing, how it
ended and the last words of its log.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import WorklogError

CLOSE_SECONDS = 10.0


class WorkerFailed(WorklogError):
    """A variant's process died, hung, or said no. `worker` is its name."""

    def __init__(self, worker: str, message: str, exit_code: int = 1) -> None:
        super().__init__(f"{worker}: {message}")
        self.worker, self.exit_code = worker, exit_code


def last_words(log: Path, lines: int = 3) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(kept[-lines:])


class Worker:
    """One variant's process. Not thread-safe; one request at a time."""

    def __init__(
        self,
        name: str,
        repro: Path,
        packages: Sequence[Path],
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name, self.log = name, log
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "common.timing.worker", str(repro)]
        for folder in packages:
            command += ["--packages", str(folder)]
        command += ["--reply-fd", str(writer)]
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                env={**os.environ, **environment},
                # Its own process group: Ctrl-C reaches the parent, which ends it in order.
                start_new_session=True,
            )
        os.close(writer)
        self._reader, self._pending = reader, b""

    def request(self, command: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises WorkerFailed, and ends the worker."""
        line = json.dumps({"command": command, **arguments}) + "\n"
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError, OSError):
            raise self._failure(command, "had already ended") from None
        answer = json.loads(self._read_line(command, time.monotonic() + timeout_s))
        if not isinstance(answer, dict):
            raise self._failure(command, "gave an answer that is none")
        if "error" in answer:
            if "exit_code" in answer:
                raise WorkerFailed(self.name, str(answer["error"]), int(answer["exit_code"]))
            raise WorkerFailed(
                self.name, f"{command} failed: {answer['error']}; see {self.log.name}"
            )
        return answer

    def _read_line(self, command: str, deadline: float) -> bytes:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reader], [], [], left)[0]:
                raise self._failure(command, "gave no answer in time")
            chunk = os.read(self._reader, 1 << 16)
            if not chunk:
                raise self._failure(command, self._how_it_ended())
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its answers"
        if code == -signal.SIGKILL:
            return "was killed (out of memory?)"
        return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _failure(self, command: str, how: str) -> WorkerFailed:
        self.kill()
        words = last_words(self.log)
        return WorkerFailed(
            self.name,
            f"the process {how} during {command}; see {self.log.name}"
            + (f" ({words[:300]})" if words else ""),
        )

    def close(self) -> int | None:
        """End in order; returns the peak of its resident memory in bytes, if it still answers."""
        peak: int | None = None
        try:
            peak = self.request("close", CLOSE_SECONDS)["peak_resident_bytes"]
        except WorklogError:
            pass  # it is being ended anyway, and what it measured is already on disk
        self.kill(patience_s=CLOSE_SECONDS)
        return peak

    def kill(self, patience_s: float = 0.0) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except OSError:
                pass  # a dead reader: nothing left to flush to
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
