"""The parent's end of a worker: start it, ask it, notice when it dies or hangs.

A worker that fails takes only its own variant with it; the error says what it was doing, how it
ended and the last words of its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import WorklogError

CLOSE_SECONDS = 10.0
LOOK_SECONDS = 2.0  # how often a waiting parent looks whether the process still lives


def child_command(module: str) -> list[str]:
    """Python running `module` of this very package, whatever lies in the current folder.

    -P keeps the current folder off the path: a folder called `common` there would be taken for
    this package. See `child_environment`.
    """
    return [sys.executable, "-P", "-m", module]


def child_environment() -> dict[str, str]:
    """This process's environment, with the package that is running now on Python's path."""
    here = str(Path(__file__).resolve().parents[2])
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != here]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *others])}


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
        self._asked = False  # a request was sent and its answer not yet read
        reader, writer = os.pipe()
        command = [*child_command("common.timing.worker"), str(repro)]
        for folder in packages:
            command += ["--packages", str(folder)]
        command += ["--reply-fd", str(writer)]
        try:
            with log.open("ab") as stream:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writer,),
                    env={**child_environment(), **environment},
                    # Its own process group: Ctrl-C reaches the parent, which ends it in order.
                    start_new_session=True,
                )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reader, self._pending = reader, b""

    def request(
        self,
        command: str,
        timeout_s: float,
        on_progress: Callable[[str], object] | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises WorkerFailed, and ends the worker.

        `timeout_s` is the longest silence: what a worker says of its progress starts it anew.
        """
        line = json.dumps({"command": command, **arguments}) + "\n"
        self._asked = True
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError, OSError):
            raise self._failure(command, self._how_it_ended()) from None
        answer = self._next_answer(command, timeout_s)
        while isinstance(answer, dict) and answer.keys() == {"progress"}:
            if on_progress is not None:
                on_progress(str(answer["progress"]))
            answer = self._next_answer(command, timeout_s)
        self._asked = False
        if not isinstance(answer, dict):
            raise self._failure(command, "gave an answer that is none")
        if "error" in answer:
            if "exit_code" in answer:
                raise WorkerFailed(self.name, str(answer["error"]), int(answer["exit_code"]))
            raise WorkerFailed(
                self.name, f"{command} failed: {answer['error']}; see {self.log.name}"
            )
        return answer

    def _next_answer(self, command: str, timeout_s: float) -> Any:
        text = self._read_line(command, time.monotonic() + timeout_s)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

    def _read_line(self, command: str, deadline: float) -> bytes:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._failure(command, "gave no answer in time")
            ended = self._process.poll() is not None
            wait = 0.0 if ended else min(left, LOOK_SECONDS)
            if not select.select([self._reader], [], [], wait)[0]:
                if ended:  # though a process that it forked still holds the pipe
                    raise self._failure(command, self._how_it_ended())
                continue
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
        if self._asked or self._reader < 0:
            # Interrupted in mid-request (the next answer is not ours), or ended already.
            self.kill()
            return None
        peak: int | None = None
        try:
            peak = self.request("close", CLOSE_SECONDS).get("peak_resident_bytes")
        except WorklogError:
            pass  # it is being ended anyway, and what it measured is already on disk
        self.kill(patience_s=CLOSE_SECONDS)
        return peak

    def interrupt(self) -> None:
        """From another thread: end the process, so that whoever waits for its answer sees that."""
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self, patience_s: float = 0.0) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except OSError:
                pass  # a dead reader: nothing left to flush to
        try:
            self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            try:  # with the compilers that it may have started: they are in its group
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended just now
            self._process.wait()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
