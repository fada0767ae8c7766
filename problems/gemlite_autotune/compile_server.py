"""How does a compiler start in milliseconds, and die without taking anybody with it?

    python -P -m problems.gemlite_autotune.compile_server MODULE FD      (internal)

Importing torch, Triton and GemLite takes seconds, so it is done once and then forked:

    server          MODULE.preload()       what compilers for every GPU need
      stem          MODULE.for_gpu(gpu)    one per GPU: GemLite keeps what it was told when imported
        compiler    MODULE.answer(job)     one per core: JSON lines on a channel of its own

A compiler that dies ends its channel with {"ended": why}; the next is forked from the same stem.
Every process is killed by the kernel when the one above it dies.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol, cast

from common.timing.worker import die_with_parent

LOOK_SECONDS = 0.02  # how soon a stem notices that one of its compilers has ended
LARGEST_MESSAGE = 4096


class Work(Protocol):
    """What MODULE has."""

    def preload(self) -> None: ...
    def for_gpu(self, gpu: str) -> AbstractContextManager[None]: ...
    def answer(self, job: dict[str, Any]) -> dict[str, Any]: ...


def receive(control: socket.socket) -> tuple[str, int] | None:
    """A GPU's name and the descriptor of the channel for a new compiler; None: nobody asks more."""
    message, descriptors, _, _ = socket.recv_fds(control, LARGEST_MESSAGE, 1)
    return (message.decode(), descriptors[0]) if message and descriptors else None


def hand_on(control: socket.socket, gpu: str, channel: int) -> None:
    socket.send_fds(control, [gpu.encode()], [channel])


def serve(work: Work, control: socket.socket) -> None:
    """Fork one stem per GPU that is asked for and hand every channel on to it."""
    work.preload()
    stems: dict[str, socket.socket] = {}
    while (wish := receive(control)) is not None:
        gpu, channel = wish
        try:
            if gpu not in stems:
                stems[gpu] = _fork_stem(work, gpu, control, stems)
            hand_on(stems[gpu], gpu, channel)
        except OSError:
            stems.pop(gpu, None)  # the stem has died: the channel closes, the next wish forks anew
        finally:
            os.close(channel)


def _fork_stem(
    work: Work, gpu: str, control: socket.socket, others: dict[str, socket.socket]
) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        for inherited in (control, ours, *others.values()):
            inherited.close()
        _end_with(lambda: _stem(work, gpu, theirs))
    theirs.close()
    return ours


def _stem(work: Work, gpu: str, control: socket.socket) -> None:
    """Prepare for one GPU, then fork a compiler for every channel and see how it ends."""
    die_with_parent()
    trouble = None
    try:
        context = work.for_gpu(gpu)
        context.__enter__()  # for the life of this process and of those that it forks
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}".splitlines()[0]
    compilers: dict[int, int] = {}  # process -> its channel
    asked = True
    while asked or compilers:
        ready = select.select(
            [control] if asked else [], [], [], LOOK_SECONDS if compilers else None
        )
        if ready[0]:
            wish = receive(control)
            if wish is None:
                asked = False
            elif trouble is not None:
                _end_channel(wish[1], trouble)
            else:
                compilers[_fork_compiler(work, wish[1], control, compilers)] = wish[1]
        for process, channel in list(compilers.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                _end_channel(channel, _how(status))
                del compilers[process]


def _fork_compiler(work: Work, channel: int, control: socket.socket, others: dict[int, int]) -> int:
    process = os.fork()
    if process == 0:
        control.close()
        for other in others.values():
            os.close(other)
        _end_with(lambda: _compiler(work, channel))
    return process


def _compiler(work: Work, channel: int) -> None:
    die_with_parent()
    with (
        os.fdopen(channel, "r", encoding="utf-8") as jobs,
        os.fdopen(os.dup(channel), "w", encoding="utf-8") as answers,
    ):
        said: dict[str, Any] = {"ready": True}
        while True:
            answers.write(json.dumps(said) + "\n")
            answers.flush()
            line = jobs.readline()
            if not line:
                return
            said = work.answer(json.loads(line))


def _end_with(body: Any) -> NoReturn:
    """Run a forked child's whole life; it must never return into its parent's code."""
    code = 1
    try:
        body()
        code = 0
    except BrokenPipeError:
        code = 0  # nobody waits for the answer any more
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with signal {-code}" if code < 0 else f"ended with code {code}"


def _end_channel(channel: int, says: str) -> None:
    try:
        os.write(channel, json.dumps({"ended": says}).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more
    finally:
        os.close(channel)


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it in order
    work = cast("Work", importlib.import_module(sys.argv[1]))
    control = socket.socket(fileno=int(sys.argv[2]))
    serve(work, control)


if __name__ == "__main__":
    main()
