"""Compile many configurations: in parallel, once, and whatever one of them does to its compiler.

    python -m problems.gemlite_autotune.explorer --gpu rtx-4090 --m 8 --mode fast [--out DIR]

Each result is a file in the cache, written when it is there: a run that was stopped goes on where
it was. A configuration that the compiler refuses, crashes on or does not finish is a result too.
"""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.problem import root
from common.errors import UsageError, WorklogError
from common.recording.run_folder import write_text
from common.timing.worker_client import child_command, child_environment
from common.traces.compiled_kernel import CompiledKernel, parse_compiled
from problems.gemlite_autotune.jobs import Job

JOB_SECONDS = 120.0
START_SECONDS = 120.0


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


class Compiler:
    """One worker process of one GPU. It is started anew after a crash."""

    def __init__(self, gpu: str) -> None:
        self.gpu = gpu
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        command = [*child_command("problems.gemlite_autotune.compile_worker"), self.gpu]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env=with_packages(child_environment()),
        )
        self.process = process
        try:
            self._answer(process, START_SECONDS)
        except CompilerDied as error:
            raise UsageError(
                f"the compiler's process for {self.gpu} does not start ({error}); "
                "run ./run.sh setup"
            ) from error
        return process

    def compile(self, job: Job) -> dict[str, Any]:
        """{"compiled": document} or {"failed": why}; a process that dies fails its job alone."""
        process = self.process or self.start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(job.to_json()) + "\n")
            process.stdin.flush()
            return self._answer(process, JOB_SECONDS)
        except (BrokenPipeError, CompilerDied) as error:
            self.stop()
            return {"failed": f"the compiler {error}", "died": True}

    def _answer(self, process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        if not ready:
            raise CompilerDied(f"was stopped after {seconds:g} s")
        line = process.stdout.readline()
        if not line:
            raise CompilerDied(f"ended with code {process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()
            self.process = None


class CompilerDied(Exception):
    pass


def with_packages(environment: dict[str, str]) -> dict[str, str]:
    """The environment with this process's own path: the pinned packages are on it."""
    known = environment["PYTHONPATH"].split(os.pathsep)
    added = [path for path in sys.path if path and path not in known and "variants" in path]
    return {**environment, "PYTHONPATH": os.pathsep.join([*known, *added])}


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def explore(
    jobs: Sequence[Job],
    report: Callable[[str, int], None] = lambda text, done: None,
    folder: Path | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Every job's outcome, in order. `report(text, done)` is called as results come in."""
    cache = Cache(folder or cache_folder())
    found: dict[Job, Outcome] = {}
    waiting: dict[str, queue.SimpleQueue[Job]] = {}
    for job in dict.fromkeys(jobs):
        known = cache.get(job)
        if known is not None:
            found[job] = known
        else:
            waiting.setdefault(job.gpu, queue.SimpleQueue()).put(job)
    report(f"{len(found)} of {len(jobs)} in the cache", len(found))
    lock = threading.Lock()
    problems: list[BaseException] = []

    def work(gpu: str, jobs_of_gpu: queue.SimpleQueue[Job]) -> None:
        compiler = Compiler(gpu)
        try:
            while not problems:
                try:
                    job = jobs_of_gpu.get_nowait()
                except queue.Empty:
                    return
                outcome = _one(compiler, cache, job)
                with lock:
                    found[job] = outcome
                    report(f"{job.family} {job.config} {gpu}", len(found))
        except BaseException as error:
            problems.append(error)
        finally:
            compiler.stop()

    # A process serves one GPU: GPUs come one after the other, each on all cores.
    for gpu, jobs_of_gpu in waiting.items():
        count = min(workers or usable_cores(), jobs_of_gpu.qsize())
        threads = [threading.Thread(target=work, args=(gpu, jobs_of_gpu)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
    return [found[job] for job in jobs]


def _one(compiler: Compiler, cache: Cache, job: Job) -> Outcome:
    answer = compiler.compile(job)
    if "compiled" in answer:
        document = answer["compiled"]
        cache.put(job, document)
        kernel = parse_compiled(document, "the compiler's answer")
        return Outcome(job, kernel, None, float(document["seconds"]["cpu"]), False)
    failure = str(answer.get("failed"))
    if "died" not in answer:  # a process that died may not do so again
        cache.put(job, {"job": job.to_json(), "failure": failure})
    return Outcome(job, None, failure, 0.0, False)


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
