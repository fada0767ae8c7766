"""What is survived, in figures? Prints the table of tests/README.md from what was recorded.

    python tests/fuzz/figures.py                  print the table
    python tests/fuzz/figures.py --write          put it into tests/README.md
    python tests/fuzz/figures.py --add RESULT …   take over what long_run.py, guided.py,
                                                  report_files.py or kills.py wrote

Several parts of one long run (same seed, other numbers of cases) are added up. Every line says
what was run, not what was meant to be: a run that was broken off counts with what it did. The
figures of scale are those of tests/benchmarks/bench_scale.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDED, README = HERE / "recorded", HERE.parent / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
SCALE = HERE.parent / "benchmarks" / "recorded" / "scale.json"
WANTED_CASES, WANTED_KILLS = 1_000_000, 200
WANTED_GUIDED_S = 300  # CPU seconds for each reader
WANTED_REPORTS = 1_000  # a process of NVIDIA's code each
KINDS = {"guided": "guided", "reports": "reports", "first": "fuzz"}  # by a key of the result
# Stated for a machine of 24 GiB; a fit may miss the largest file's cost by a fifth.
WANTED_SIZES = {"torch": 10_000_000, "nsys": 5_000_000}
MEMORY_GIB, WORST_ERROR, LARGEST_EXPONENT = 8, 0.2, 1.1


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
            _row("of these cut from real files",
                 sum(run.get("from_real_files", 0) for run in runs), "", True),
            ("of these read / refused in one line", split, "", ""),
            _row("faults (tracebacks, lost or invented events)", faults, "0", not faults),
            _row("processes killed (crash, over 10 CPU s)", sum(r["killed"] for r in runs), "0",
                 not any(r["killed"] for r in runs)),
            _row("slowest case, CPU s", slowest, "< 10", slowest < 10),
            _row("largest memory of a process / of reading the undamaged files", factor, "<= 4",
                 factor <= 4),
            _row("differences made and closed", outcomes["compared"], "", True),
        ]  # fmt: skip
    found += _report_rows() + _guided_rows()
    if kills:
        count = sum(run["kills"] for run in kills)
        faults = sum(len(run["faults"]) for run in kills)
        found += [
            _row("commands killed at a random moment", count, f">= {WANTED_KILLS}",
                 count >= WANTED_KILLS),
            _row("lost samples, wrong states, starts that failed", faults, "0", not faults),
        ]  # fmt: skip
    return found + _scale_rows()


def _report_rows() -> list[tuple[str, str, str, str]]:
    """Reports that NVIDIA's own code reads."""
    runs = recorded("reports")
    if not runs:
        return []
    outcomes: Counter[str] = Counter()
    for run in runs:
        outcomes.update(run["reports"])
    split = ", ".join(
        f"{kind} {outcomes[f'{kind} read']:,} / {outcomes[f'{kind} warned']:,} / "
        f"{outcomes[f'{kind} refused']:,}"
        for kind in ("ncu-rep", "nsys-rep")
    )
    cases, faults = sum(run["cases"] for run in runs), sum(len(run["faults"]) for run in runs)
    return [
        _row("damaged reports of ncu and nsys", cases, f">= {WANTED_REPORTS:,}",
             cases >= WANTED_REPORTS),
        ("of these read / read with a warning / refused", split, "", ""),
        _row("faults (tracebacks, over 10 s, launches lost without a word)", faults, "0",
             not faults),
    ]  # fmt: skip


def _guided_rows() -> list[tuple[str, str, str, str]]:
    """The runs that are guided by coverage; each reader counts with all that was run of it."""
    readers: dict[str, list[dict[str, Any]]] = {}
    for run in recorded("guided"):
        for reader, result in run["guided"].items():
            readers.setdefault(reader, []).append(result)
    if not readers:
        return []
    spent = {reader: sum(one["cpu_s"] for one in parts) for reader, parts in readers.items()}
    each = ", ".join(
        f"{reader} {sum(one['executions'] for one in parts):,} / "
        f"{max(one['edges'] for one in parts):,} / {max(one['features'] for one in parts):,}"
        for reader, parts in readers.items()
    )
    faults = sum(len(one["faults"]) + len(one["killed"]) for p in readers.values() for one in p)
    least = min(spent.values())
    return [
        ("guided by coverage: executions / edges / features", each, "", ""),
        _row("least CPU s for a reader", round(least), f">= {WANTED_GUIDED_S}",
             least >= WANTED_GUIDED_S),
        _row("faults found by it and not mended", faults, "0", not faults),
    ]  # fmt: skip


