"""What is survived, in figures? Prints the table of tests/README.md from what was recorded.

    python tests/fuzz/figures.py                  print the table
    python tests/fuzz/figures.py --write          put it into tests/README.md
    python tests/fuzz/figures.py --add RESULT …   take over what long_run.py or kills.py wrote

Several parts of one long run (same seed, other numbers of cases) are added up. Every line says
what was run, not what was meant to be: a run that was broken off counts with what it did.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDED, README = HERE / "recorded", HERE.parent / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
WANTED_CASES, WANTED_KILLS = 1_000_000, 200


def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RECORDED.glob(f"{name}*.json"))]


def rows() -> list[tuple[str, str, str, str]]:
    """(what, figure, wanted, met or missed)."""
    runs, kills = recorded("fuzz"), recorded("kills")
    found: list[tuple[str, str, str, str]] = []
    if runs:
        outcomes: Counter[str] = Counter()
        for run in runs:
            outcomes.update(run["outcomes"])
        cases = sum(run["cases"] for run in runs)
        faults = sum(len(run["faults"]) for run in runs)
        formats = ("torch", "nsys", "memory", "ncu", "compiled")
        split = ", ".join(
            f"{name} {outcomes[f'{name} read']:,} / {outcomes[f'{name} refused']:,}"
            for name in formats
        )
        factor, slowest = (max(run[key] for run in runs) for key in ("memory_ratio", "slowest_s"))
        found += [
            _row("damaged files", cases, f">= {WANTED_CASES:,}", cases >= WANTED_CASES),
            ("of these read / refused in one line", split, "", ""),
            _row("faults (tracebacks, lost or invented events)", faults, "0", not faults),
            _row("processes killed (crash, over 10 CPU s)", sum(r["killed"] for r in runs), "0",
                 not any(r["killed"] for r in runs)),
            _row("slowest case, CPU s", slowest, "< 10", slowest < 10),
            _row("largest memory of a process / of reading the undamaged files", factor, "<= 4",
                 factor <= 4),
            _row("differences made and closed", outcomes["compared"], "", True),
        ]  # fmt: skip
    if kills:
        count = sum(run["kills"] for run in kills)
        faults = sum(len(run["faults"]) for run in kills)
        found += [
            _row("commands killed at a random moment", count, f">= {WANTED_KILLS}",
                 count >= WANTED_KILLS),
            _row("lost samples, wrong states, starts that failed", faults, "0", not faults),
        ]  # fmt: skip
    return found


def _row(what: str, figure: float, wanted: str, met: bool) -> tuple[str, str, str, str]:
    shown = f"{figure:,}" if isinstance(figure, int) else f"{figure:g}"
    return what, shown, wanted, ("met" if met else "**missed**") if wanted else ""


def table() -> str:
    lines = ["| | figure | wanted | |", "|---|--:|--:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows()]
    notes = [
        f"- {name}: seed {run['seed']}, {run['date']}"
        + (f", cases {run['first']:,} to {run['first'] + run['cases'] - 1:,}" if "first" in run
           else "")
        + (f", {run['cpu_s']:,.0f} CPU s, Python {run['python']}, {run['machine']}"
           if "cpu_s" in run else "")
        for name in ("fuzz", "kills")
        for run in recorded(name)
    ]  # fmt: skip
    return "\n".join([*lines, "", *notes])


def with_table(text: str) -> str:
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


def add(results: Sequence[Path]) -> None:
    for path in results:
        result = json.loads(path.read_text())
        name = (
            f"fuzz-{result['seed']}-{result['first']}"
            if "first" in result
            else f"kills-{result['seed']}"
        )
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="RESULT")
    given = parser.parse_args()
    add(given.add)
    print(table())
    if given.write:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
