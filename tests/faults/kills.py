"""What is left when a command is killed at a random moment? The driver and its oracle.

    python tests/faults/kills.py --kills 200 --seed 3 --out RESULT.json

Each kill: the command is started on a problem that spins (`helpers.synthetic`) or on files, gets
SIGKILL after a time drawn between nothing and a little more than it takes, and then everything
that it left is looked at: every run folder can be opened and says whether it is finished, every
sample that a reader could have seen before is still there, no half-written page or document, no
process is left. Last, the same command is started again and must succeed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.cases import GOOD  # noqa: E402
from helpers.command import processes_naming, start, wait_for, worklog  # noqa: E402
from helpers.recordable import make_recordable, step  # noqa: E402
from helpers.synthetic import make_problem  # noqa: E402

from common.experiments.import_evidence import import_evidence  # noqa: E402
from common.recording.abandoned import HIDDEN  # noqa: E402
from common.recording.run_folder import open_run  # noqa: E402
from common.report.summary import build_summary  # noqa: E402

KINDS = ("bench", "profile", "report", "diff", "convert", "nsys", "record")
NSYS = """#!/bin/sh
case "$*" in
  --version) echo "Version 2022.4.2"; exit 0 ;;
  *--help*) cat "{help}"; exit 0 ;;
esac
for word in "$@"; do case "$word" in --output=*) out=${{word#--output=}} ;; esac; done
printf half > "$out.nsys-rep"
sleep 0.4
cp "{sqlite}" "$out.sqlite"
"""


class Broken(AssertionError):
    """Something that a kill must not do."""


class Place:
    """A root with the spinning problem, a finished run and two traces. One kind of command each."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        steps = [step(f"step{n}", n, "--pause", "0.02") for n in range(1, 4)]
        made = make_recordable(root, steps) if kind == "record" else make_problem(root)
        (root / "pyproject.toml").write_text("")  # a checkout, for a rehearsal
        problem = made / "problem.toml"
        text = problem.read_text().replace("[evidence]", '[capture]\nnvtx_range = "x"\n[evidence]')
        problem.write_text(text)
        (root / "a.json").write_bytes(GOOD["torch"])
        (root / "b.sqlite").write_bytes(GOOD["nsys"])
        self.environment = {"SEALS": "{}"} if kind == "record" else {}
        if kind == "nsys":
            stored = ROOT / "tests" / "data" / "profiler_help" / "nsys-2022.4.2.txt"
            tool = root / "fake-nsys"
            tool.write_text(NSYS.format(help=stored, sqlite=root / "b.sqlite"))
            tool.chmod(0o755)
            self.environment["NSYS"] = str(tool)
        self.whole_s = 0.0
        began = time.monotonic()
        done = worklog(root, *self.arguments("0"), **self.environment)
        self.whole_s = time.monotonic() - began
        if done.returncode not in (0, 1):
            raise Broken(f"{kind} does not even run: {done.stderr[-500:]}")

    def arguments(self, number: str) -> list[str]:
        if self.kind in ("bench", "profile"):
            return [self.kind, "spin", "--preset", "tiny"]
        if self.kind == "nsys":
            return ["nsys", "spin", "--preset", "tiny"]
        if self.kind == "record":
            return ["record", "--rehearse", "--out", str(self.root / "out")]
        if self.kind == "report":
            return ["report", str(self._run()), "--out", str(self.root / "report.html")]
        if self.kind == "convert":
            return ["convert", "a.json", "--parquet", str(self.root / f"tables{number}")]
        pages = ["--html", str(self.root / "d.html"), "--markdown", str(self.root / "d.md")]
        return ["diff", "a.json", "b.sqlite", *pages]

    def _run(self) -> Path:
        finished = [p for p in self.runs() if open_run(p).finished]
        if not finished:
            worklog(self.root, "bench", "spin", "--preset", "tiny")
        return next(p for p in self.runs() if open_run(p).finished)

    def runs(self) -> list[Path]:
        found = [*self.root.glob("results/*/*/*"), *self.root.glob("out/*/steps/*/runs/*/*/*")]
        return [path for path in sorted(found) if not path.name.startswith(HIDDEN)]

    def sessions(self) -> list[Path]:
        return [path.parent for path in sorted(self.root.glob("out/*/session.json"))]

    def lines(self) -> dict[Path, int]:
        """Whole lines of samples by run, under the name without its ending."""
        return {
            folder.with_name(folder.name.removesuffix(".unfinished")): (
                (folder / "samples.jsonl").read_bytes().count(b"\n")
            )
            for folder in self.runs()
            if (folder / "samples.jsonl").exists()
        }


def kill(place: Place, draw: random.Random, number: int) -> str:
    """One kill; returns in which state it left things. Raises Broken."""
    before = {path: path.read_bytes() for path in place.root.glob("*.html")}
    process = start(place.root, *place.arguments(str(number)), **place.environment)
    moment = draw.random() * 1.1 * place.whole_s
    process_ended = wait_for(lambda: process.poll() is not None, moment)
    seen = {} if process_ended else _lines_now(place)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not wait_for(lambda: not _left(place), 20):
        raise Broken(f"processes are left: {_left(place)}")
    _look(place, seen)
    for path, old in before.items():
        text = path.read_bytes()
        if text != old and not text.rstrip().endswith(b"</html>"):
            raise Broken(f"{path.name} is half written")
    done = worklog(place.root, *place.arguments(f"{number}-again"), **place.environment)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise Broken(f"the next start does not work: {done.stderr[-300:]}")
    return f"{place.kind}, {'after its end' if process_ended else 'killed'}"


def _lines_now(place: Place) -> dict[Path, int]:
    try:
        return place.lines()
    except OSError:  # renamed just now
        return {}


def _left(place: Place) -> list[int]:
    """Processes of the command; the fake profiler and its program die with their own time."""
    return [p for p in processes_naming(str(place.root)) if p != os.getpid()]


def _look(place: Place, seen: dict[Path, int]) -> None:
    lines = place.lines()
    for folder, count in seen.items():
        if lines.get(folder, 0) < count:
            raise Broken(f"{folder.name} held {count} samples and holds {lines.get(folder, 0)}")
    for session in place.sessions():
        with tempfile.TemporaryDirectory(prefix="worklog-kills-") as copy:
            shutil.copytree(place.root / "problems", Path(copy) / "problems")
            lost = import_evidence([session], Path(copy)).warnings
        if lost:
            raise Broken(f"{session.name} does not come home: {lost[0]}")
    for folder in place.runs():
        if place.kind == "record" and not (folder / "manifest.json").exists():
            continue  # the steps of the tests write theirs one file after the other
        run = open_run(folder)  # raises UsageError for a folder without a manifest
        if run.finished == folder.name.endswith(".unfinished"):
            raise Broken(f"{folder.name} says finished={run.finished}")
        run.samples()
        if place.kind != "record" and run.manifest["kind"] in ("bench", "profile", "run"):
            build_summary(run)


def campaign(kills: int, seed: int, out: Path | None = None) -> dict[str, Any]:
    draw = random.Random(seed)
    total: dict[str, Any] = {
        "seed": seed, "kills": 0, "outcomes": Counter(), "faults": [],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="worklog-kills-") as folder:
        places = [Place(_made(Path(folder) / kind), kind) for kind in KINDS]
        for number in range(kills):
            place = places[number % len(places)]
            try:
                total["outcomes"][kill(place, draw, number)] += 1
            except Exception as error:
                total["faults"].append(f"{number}, {place.kind}: {type(error).__name__}: {error}")
            total["kills"] += 1
            if out is not None:
                out.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
    return total


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    total = campaign(given.kills, given.seed, given.out)
    print(json.dumps(total, indent=1))
    return 1 if total["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
