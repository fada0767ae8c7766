"""How does a finished run become evidence? Copied into `recorded/`, named in [evidence].

What stood under the same key before is removed: a worklog is made from one run per key.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from common.recording.run_folder import write_text

NOT_KEPT = ("logs", "report.html")
TABLE = "[evidence]\n"


def keep_run(problem: Path, key: str, run: Path) -> Path:
    """Copy `run` into the problem's folder and name it there; returns its place below `problem`."""
    place = Path("recorded") / run.parent.name / run.name
    shutil.copytree(run, problem / place, ignore=shutil.ignore_patterns(*NOT_KEPT))
    contract = problem / "problem.toml"
    head, table, evidence = contract.read_text(encoding="utf-8").partition(TABLE)
    line = f'{key} = "{place.as_posix()}"'
    former = re.search(rf'^{re.escape(key)} = "(.*)"$', evidence, re.MULTILINE)
    if former is None:
        evidence = evidence.rstrip("\n") + f"\n{line}\n" if evidence.strip() else f"{line}\n"
    else:
        evidence = evidence.replace(former[0], line)
        before = Path(former[1])
        if former[1] and before != place:
            shutil.rmtree(problem / before, ignore_errors=True)
    write_text(contract, head + (table or f"\n{TABLE}") + evidence)
    return place
