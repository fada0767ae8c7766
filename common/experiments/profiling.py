"""What does each variant spend its time and memory on? A separate pass, never a timed one."""

from __future__ import annotations

from typing import Any

from common.experiments.bench import PREPARE_SECONDS, open_arguments, start_worker
from common.experiments.progress import Reporter
from common.experiments.request import Request
from common.recording.run_folder import RunWriter
from common.timing.worker_client import WorkerFailed


def run_profile(request: Request, writer: RunWriter) -> None:
    """Record `traces/<variant>/trace.json.gz` of every variant; failures go into the manifest."""
    facts: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with Reporter(request.problem.name, 2 * len(request.variants)) as report:
        for variant in request.variants:
            report.step(f"preparing the profile of {variant.name}")
            folder = writer.folder / "traces" / variant.name
            folder.mkdir(parents=True, exist_ok=True)
            worker = start_worker(request, variant, writer, profiled=True)
            try:
                arguments = open_arguments(request, variant, profiled=True)
                worker.request("open", PREPARE_SECONDS, **arguments)
                prepared = worker.request("prepare", PREPARE_SECONDS)["facts"]
                report.step(f"profiling {variant.name}")
                recorded = worker.request("profile", PREPARE_SECONDS, folder=str(folder))["facts"]
                facts[variant.name] = {**prepared, **recorded}
            except WorkerFailed as error:
                failures[variant.name] = str(error)
            finally:
                worker.close()
    writer.update(profile_facts=facts, profile_failures=failures)
