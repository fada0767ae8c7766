"""How is a program run so that nothing of it is left, however it ends?

A step of a recording starts workers in sessions of their own, compilers, profilers and daemons.
Ending its process group would miss most of them. So this process adopts what it has started at
second hand (Linux: child subreaper), and at the end, at the time limit or when it is told to stop,
every descendant of the program is ended. Processes that it did not start are never touched.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOOK_SECONDS = 0.1
# How long a program that ran past its limit may take to write what it has.
GRACE_SECONDS = 5.0
SWEEPS = 50
EMPTY_LOOKS = 2


@dataclass(frozen=True)
class Ended:
    """How a program ended. `timed_out`: it was ended because its time was over."""

    exit_code: int
    seconds: float
    timed_out: bool
    left_behind: int  # processes that were still there after its own end, and were ended

    @property
    def says(self) -> str:
        if self.timed_out:
            return f"was ended at its time limit after {self.seconds:.0f} s"
        if self.exit_code < 0:
            return f"ended with signal {-self.exit_code}"
        return f"ended with exit code {self.exit_code}"


def adopt_orphans() -> None:
    """Descendants whose parents end become children of this process (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C (and a SIGTERM that Python answers) waits until the block has ended.

    Around a Popen whose process a `try` then takes care of. An interrupt inside Popen comes after
    the program was started and before anybody knows of it: it would live on.
    """
    answers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():  # no other is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            answer = signal.getsignal(number)
            if callable(answer):
                answers[number] = answer
    came: list[tuple[int, FrameType | None]] = []
    try:
        for held in answers:
            signal.signal(held, lambda *interrupt: came.append(interrupt))
        yield
    finally:
        # One that comes between the two would leave the other unanswered for good.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, answers)
        try:
            for held, answer in answers.items():
                signal.signal(held, answer)
            for late, frame in came:
                answers[late](late, frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start_logged(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    output: Path | None = None,
    in_child: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own: all it says goes into `log`, stdout into `output` if given.

    Its caller holds interrupts until it has the process in its hands.
    """
    with log.open("ab") as words, output.open("wb") if output else log.open("ab") as results:
        return subprocess.Popen(
            list(argv), env=dict(environment), stdin=subprocess.DEVNULL, stdout=results,
            stderr=words, start_new_session=True,
            preexec_fn=in_child,  # noqa: PLW1509 (one thread here, and it imports nothing)
        )  # fmt: skip


def run_limited(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    limit_s: float,
    results: Path | None = None,
) -> Ended:
    """Run to its end or to `limit_s`, all it says into `log` (stdout into `results` if given);
    then end all that it started.

    KeyboardInterrupt (or any other exception) of the caller ends it too and goes on. The kernel
    kills the program when this process is killed.
    """
    adopt_orphans()
    before = set(children_of(os.getpid()))  # not the program's: leave them alone
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    caller = os.getpid()

    def in_child() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != caller:  # killed before that: no signal will come
                os._exit(1)

    started, timed_out = time.monotonic(), False
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupts_held():
            process = start_logged(argv, environment, log, results, in_child)
        while process.poll() is None:
            if time.monotonic() - started >= limit_s:
                timed_out = True
                _ask_to_end(process)
                break
            try:
                process.wait(timeout=min(LOOK_SECONDS, limit_s))
            except subprocess.TimeoutExpired:
                continue
    finally:
        left = end_tree(process, before) if process else 0
    return Ended(process.returncode, time.monotonic() - started, timed_out, left)


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would: a profiler then writes what it has."""
    try:
        os.kill(process.pid, signal.SIGINT)
        process.wait(timeout=GRACE_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass  # it is killed next


def end_tree(process: subprocess.Popen[bytes], before: Collection[int]) -> int:
    """Kill the program's whole tree, sweep by sweep, until nothing is left; how many others.

    `before`: this process's children that are none of the program's (`children_of`, asked before it
    was started). What left its parents is found only after `adopt_orphans`.
    """
    found: set[int] = set()
    empty_looks = 0
    for _ in range(SWEEPS):
        alive = descendants(os.getpid(), without=before)
        # A look takes time: one that forks and ends meanwhile is gone before it is read, and its
        # child came after the list was made. The next look sees the child.
        empty_looks = 0 if alive else empty_looks + 1
        if empty_looks == EMPTY_LOOKS:
            break
        if not alive:
            continue
        found |= alive
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it ended just now, or changed its user: not ours to end any more
        _reap(alive - {process.pid})
        try:
            process.wait(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    return len(found - {process.pid})


def _reap(pids: Collection[int]) -> None:
    """Adopted processes that have ended are waited for, or they would stay as zombies."""
    deadline = time.monotonic() + LOOK_SECONDS
    waiting = set(pids)
    while waiting and time.monotonic() < deadline:
        for pid in list(waiting):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # not adopted: its own parent waits for it
                ended = pid
            if ended:
                waiting.discard(pid)
        time.sleep(0.002)


def descendants(root: int, without: Collection[int] = ()) -> set[int]:
    """Every process below `root`, except the trees of `without`; zombies are none."""
    children: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state not in "ZX":
            children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in children.get(root, ()) if pid not in without]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def children_of(root: int) -> list[int]:
    return [pid for pid, parent, _ in _processes() if parent == root]


def _processes() -> list[tuple[int, int, str]]:
    """(process, its parent, state) of everything in /proc; empty where there is none."""
    found = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    text = stream.read()
            except OSError:
                continue  # it ended just now
            # The program's name stands in brackets and may hold brackets and blanks itself.
            state, parent = text[text.rindex(")") + 2 :].split()[:2]
            found.append((int(name), int(parent), state))
    return found
