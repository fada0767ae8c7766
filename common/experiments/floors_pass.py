"""What could this machine do when the run was made? Its bandwidths, measured in the same run."""

from __future__ import annotations

import subprocess
import sys

from common.experiments.progress import Reporter
from common.experiments.request import Request
from common.floors.measured import from_json
from common.recording.run_folder import RunWriter

BUDGET_SECONDS = 8.0
LIMIT_SECONDS = 180.0


def run_floors(request: Request, writer: RunWriter) -> None:
    """Write `floors.json`. Measured in a process of its own: torch and its buffers go with it."""
    with Reporter(request.problem.name, 1) as report:
        report.step("measuring this machine's bandwidths")
        command = [sys.executable, "-m", "common.cli", "floors", "measure", "--json"]
        command += ["--device", request.device, "--budget", str(BUDGET_SECONDS)]
        try:
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS
            )
        except subprocess.SubprocessError as error:
            # Floors are context: without them the run is still one, and says what it lacks.
            words = getattr(error, "stderr", None) or str(error)
            writer.update(floors_failure=str(words).strip().splitlines()[-1][:300])
            return
        from_json(done.stdout)
        (writer.folder / "floors.json").write_text(done.stdout, encoding="utf-8")
