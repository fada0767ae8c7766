"""Who compiles? The parent's end of `compile_server`: ask for a compiler, notice when it dies.

A compiler that dies or hangs fails its own work alone; the next one is a fork and costs
milliseconds.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any

from common.errors import UsageError
from common.timing.worker_client import child_command, child_environment
from problems.gemlite_autotune.compile_server import hand_on

START_SECONDS = 120.0
LOOK_SECONDS = 2.0
WORK = "problems.gemlite_autotune.compile_worker"


class CompilerDied(Exception):
    """Why, in words that follow "the compiler"."""


class CompileServer:
    """One server process. `with CompileServer() as server: server.compiler("rtx-4090")`."""

    def __init__(self, work: str = WORK) -> None:
        self.work = work
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> CompileServer:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = child_command("problems.gemlite_autotune.compile_server")
        self.process = subprocess.Popen(
            [*command, self.work, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=with_packages(child_environment()),
        )
        theirs.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.control.close()
        assert self.process is not None
        self.process.kill()  # and with it whatever it has forked
        self.process.wait()

    def compiler(self, gpu: str) -> Compiler:
        """A new process that compiles for this GPU. Raises UsageError where none starts."""
        ours, theirs = socket.socketpair()
        try:
            with self.lock:
                hand_on(self.control, gpu, theirs.fileno())
        except OSError as error:
            ours.close()
            raise self._does_not_start(gpu, "the server has ended") from error
        finally:
            theirs.close()
        compiler = Compiler(ours, gpu)
        try:
            compiler.read(START_SECONDS, self)
        except CompilerDied as error:
            compiler.close()
            raise self._does_not_start(gpu, str(error)) from error
        return compiler

    def _does_not_start(self, gpu: str, why: str) -> UsageError:
        return UsageError(
            f"the compiler's process for {gpu} does not start ({why}); run ./run.sh setup"
        )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Compiler:
    """One process of one GPU. Not thread-safe: one request at a time."""

    def __init__(self, channel: socket.socket, gpu: str) -> None:
        self.channel, self.gpu = channel, gpu
        self.pending = b""

    def ask(self, request: dict[str, Any], seconds: float, server: CompileServer) -> dict[str, Any]:
        """The answer to one request. Raises CompilerDied."""
        try:
            self.channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            pass  # it has ended; what it left says how
        return self.read(seconds, server)

    def read(self, seconds: float, server: CompileServer) -> dict[str, Any]:
        left = seconds
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.channel], [], [], min(left, LOOK_SECONDS))
            left -= LOOK_SECONDS
            if ready:
                try:
                    chunk = self.channel.recv(1 << 16)
                except OSError:
                    chunk = b""
                if not chunk:
                    raise CompilerDied("closed its channel")
                self.pending += chunk
            elif not server.alive:
                raise CompilerDied("lost its server")
            elif left <= 0:
                raise CompilerDied(f"was stopped after {seconds:g} s")
        line, self.pending = self.pending.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        if "ended" in found:
            raise CompilerDied(str(found["ended"]))
        return found

    def close(self) -> None:
        """Let it go: it ends when its channel does; one that hangs ends with its server."""
        self.channel.close()


def with_packages(environment: dict[str, str]) -> dict[str, str]:
    """The environment with this process's own path: the pinned packages are on it."""
    known = environment["PYTHONPATH"].split(os.pathsep)
    added = [path for path in sys.path if path and path not in known and "variants" in path]
    return {**environment, "PYTHONPATH": os.pathsep.join([*known, *added])}
