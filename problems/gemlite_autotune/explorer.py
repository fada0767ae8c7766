"""Compile many configurations: in parallel, once, and whatever one of them does to its compiler.

    python -m problems.gemlite_autotune.explorer --gpu rtx-4090 --m 8 --mode fast [--out DIR]

Each result is a file in the cache, written when it is there: a run that was stopped goes on where
it was. A configuration that the compiler refuses, crashes on or does not finish is a result too.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.problem import root
from common.errors import UsageError, WorklogError
from common.recording.run_folder import write_text
from common.traces.compiled_kernel import CompiledKernel, parse_compiled
from problems.gemlite_autotune.compilers import WORK, Compiler, CompilerDied, CompileServer
from problems.gemlite_autotune.jobs import Job

JOB_SECONDS = 120.0
LOT = 6  # configurations that share one start of the disassembler


@dataclass(frozen=True)
class Outcome:
    """`kernel` is None where the compiler gave none; then `failure` says why."""

    job: Job
    kernel: CompiledKernel | None
    failure: str | None
    seconds: float  # CPU time of compiling and disassembling, when it was done
    cached: bool

    @property
    def can_launch(self) -> bool:
        return self.kernel is not None and bool(self.kernel.metrics["can_launch"])


def cache_folder() -> Path:
    base = Path(os.environ.get("WORKLOG_CACHE") or root() / ".cache")
    return base / "gemlite_autotune"


class Cache:
    """Results on disk by the job's key. An entry that cannot be read is as good as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, job: Job) -> Path:
        return self.folder / job.key[:2] / f"{job.key}.json"

    def get(self, job: Job) -> Outcome | None:
        path = self.path(job)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if json.loads(json.dumps(job.to_json())) != document["job"]:
                return None
            if "failure" in document:
                return Outcome(job, None, str(document["failure"]), 0.0, True)
            kernel = parse_compiled(document, str(path))
            bool(kernel.metrics["can_launch"])  # every whole entry has it
            return Outcome(job, kernel, None, float(document["seconds"]["cpu"]), True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError):
            return None

    def put(self, job: Job, document: dict[str, Any]) -> None:
        path = self.path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(document, indent=1) + "\n")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def explore(
    jobs: Sequence[Job],
    report: Callable[[str, int], None] = lambda text, done: None,
    folder: Path | None = None,
    workers: int | None = None,
    work: str = WORK,
) -> list[Outcome]:
    """Every job's outcome, in order. `report(text, done)` is called as results come in.

    `work` names the module that compiles (see `compile_server.Work`).
    """
    cache = Cache(folder or cache_folder())
    found: dict[Job, Outcome] = {}
    waiting: dict[str, list[Job]] = {}
    for job in dict.fromkeys(jobs):
        known = cache.get(job)
        if known is not None:
            found[job] = known
        else:
            waiting.setdefault(job.gpu, []).append(job)
    report(f"{len(found)} of {len(jobs)} in the cache", len(found))
    if not waiting:
        return [found[job] for job in jobs]
    lots: deque[list[Job]] = deque()
    for of_gpu in waiting.values():
        lots += lots_of(of_gpu)
    lock = threading.Lock()
    problems: list[BaseException] = []

    def keep(outcomes: list[Outcome]) -> None:
        with lock:
            for outcome in outcomes:
                found[outcome.job] = outcome
                report(f"{outcome.job.family} {outcome.job.config} {outcome.job.gpu}", len(found))

    def compile_lots(server: CompileServer) -> None:
        crew = _Hand(server, cache)
        try:
            while not problems:
                with lock:
                    lot = lots.popleft() if lots else None
                if lot is None:
                    return
                keep(crew.outcomes(lot))
        except BaseException as error:
            problems.append(error)
        finally:
            crew.rest()

    with CompileServer(work) as server:
        count = min(workers or usable_cores(), len(lots))
        threads = [
            threading.Thread(target=compile_lots, args=(server,), daemon=True) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if problems:
        raise problems[0]
    return [found[job] for job in jobs]


def lots_of(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of one GPU in lots that share one disassembly, the largest tiles first: what takes
    longest must not be what everybody waits for at the end."""
    ordered = sorted(jobs, key=lambda job: -job.config.block_n * job.config.block_k)
    count = max(1, round(len(ordered) / LOT))
    return [ordered[start::count] for start in range(count)]


class _Hand:
    """What one thread works with: a compiler of the GPU that it is at."""

    def __init__(self, server: CompileServer, cache: Cache) -> None:
        self.server, self.cache = server, cache
        self.compiler: Compiler | None = None

    def rest(self) -> None:
        if self.compiler is not None:
            self.compiler.close()
            self.compiler = None

    def outcomes(self, lot: list[Job]) -> list[Outcome]:
        """Of every job of the lot; where a compiler dies over it, each by itself."""
        if self.compiler is None or self.compiler.gpu != lot[0].gpu:
            self.rest()
            self.compiler = self.server.compiler(lot[0].gpu)
        request = {"jobs": [job.to_json() for job in lot]}
        try:
            answers = self.compiler.ask(request, JOB_SECONDS * len(lot), self.server)["answers"]
        except CompilerDied as error:
            self.rest()
            if len(lot) > 1:
                return [outcome for job in lot for outcome in self.outcomes([job])]
            # Not kept: a process that died may not do so again.
            return [Outcome(lot[0], None, f"the compiler {error}", 0.0, False)]
        return [self._kept(job, answer) for job, answer in zip(lot, answers, strict=True)]

    def _kept(self, job: Job, answer: dict[str, Any]) -> Outcome:
        if "compiled" not in answer:
            failure = str(answer.get("failed"))
            self.cache.put(job, {"job": job.to_json(), "failure": failure})
            return Outcome(job, None, failure, 0.0, False)
        document = answer["compiled"]
        self.cache.put(job, document)
        kernel = parse_compiled(document, "the compiler's answer")
        return Outcome(job, kernel, None, float(document["seconds"]["cpu"]), False)


def main() -> int:
    import argparse

    from common.experiments.progress import Reporter
    from problems.gemlite_autotune.explored_table import explored_table
    from problems.gemlite_autotune.jobs import space_jobs
    from problems.gemlite_autotune.layers import Layer, check_layer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="rtx-4090", help="id in common/floors/devices.toml")
    parser.add_argument("--n", type=int, default=4096)
    parser.add_argument("--k", type=int, default=4096)
    parser.add_argument("--format", default="a16w4")
    parser.add_argument("--group", type=int, help="group size (default: 128 where there is one)")
    parser.add_argument("--activation", default="fp16")
    parser.add_argument("--m", type=int, default=8, help="rows of the batch")
    parser.add_argument("--mode", default="fast", help="fast, max or default")
    parser.add_argument("--family", help="a family other than the one that is routed to")
    parser.add_argument("--out", type=Path, help="copy the files of the kernels here")
    chosen = parser.parse_args()
    try:
        grouped = chosen.format.startswith(("a16w4", "a16w2", "a16w1", "a8w4-fp8"))
        group = chosen.group or (128 if grouped and "mxfp" not in chosen.format else None)
        layer = check_layer(Layer(chosen.n, chosen.k, chosen.format, group, chosen.activation))
        jobs = space_jobs(chosen.gpu, layer, chosen.m, chosen.mode, chosen.family)
        with Reporter("explore", len(jobs)) as reporter:
            done = [0]

            def report(text: str, now: int) -> None:
                reporter.step(text, now - done[0])
                done[0] = now

            outcomes = explore(jobs, report)
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(explored_table(outcomes).text())
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for outcome in outcomes:
            if outcome.kernel is not None:
                name = str(outcome.job.config).replace(" ", "-")
                text = json.dumps(outcome.kernel.to_json(), indent=1) + "\n"
                write_text(chosen.out / f"{outcome.job.family}-{name}.json", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
