"""What could this machine do when the run was made? Its bandwidths, measured in the same run.

python -m common.experiments.floors_pass DEVICE SECONDS      (what the run itself starts)
"""

from __future__ import annotations

import os
import subprocess
import sys

from common.errors import UsageError
from common.experiments.progress import Reporter
from common.experiments.request import Request
from common.floors.measured import from_json, to_json
from common.recording.environment import without_places
from common.recording.run_folder import RunWriter, write_text
from common.timing.worker import die_with_parent
from common.timing.worker_client import child_command, child_environment

BUDGET_SECONDS = 8.0
LIMIT_SECONDS = 180.0


def floors_command(device: str) -> list[str]:
    """WORKLOG_FLOORS_SECONDS shortens it where the figures are not the point (a rehearsal)."""
    seconds = os.environ.get("WORKLOG_FLOORS_SECONDS") or str(BUDGET_SECONDS)
    return [*child_command(__name__), device, seconds]


def run_floors(request: Request, writer: RunWriter) -> None:
    """Write `floors.json`. Measured in a process of its own: torch and its buffers go with it."""
    with Reporter(request.problem.name, 1) as report:
        report.step("measuring this machine's bandwidths")
        command = floors_command(request.device)
        # Floors are context: without them the run is still one, and says what it lacks.
        try:
            done = subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT_SECONDS,
                env=child_environment(),
            )
            from_json(done.stdout)
        except subprocess.CalledProcessError as error:
            words = str(error.stderr).strip().splitlines()
            failure = words[-1] if words else f"ended with exit code {error.returncode}"
        except subprocess.TimeoutExpired:
            failure = f"not done after {LIMIT_SECONDS:g} s"
        except (OSError, UsageError) as error:
            failure = str(error)
        else:
            write_text(writer.folder / "floors.json", done.stdout)
            return
        writer.update(floors_failure=without_places(failure)[:300])
        report.step(f"no floors: {failure[:200]}")


def main() -> None:
    die_with_parent()  # a run that is killed leaves nothing behind that loads the machine
    from common.floors.measure import measure_floors

    device, budget = sys.argv[1:]
    print(to_json(measure_floors("cuda" if device == "cuda" else "cpu", budget_s=float(budget))))


if __name__ == "__main__":
    main()
