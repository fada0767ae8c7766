"""How long does each variant take? Workers side by side, checked first, then timed in rounds.

Every variant lives in a process of its own with its own library versions. All are built and warmed
up first; each must pass its correctness check; then they are sampled in interleaved rounds, so that
whatever drifts drifts for all of them. Where they do not fit in memory together they are measured
one after the other, and the summary says so. No profiler is attached to any of these processes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from common.contract.problem import Variant
from common.errors import WorklogError
from common.experiments.correctness import Outputs, check_outputs, load_outputs
from common.experiments.progress import Reporter
from common.experiments.request import (
    Request,
    compile_cache,
    device_bytes,
    package_folders,
)
from common.recording.environment import without_places
from common.recording.run_folder import RunWriter, write_json
from common.timing.sampling import Sample, Side, StopDecision, StopRule, interleave, sequential
from common.timing.worker_client import Worker, WorkerFailed

PREPARE_SECONDS = 900.0
SAMPLE_SECONDS = 300.0
SHARE_OF_MEMORY = 0.8
SETTLE_SECONDS = 0.02
AT_ONCE = 2  # compilations side by side, where that was asked for
After = Callable[[Variant, Worker], object]


def start_worker(
    request: Request, variant: Variant, writer: RunWriter, profiled: bool = False
) -> Worker:
    logs = writer.folder / "logs"
    logs.mkdir(exist_ok=True)
    cache = compile_cache(variant)
    cache.mkdir(parents=True, exist_ok=True)
    return Worker(
        variant.name,
        request.problem.repro,
        package_folders(variant),
        {"TORCHINDUCTOR_CACHE_DIR": str(cache), **variant.environment},
        logs / f"{variant.name}{'.profile' if profiled else ''}.log",
    )


def open_arguments(request: Request, variant: Variant, **options: Any) -> dict[str, Any]:
    return {
        "variant": dict(variant.settings),
        "preset": dict(request.preset.settings),
        "device": request.device,
        "options": {**request.options, **options},
    }


class Rejected(WorklogError):
    """A variant's output is wrong: it gets no figures."""


