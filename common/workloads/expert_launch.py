"""How is an expert-parallel run started, watched and ended? One call, one answer or one error.

`run_ranks` starts `torchrun` on this machine's loopback interface, watches every rank's state, and
returns logits and times, or raises RankFailure naming the rank that was killed, stopped or stuck.
A lost rank is seen at once; a silent one when the others' patience (`timeout_s`) is over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import WorklogError
from common.recording.process_tree import interrupts_held
from common.workloads.expert_rank import Request

POLL_S = 0.1
GRACE_S = 3.0  # for the other ranks' own words, after the first failure
START_S = 60.0  # for importing torch on a busy machine, before the ranks meet


class RankFailure(WorklogError):
    """A rank was killed, stopped or stuck; the run was ended and nothing of it is left running.

    `finished` holds the results of the requests that all ranks had finished, from the first on.
    """

    exit_code = 1

    def __init__(self, message: str, finished: Sequence[ParallelResult] = ()) -> None:
        super().__init__(message)
        self.finished = tuple(finished)


@dataclass(frozen=True)
class RankReport:
    """One rank's times per pass in ns, by part (`Breakdown`), and the expert weights it held."""

    rank: int
    spent_ns: tuple[dict[str, int], ...]
    expert_weights: int


@dataclass(frozen=True)
class ParallelResult:
    """`logits` (batch, 1 + decode_steps, vocab), all sequences in their order.

    `traces`: one profiler trace per rank, in the run's folder, if the request asked for them;
    `worklog diff` compares two of them.
    """

    logits: npt.NDArray[np.float32]
    ranks: tuple[RankReport, ...]
    traces: tuple[Path, ...] = ()


def torchrun_command(request: Path, ranks: int) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=1", f"--nproc-per-node={ranks}", "--max-restarts=0", "--monitor-interval=0.5"),
        # A free port of the loopback address; nothing is reachable from outside.
        *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"),
        *("-m", "common.workloads.expert_rank", str(request)),
    ]


