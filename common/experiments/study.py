"""How is a study run that is no timing of variants? Its script `study_NAME.py`, in a process.

    python study_NAME.py DEVICE PRESET      (PRESET may be empty)

The script says its progress on stderr and prints one JSON document: {"schema": "worklog.study/1",
"title", "columns", "rows", "checks": [{"says", "holds"}]}, and, if it has them, "figures": {name:
{"value", "unit", "origin", "interval"}}, "origin" and "facts". Lines of raw samples go into the
file that WORKLOG_SAMPLES names, as they are taken.

Everything is kept as a run folder, in which the study stands where a variant does: its table is
`rows`, its checks are the table `checks`, and its figures are those of claims and predictions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.problem import Problem, load_problem, root
from common.errors import CheckFailed
from common.experiments.manifest import study_manifest
from common.experiments.request import choose_device
from common.recording.environment import device_slug, read_machine, without_places
from common.recording.run_folder import RunWriter, open_run, write_json
from common.report.summary import build_summary
from common.timing.statistics import Comparison
from common.timing.worker_client import child_environment

SCHEMA = "worklog.study/1"
SAMPLES = "WORKLOG_SAMPLES"


@dataclass(frozen=True)
class Wish:
    """What the command line asked for. `arguments` are its own, without folders."""

    device: str = "auto"
    preset: str = ""
    out: Path | None = None
    arguments: Sequence[str] = ()
    as_json: bool = False


def run_script(problem_name: str, study: str, wish: Wish) -> int:
    """Run one script, keep what it gave, print its table (or document).

    Exit code 1 if one of its checks says no. Raises CheckFailed if it gives no document.
    """
    problem, machine = load_problem(problem_name), read_machine()
    device = choose_device(wish.device, machine)
    manifest = study_manifest(problem, study, device, machine, wish.preset, wish.arguments)
    parent = (wish.out or root() / "results") / problem.name / device_slug(machine, device)
    writer = RunWriter.create(parent.absolute(), manifest["revision"], study, manifest)
    try:
        document, code = _document(problem, study, device, wish.preset, writer)
    except BaseException as error:
        writer.close()
        writer.update(ended_by=type(error).__name__)
        raise
    folder = keep(document, study, writer)
    checks = [(str(row["says"]), bool(row["holds"])) for row in document["checks"]]
    if wish.as_json:
        print(json.dumps(document, indent=1))
    else:
        print(_text(document, checks) + f"\n\nrun: {folder}", flush=True)
    return 0 if code == 0 and all(holds for _, holds in checks) else 1


def _document(
    problem: Problem, study: str, device: str, preset: str, writer: RunWriter
) -> tuple[dict[str, Any], int]:
    done = subprocess.run(
        [sys.executable, str(problem.folder / f"study_{study}.py"), device, preset],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**child_environment(), SAMPLES: str(writer.folder / "samples.jsonl")},
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["schema"] == SCHEMA
        assert all({"says", "holds"} <= row.keys() for row in document["checks"])
        assert all(len(row) == len(document["columns"]) for row in document["rows"])
        assert isinstance(document["title"], str)
        assert all("value" in figure for figure in document.get("figures", {}).values())
    except (ValueError, AssertionError, AttributeError, KeyError, TypeError) as error:
        raise CheckFailed(
            f"study {study} gave no result (exit code {done.returncode}); read its messages above"
        ) from error
    return document, done.returncode


def keep(document: Mapping[str, Any], study: str, writer: RunWriter) -> Path:
    """Write the document into the run folder, as figures and tables, and finish it."""
    origin = str(document.get("origin", writer.manifest["origin"]))
    place = writer.folder / "traces" / study
    place.mkdir(parents=True)
    numbers = [str(name) for name in document.get("right", ())]
    tables = {
        "rows": _table(document["columns"], document["rows"], numbers, str(document["title"])),
        "checks": _table(
            ("check", "result"),
            [
                (c["says"], "holds" if c["holds"] else "**does not hold**")
                for c in document["checks"]
            ],
            (),
            "",
        ),
    }
    write_json(place / "tables.json", tables)
    figures = {
        name: {"unit": "", "origin": origin, **figure}
        for name, figure in document.get("figures", {}).items()
    }
    write_json(place / "figures.json", figures)
    facts = {study: dict(document.get("facts", {}))}
    writer.update(origin=origin, facts=facts)
    folder = writer.finish()
    write_json(folder / "summary.json", build_summary(open_run(folder)))
    return folder


def _table(
    columns: Sequence[object], rows: Sequence[Sequence[object]], right: Sequence[str], title: str
) -> dict[str, Any]:
    cells = [["" if cell is None else without_places(str(cell)) for cell in row] for row in rows]
    note = f"_{title}._" if title else ""
    return {"columns": list(map(str, columns)), "rows": cells, "right": list(right), "note": note}


def add_sample(line: Mapping[str, Any]) -> None:
    """For scripts: append one raw sample to the run that is being recorded, if one is."""
    path = os.environ.get(SAMPLES)
    if path:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, separators=(",", ":")) + "\n")


def ratio_figure(
    found: Comparison, unit: str = "ratio of times", factor: float = 1.0
) -> dict[str, Any]:
    """For scripts: `factor` times a ratio and its interval, as a document's figure."""
    ends = [factor * found.interval.low, factor * found.interval.high] if found.interval else None
    return {"value": factor * found.ratio, "interval": ends, "unit": unit}


def _text(document: dict[str, Any], checks: list[tuple[str, bool]]) -> str:
    columns = [str(column) for column in document["columns"]]
    rows = [["" if cell is None else str(cell) for cell in row] for row in document["rows"]]
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    lines = [f"{document['title']}\n"]
    for line in [columns, ["-" * width for width in widths], *rows]:
        lines.append("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    lines += ["", *(f"{'holds' if holds else 'FAILS'}: {says}" for says, holds in checks)]
    return "\n".join(lines)