def _scale_rows() -> list[tuple[str, str, str, str]]:
    """The largest files; a line for each command, and whether the cost is a straight line."""
    scale = json.loads(SCALE.read_text(encoding="utf-8")) if SCALE.exists() else {}
    found = []
    for part, unit in (("torch", "events of torch"), ("nsys", "kernels of nsys")):
        if part not in scale:
            continue
        size, largest = max(scale[part]["sizes"].items(), key=lambda item: int(item[0]))
        for command in ("show", "diff"):
            cost, fit = largest["costs"][command], scale[part][f"fit_{command}"]
            met = cost["peak_mib"] <= MEMORY_GIB * 1024 and int(size) >= WANTED_SIZES[part]
            found.append(_scale_row(f"`{command}` of {int(size):,} {unit}", cost, met, part))
            linear = (
                fit["cpu_s_exponent"] <= LARGEST_EXPONENT and fit["cpu_s_worst_error"] < WORST_ERROR
            )
            says = (
                f"{fit['cpu_s_per_million']:.2f} CPU s and {fit['peak_mib_per_million']:.0f} MiB "
                f"a million, within {100 * fit['cpu_s_worst_error']:.0f} %; "
                f"~ n^{fit['cpu_s_exponent']:.2f}"
            )
            wanted = f"n^{LARGEST_EXPONENT}, {WORST_ERROR:.0%}"
            over = f"its cost over {len(scale[part]['sizes'])} sizes"
            found.append((over, says, wanted, _judged(linear)))
    ranks = scale.get("ranks")
    if ranks:
        for count, cost in ranks["costs"].items():
            one = ranks["one"]["peak_mib"]
            bound = (ranks["about"]["cores"] + 1) * max(one, 100)
            what = f"`diff` of {count} ranks, {ranks['events_per_rank']:,} events each"
            text = f"{cost['cpu_s']:.0f} CPU s, {cost['peak_mib']:,} MiB"
            wanted = f"<= {bound:,} MiB"
            found.append((what, text, wanted, _judged(cost["peak_mib"] <= bound)))
    return found


def _scale_row(
    what: str, cost: dict[str, float], met: bool, part: str
) -> tuple[str, str, str, str]:
    figure = f"{cost['cpu_s']:.0f} CPU s, {cost['peak_mib'] / 1024:.1f} GiB"
    wanted = f"{WANTED_SIZES[part] // 10**6}M, <= {MEMORY_GIB} GiB"
    return what, figure, wanted, _judged(met)


def _judged(met: bool) -> str:
    return "met" if met else "**missed**"


def _row(what: str, figure: float, wanted: str, met: bool) -> tuple[str, str, str, str]:
    shown = f"{figure:,}" if isinstance(figure, int) else f"{figure:g}"
    return what, shown, wanted, _judged(met) if wanted else ""


def _of(run: dict[str, Any]) -> str:
    """Which readers a guided run was of."""
    return f" ({', '.join(run['guided'])})" if "guided" in run else ""


def table() -> str:
    lines = ["| | figure | wanted | |", "|---|--:|--:|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows()]
    notes = [
        f"- {name}{_of(run)}: seed {run['seed']}, {run['date']}"
        + (f", cases {run['first']:,} to {run['first'] + run['cases'] - 1:,}" if "first" in run
           else "")
        + (f", {run['cpu_s']:,.0f} CPU s, Python {run['python']}, {run['machine']}"
           if "cpu_s" in run else "")
        for name in ("fuzz", "reports", "guided", "kills")
        for run in recorded(name)
    ]  # fmt: skip
    files = {
        name: sha for run in recorded("fuzz") for name, sha in run.get("real_files", {}).items()
    }
    if files:
        text = "".join(f"{name} {sha}\n" for name, sha in sorted(files.items()))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        notes.append(f"- real files: {len(files)}, their hashes are in `fuzz/recorded` ({digest})")
    if SCALE.exists():
        about = next(iter(json.loads(SCALE.read_text(encoding="utf-8")).values()))["about"]
        notes.append(
            f"- scale: {about['date']}, {about['cores']} cores ({about['cpu']}), "
            f"{about['memory_gib']} GiB, Python {about['python']}; all processes of a command "
            "added up; measured-cpu"
        )
    return "\n".join([*lines, "", *notes])


def with_table(text: str) -> str:
    head, rest = text.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}"


def add(results: Sequence[Path]) -> None:
    for path in results:
        result = json.loads(path.read_text())
        kind = next((kind for key, kind in KINDS.items() if key in result), "kills")
        part = [str(result["first"])] if kind == "fuzz" else sorted(result.get("guided", ()))
        name = "-".join([kind, str(result["seed"]), *part])
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