class Bench:
    """The state of one benchmark: which variants live, which fell out and why."""

    def __init__(self, request: Request, writer: RunWriter, report: Reporter) -> None:
        self.request, self.writer, self.report = request, writer, report
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, Any] = {}
        self.checks: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.resident_bytes: dict[str, int] = {}
        self.fresh_pages: dict[str, int | None] = {}  # of each variant's latest repetition
        self.reference: Outputs | None = None
        self.first_round = 0  # of the current attempt: rounds count on after a worker failed
        self.last_round = -1

    def open(self, variant: Variant) -> int:
        """Start the variant's process; returns the bytes it says it needs."""
        worker = start_worker(self.request, variant, self.writer)
        self.workers[variant.name] = worker
        arguments = open_arguments(self.request, variant)
        needs: int = worker.request("open", PREPARE_SECONDS, **arguments)["needs_bytes"]
        return needs

    def prepare(self, variant: Variant) -> None:
        self.report.step(f"building and compiling {variant.name}")
        self.facts[variant.name] = self.workers[variant.name].request("prepare", PREPARE_SECONDS)[
            "facts"
        ]

    def check(self, variant: Variant) -> None:
        """Compare the outputs with the baseline's; a variant that fails is not timed."""
        self.report.step(f"checking the output of {variant.name}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            self.workers[variant.name].request("outputs", SAMPLE_SECONDS, path=str(path))
            try:
                outputs = load_outputs(path)
            except (OSError, ValueError, BadZipFile) as error:
                message = f"wrote no outputs that can be read ({error}); mend its repro.py"
                raise WorkerFailed(variant.name, message) from error
        if variant.name == self.request.problem.baseline:
            self.reference = outputs
        assert self.reference is not None  # the baseline comes first, and its failure is fatal
        tolerance = None  # the baseline is the reference itself
        if variant.name != self.request.problem.baseline and variant.tolerance is not None:
            scale = self.facts[variant.name].get("tolerance_scale", 1.0)
            if not isinstance(scale, int | float):
                raise WorkerFailed(variant.name, f"tolerance_scale is {scale!r}, give a number")
            tolerance = variant.tolerance * scale
        self.checks[variant.name] = check_outputs(outputs, self.reference, tolerance)
        write_json(self.writer.folder / "checks.json", self.checks)
        if not self.checks[variant.name]["passed"]:
            self.drop(variant.name)
            raise Rejected(f"{variant.name}: {self.checks[variant.name]['reason']}")

    def drop(self, name: str, reason: str | None = None) -> None:
        if reason is not None:
            self.failures[name] = without_places(reason)
            self.report.step(reason)
        worker = self.workers.pop(name, None)
        if worker is not None:
            peak = worker.close()
            if peak is not None:
                self.resident_bytes[name] = peak

    def guarded(self, variant: Variant, step: Callable[[Variant], object]) -> bool:
        """One step of a variant. The baseline's failure ends the run, another's only its own."""
        try:
            step(variant)
        except Rejected as error:
            self.report.step(str(error))
            if variant.name == self.request.problem.baseline:
                raise
        except WorkerFailed as error:
            self.drop(variant.name, str(error))
            if variant.name == self.request.problem.baseline:
                raise
        return variant.name in self.workers

    def on_sample(self, sample: Sample) -> None:
        self.last_round = max(self.last_round, self.first_round + sample.round)
        self.writer.add_sample(
            {
                "round": self.first_round + sample.round,
                "order": sample.order,
                "variant": sample.variant,
                "phase": sample.phase,
                "duration_ns": sample.duration_ns,
                "started_ns": sample.started_ns,
                "fresh_pages_of_repetition": self.fresh_pages.get(sample.variant),
            }
        )

    def on_round(self, number: int, decision: StopDecision) -> None:
        self.report.step(f"round {self.first_round + number + 1} done; {decision.reason}")

    def renew(self, name: str) -> Callable[[], object]:
        return lambda: self.workers[name].request("renew", SAMPLE_SECONDS)

    def side(self, name: str) -> Callable[[], Mapping[str, int]]:
        def measure() -> Mapping[str, int]:
            # The threads of the worker that ran before spin for a while before they sleep.
            time.sleep(SETTLE_SECONDS)
            answer = self.workers[name].request("sample", SAMPLE_SECONDS)
            self.fresh_pages[name] = answer.get("fresh_pages")
            phases: Mapping[str, int] = answer["phases"]
            for phase in self.request.problem.phases:
                if phases.get(phase, 0) <= 0:
                    message = f"gave {phases.get(phase)} ns for {phase}; mend its repro.py"
                    raise WorkerFailed(name, message)
            return phases

        return measure

    def close(self) -> None:
        for name in list(self.workers):
            self.drop(name)


def run_bench(request: Request, writer: RunWriter, after: After | None = None) -> None:
    """Measure all variants of `request` into `writer`'s folder (samples.jsonl, checks.json).

    `after` gets each living variant's process when all timing is over. With it, a study of many
    variants, two are compiled at a time.
    """
    total = 3 * len(request.variants) + request.preset.max_rounds
    with Reporter(request.problem.name, total) as report:
        bench = Bench(request, writer, report)
        try:
            needs: dict[str, int] = {}
            for variant in request.variants:
                report.step(f"starting {variant.name}")
                bench.guarded(variant, lambda v: needs.update({v.name: bench.open(v)}))
            available = int(SHARE_OF_MEMORY * device_bytes(request.machine, request.device))
            together = sum(needs.values()) <= available
            # Said before the first sample: a run that is killed must be read as what it was.
            sampling = {"interleaved": together, "needs_bytes": needs}
            writer.update(sampling=sampling)
            if not together:
                decision = _one_after_the_other(bench)
            else:
                decision = _interleaved(bench, 1 if after is None else AT_ONCE)
                if after is not None:
                    _hand_over(bench, after)
        finally:
            bench.close()
            writer.update(
                facts=bench.facts,
                failures=bench.failures,
                peak_resident_bytes=bench.resident_bytes,
            )
    writer.update(sampling={**sampling, "stopped_because": decision.reason})


def _hand_over(bench: Bench, after: After) -> None:
    for variant in bench.request.variants:
        if variant.name in bench.workers:
            bench.guarded(variant, lambda v: after(v, bench.workers[v.name]))


def _rule(request: Request) -> StopRule:
    preset = request.preset
    return StopRule(
        min_rounds=preset.min_rounds, max_rounds=preset.max_rounds, max_seconds=preset.max_seconds
    )


def _prepare(bench: Bench, at_once: int) -> None:
    """Build and compile all variants, then check them; the baseline before the others."""
    first, *others = [v for v in bench.request.variants if v.name in bench.workers]
    bench.guarded(first, bench.prepare)
    if at_once == 1:
        ready = (v for v in others if bench.guarded(v, bench.prepare))
    else:
        with ThreadPoolExecutor(at_once) as pool:
            try:
                done = list(pool.map(lambda v: bench.guarded(v, bench.prepare), others))
            except BaseException:
                for worker in bench.workers.values():
                    worker.kill()  # the pool would wait for what they are compiling
                raise
        ready = (v for v, fine in zip(others, done, strict=True) if fine)
    bench.guarded(first, bench.check)
    for variant in ready:
        bench.guarded(variant, bench.check)


def _interleaved(bench: Bench, at_once: int) -> StopDecision:
    request = bench.request
    _prepare(bench, at_once)
    while True:
        sides = {name: bench.side(name) for name in bench.workers}
        try:
            return interleave(
                sides,
                request.problem.baseline,
                _rule(request),
                on_sample=bench.on_sample,
                on_round=bench.on_round,
                renew={name: bench.renew(name) for name in sides},
            ).decision
        except WorkerFailed as error:
            if error.worker == request.problem.baseline:
                raise
            # Take out the side that failed and go on with the others; rounds count on.
            bench.drop(error.worker, str(error))
            bench.first_round = bench.last_round + 1


def _one_after_the_other(bench: Bench) -> StopDecision:
    request = bench.request
    # Free what the others hold: from here on one process at a time.
    for name in list(bench.workers):
        bench.drop(name)

    @contextmanager
    def alone(variant: Variant) -> Iterator[Side]:
        bench.open(variant)
        try:
            bench.prepare(variant)
            bench.check(variant)
            yield bench.side(variant.name)
        finally:
            bench.drop(variant.name)

    decision = StopDecision(True, "nothing measured")
    for variant in request.variants:
        if variant.name in bench.failures:
            continue
        bench.report.step(f"timing {variant.name} by itself")
        try:
            decision = sequential(
                {variant.name: partial(alone, variant)},
                variant.name,
                _rule(request),
                on_sample=bench.on_sample,
            ).decision
        except WorkerFailed as error:
            bench.drop(variant.name, str(error))
            if variant.name == request.problem.baseline:
                raise
        except Rejected as error:
            # Its check says why, and it has no samples. Without a baseline there is no reference.
            bench.report.step(str(error))
            if variant.name == request.problem.baseline:
                raise
    return decision
