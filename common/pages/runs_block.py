"""What does a reader type to name the recorded runs? A shell variable for each of them."""

from __future__ import annotations

from collections.abc import Mapping

from common.contract.problem import Problem
from common.recording.run_folder import open_run


def runs_block(problem: Problem, options: Mapping[str, str]) -> str:
    """Lines to paste into a terminal, in the root of the repository; keys as in [evidence]."""
    lines = [f"recorded=problems/{problem.name}/recorded"]
    for key, place in problem.evidence.items():
        manifest = open_run(problem.folder / place).manifest
        name = key.replace("-", "_")
        command = f"{name}=$recorded/{place.removeprefix('recorded/')}"
        lines.append(
            f"{command}  # preset {manifest['preset']['name']}, {str(manifest['started'])[:10]}"
        )
    return "```bash\n" + "\n".join(lines) + "\n```"