def run_ranks(
    requests: Sequence[Request],
    ranks: int,
    folder: Path,
    on_state: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[ParallelResult]:
    """Run the requests one after the other on `ranks` ranks, working in the empty `folder`.

    `on_state` is called with the ranks' states whenever they are read (progress). UsageError if a
    request cannot run; RankFailure if a rank fails, after every process has been ended.
    """
    if not requests:
        return []
    for request in requests:
        request.check(ranks)
    path = folder / "requests.json"
    rows = [dataclasses.asdict(request) for request in requests]
    path.write_text(json.dumps(rows), encoding="utf-8")
    patience_s = min(request.timeout_s for request in requests)
    here = str(Path(__file__).resolve().parents[2])  # so that the ranks run this very code
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    process: subprocess.Popen[bytes] | None = None
    try:
        with (folder / "torchrun.log").open("w", encoding="utf-8") as log, interrupts_held():
            process = subprocess.Popen(
                torchrun_command(path, ranks),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        failure = _watch(process, patience_s, ranks, folder, on_state)
    finally:
        if process is not None:
            _end(process, _states(folder, ranks))
    results: list[ParallelResult] = []
    for index, request in enumerate(requests):
        if all((folder / f"rank{rank}-{index}.json").exists() for rank in range(ranks)):
            results.append(_collect(request, index, ranks, folder))
    if failure is not None:
        raise RankFailure(failure, results)
    return results


def _watch(
    process: subprocess.Popen[bytes],
    patience_s: float,
    ranks: int,
    folder: Path,
    on_state: Callable[[list[dict[str, Any]]], None] | None,
) -> str | None:
    """Wait for the end; None if all is well, else what to tell the user."""
    started = time.monotonic()
    deadline: float | None = None
    culprits: dict[int, str] = {}
    while True:
        states = _states(folder, ranks)
        if on_state is not None:
            on_state(states)
        if deadline is None:
            culprits = _gone(states, folder, ranks)
        failed = [state for state in states if state["state"] == "failed"]
        ended = process.poll() is not None
        if ended and all(state["state"] == "done" for state in states) and len(states) == ranks:
            return None
        if (culprits or failed) and deadline is None:
            deadline = time.monotonic() + GRACE_S
        late = time.monotonic() - started > START_S + patience_s and len(states) < ranks
        if late or ended or (deadline is not None and time.monotonic() > deadline):
            return _explain(_states(folder, ranks), culprits, patience_s, ranks, folder)
        time.sleep(POLL_S)


def _gone(states: list[dict[str, Any]], folder: Path, ranks: int) -> dict[int, str]:
    """Ranks whose process ended without a word of its own, and what to say of them."""
    found = {}
    for state in states:
        if state["state"] == "running" and _process_state(state["pid"]) in ("Z", None):
            # Its last words may have been written between the two looks.
            now = _states(folder, ranks, only=state["rank"])[0]
            if now["state"] == "running":
                found[now["rank"]] = f"was killed (at: {now['stage']})"
    return found


def _explain(
    states: list[dict[str, Any]],
    culprits: dict[int, str],
    patience_s: float,
    ranks: int,
    folder: Path,
) -> str:
    log = f"see {folder.name}/torchrun.log"
    if culprits:
        what = ", ".join(f"rank {rank} {words}" for rank, words in sorted(culprits.items()))
        return (
            f"{what}; the other ranks were stopped: run again, with a smaller model or batch if "
            "the machine ran out of memory"
        )
    failed = [state for state in states if state["state"] == "failed"]
    silent = [state for state in states if state["state"] == "running"]
    stopped = [state for state in silent if _process_state(state["pid"]) in ("T", "t")]
    if failed and (stopped or silent):
        named = ", ".join(str(state["rank"]) for state in stopped or silent)
        how = "is stopped" if stopped else "did not answer"
        return (
            f"rank {named} {how}: the others waited {patience_s:g} s for it; "
            f"look at what it does ({log}), or allow a longer timeout_s"
        )
    if failed:
        first = min(failed, key=lambda state: float(state["at"]))  # the others only lost it
        where = f"rank {first['rank']} failed at {first['stage']}"
        return f"{where}: {first['error']}; mend that ({log}) and run again"
    return f"{len(states)} of {ranks} ranks started and the run ended; {log} and run again"


def _states(folder: Path, ranks: int, only: int | None = None) -> list[dict[str, Any]]:
    found = []
    for rank in range(ranks) if only is None else [only]:
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")))
    return found


def _process_state(pid: int) -> str | None:
    """The kernel's letter (R, S, T, Z, …), or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[0]


def _parent(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def _end(process: subprocess.Popen[bytes], states: list[dict[str, Any]]) -> None:
    """Kill what is left of the run: torchrun's children first, then torchrun."""
    for state in states:
        # Only children of our torchrun: a number may have been given to another process since.
        if _parent(state["pid"]) == process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["pid"], signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()


def _collect(request: Request, index: int, ranks: int, folder: Path) -> ParallelResult:
    parts: dict[int, npt.NDArray[np.float32]] = {}
    for rank in range(ranks):
        with np.load(folder / f"rank{rank}-{index}.npz", allow_pickle=False) as file:
            # Ranks of a tensor-sliced group have computed the same sequences.
            parts |= dict(zip(file["rows"].tolist(), file["logits"], strict=True))
    files = (folder / f"rank{rank}-{index}.json" for rank in range(ranks))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    reports = tuple(
        RankReport(row["rank"], tuple(row["spent_ns"]), row["expert_weights"]) for row in found
    )
    logits = np.stack([parts[row] for row in range(request.batch)])
    named = (folder / f"rank{rank}-{index}.trace.json.gz" for rank in range(ranks))
    return ParallelResult(logits, reports, tuple(path for path in named if path.exists()))
