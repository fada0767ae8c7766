"""How is a study run that is no timing of variants? Its script `study_NAME.py`, in a process.

The script prints one JSON document: {"schema": "worklog.study/1", "title", "columns", "rows",
"checks": [{"says", "holds"}]}. It may take as long as it likes and says its progress on stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from common.contract.problem import load_problem
from common.errors import CheckFailed
from common.timing.worker_client import child_environment

SCHEMA = "worklog.study/1"


def run_script(problem_name: str, study: str, as_json: bool) -> int:
    """Run one script, print its table (or document); exit code 1 if one of its checks says no."""
    script = load_problem(problem_name).folder / f"study_{study}.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["schema"] == SCHEMA
        checks = [(str(row["says"]), bool(row["holds"])) for row in document["checks"]]
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        raise CheckFailed(
            f"study {study} gave no result (exit code {done.returncode}); read its messages above"
        ) from error
    print(json.dumps(document, indent=1) if as_json else _text(document, checks))
    return 0 if done.returncode == 0 and all(holds for _, holds in checks) else 1


def _text(document: dict[str, Any], checks: list[tuple[str, bool]]) -> str:
    columns = [str(column) for column in document["columns"]]
    rows = [["" if cell is None else str(cell) for cell in row] for row in document["rows"]]
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    lines = [f"{document['title']}\n"]
    for line in [columns, ["-" * width for width in widths], *rows]:
        lines.append("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    lines += ["", *(f"{'holds' if holds else 'FAILS'}: {says}" for says, holds in checks)]
    return "\n".join(lines)
