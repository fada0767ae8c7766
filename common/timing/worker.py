"""How is a variant kept apart and alive? One process per variant, answering one line per request.

    python -m common.timing.worker REPRO.py --packages DIR --reply-fd N

The process puts DIR (the variant's own library versions) first on its path, imports the problem's
`repro.py` and serves a `Session` from it: requests are JSON lines on stdin, answers JSON lines on
a descriptor of their own, so that whatever a library prints can never be taken for an answer.
It ends when stdin does, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import io
import json
import operator
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from common.errors import WorklogError
from common.memory import peak_resident_bytes

PR_SET_PDEATHSIG = 1


class Session(Protocol):
    """What a problem's `repro.py` returns from `open_session(variant, preset, device, options)`.

    `needs_bytes` must work before `prepare`; the others come after it. A session whose `profile`
    is long has an attribute `progress`: it is set to a function that takes one line of text.
    """

    def needs_bytes(self) -> int:
        """Memory of the device that this session will hold at its peak, estimated."""

    def prepare(self) -> Mapping[str, Any]:
        """Build, compile, warm up. Returns facts for the manifest (versions, sizes, seconds).

        `tolerance_scale`, if given, multiplies the variants' tolerances (errors grow with depth).
        """

    def sample(self) -> Mapping[str, int]:
        """One repetition: the duration of every phase in ns."""

    def renew(self) -> None:
        """Move what is read again and again to fresh memory (see `common.timing.sampling`)."""

    def outputs(self, path: Path) -> None:
        """Write the outputs that the correctness check compares to `path` (.npz)."""

    def profile(self, folder: Path) -> Mapping[str, Any]:
        """Record traces into `folder`; returns facts. Never called in a process that is timed."""


def load_repro(path: Path) -> Any:
    """Import a problem's `repro.py` under its own name, with its folder importable."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere stdin ends)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def fresh_pages() -> int:
    """Pages that the kernel has given this process so far without reading a disk (minor faults)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def serve(repro: Path, requests: TextIO, replies: TextIO) -> None:
    session: Any = None

    def answer(document: Mapping[str, Any]) -> None:
        # nan is refused here, where the error still names its cause: a manifest cannot hold it.
        replies.write(json.dumps(document, allow_nan=False) + "\n")
        replies.flush()

    for line in requests:
        request = json.loads(line)
        command = request.pop("command")
        try:
            if command == "open":
                session = load_repro(repro).open_session(**request)
                answer({"needs_bytes": operator.index(session.needs_bytes())})
            elif command == "prepare":
                answer({"facts": dict(session.prepare())})
            elif command == "sample":
                before = fresh_pages()
                phases = {k: operator.index(v) for k, v in session.sample().items()}
                answer({"phases": phases, "fresh_pages": fresh_pages() - before})
            elif command == "renew":
                session.renew()
                answer({})
            elif command == "outputs":
                session.outputs(Path(request["path"]))
                answer({})
            elif command == "profile":
                if hasattr(session, "progress"):
                    session.progress = lambda text: answer({"progress": str(text)})
                answer({"facts": dict(session.profile(Path(request["folder"])))})
            elif command == "close":
                answer({"peak_resident_bytes": peak_resident_bytes()})
                return
            else:
                answer({"error": f"unknown command {command}"})
        except WorklogError as error:  # the user's own to mend: no traceback, their exit code
            answer({"error": str(error), "exit_code": error.exit_code})
        except Exception as error:  # the parent must learn of anything that goes wrong here
            traceback.print_exc()
            sys.stderr.flush()
            answer({"error": f"{type(error).__name__}: {error}".splitlines()[0][:500]})


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve one variant of a problem (internal).")
    parser.add_argument("repro", type=Path)
    parser.add_argument("--packages", action="append", default=[], help="folder put on the path")
    parser.add_argument("--reply-fd", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The log is read while this runs, and when it was killed: no line may wait for more.
        sys.stdout.reconfigure(line_buffering=True)
    for folder in reversed(arguments.packages):
        sys.path.insert(0, folder)
    # Neither descriptor is for what the problem starts or calls: a compiler that outlives this
    # process would hide its death, and a library that reads stdin would take a request.
    os.set_inheritable(arguments.reply_fd, False)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with requests, os.fdopen(arguments.reply_fd, "w", encoding="utf-8") as replies:
        serve(arguments.repro, requests, replies)


if __name__ == "__main__":
    main()
