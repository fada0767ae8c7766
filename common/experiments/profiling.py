"""What does each variant spend its time and memory on? A separate pass, never a timed one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from common.contract.problem import Variant
from common.experiments.bench import PREPARE_SECONDS, open_arguments, run_bench, start_worker
from common.experiments.progress import Reporter
from common.experiments.request import Request
from common.experiments.side_by_side import how_many, in_order
from common.recording.environment import without_places
from common.recording.run_folder import RunWriter, open_run
from common.report.evidence import Evidence
from common.timing.worker_client import Worker, WorkerFailed


def _progress(report: Reporter, name: str) -> Callable[[str], None]:
    """Shows what a worker says on a terminal's bar; a log would be flooded by it."""

    def say(text: str) -> None:
        if sys.stderr.isatty():
            report.step(f"{name}: {text}", advance=0)

    return say


def run_profile(request: Request, writer: RunWriter) -> None:
    """Record `traces/<variant>/trace.json.gz` of every variant; failures go into the manifest.

    Variants that failed or were rejected earlier in the same run get no figures here either.
    """
    so_far = Evidence(open_run(writer.folder))
    variants = [v for v in request.variants if so_far.state(v.name)[0] == "measured"]
    facts: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with Reporter(request.problem.name, 2 * len(variants)) as report:
        profiles = _Profiles(request, writer, report)
        each = in_order(profiles.record, variants, how_many(request), profiles.interrupt)
        for variant, found in zip(variants, each, strict=True):
            if isinstance(found, WorkerFailed):
                failures[variant.name] = without_places(str(found))
            else:
                facts[variant.name] = found
    writer.update(profile_facts=facts, profile_failures=failures)


class _Profiles:
    """Records one variant after the other, or two at a time; each in a process of its own."""

    def __init__(self, request: Request, writer: RunWriter, report: Reporter) -> None:
        self._request, self._writer, self._report = request, writer, report
        self._underway: dict[str, Worker] = {}
        self._stopped = False

    def record(self, variant: Variant) -> dict[str, Any] | WorkerFailed:
        """The facts about its profile, or why there is none."""
        request, report = self._request, self._report
        report.step(f"preparing the profile of {variant.name}")
        folder = self._writer.folder / "traces" / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        worker = start_worker(request, variant, self._writer, profiled=True)
        self._underway[variant.name] = worker
        try:
            if self._stopped:
                worker.interrupt()
            arguments = open_arguments(request, variant, profiled=True)
            worker.request("open", PREPARE_SECONDS, **arguments)
            prepared = worker.request("prepare", PREPARE_SECONDS)["facts"]
            report.step(f"profiling {variant.name}")
            recorded = worker.request(
                "profile",
                PREPARE_SECONDS,
                on_progress=_progress(report, variant.name),
                folder=str(folder),
            )["facts"]
            return {**prepared, **recorded}
        except WorkerFailed as error:
            report.step(str(error))
            return error
        finally:
            worker.close()
            del self._underway[variant.name]

    def interrupt(self) -> None:
        """Whoever waits for a worker sees it end."""
        self._stopped = True
        for worker in list(self._underway.values()):
            worker.interrupt()


def run_study(request: Request, writer: RunWriter) -> None:
    """Time all variants, then profile each in its own process: compiling twice would take too long.

    Nothing is timed any more when the first profile begins.
    """
    facts: dict[str, Any] = {}

    def profile(variant: Variant, worker: Worker) -> None:
        folder = writer.folder / "traces" / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        recorded = worker.request("profile", PREPARE_SECONDS, folder=str(folder))
        facts[variant.name] = recorded["facts"]

    run_bench(request, writer, after=profile)
    writer.update(profile_facts=facts, profile_failures={})
