"""How fast is a diff, and how much memory does it take, beside other tools and the least possible?

    python tests/benchmarks/bench_diff.py --data DIR [--only hta|million|nsys] [--rounds 5]

Whole processes, all tools in turn within a round, medians. Writes the figures to
tests/benchmarks/recorded/ and the table to tests/benchmarks/README.md. DIR holds the real traces
`torch/hta_control.json.gz` and `torch/hta_test.json.gz`; peers come from peers.py. Large traces are
generated. Not a test: what misses its target is marked in the table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_table import all_recorded, render, write_page
from peers import install
from whole_process import Subject, about, interleaved, medians

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded" / "diff.json"
OURS, BARE = "worklog", "msgspec bound"
BATCH, COMPRESS = "ijson_batched", "ijson_batch_and_compress"
SIZES = (100_000, 1_000_000, 3_000_000)
BARE_CODE = """
import mmap, sys
import msgspec
class Event(msgspec.Struct, gc=False):
    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
class File(msgspec.Struct, gc=False):
    traceEvents: list[Event]
for path in sys.argv[1:]:
    with open(path, "rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        print(len(msgspec.json.decode(data, type=File).traceEvents))
        data.close()
"""


def ours(a: Path, b: Path) -> Subject:
    return Subject(OURS, ((sys.executable, "-m", "common.cli", "diff", str(a), str(b), "--json"),))


def bare(a: Path, b: Path) -> Subject:
    return Subject(BARE, ((sys.executable, "-c", BARE_CODE, str(a), str(b)),))


def measure_hta(data: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """The control and test traces of HTA's own tests, unpacked, so that all read the same bytes."""
    pair = []
    for name in ("hta_control", "hta_test"):
        pair.append(folder / f"{name}.json")
        with gzip.open(data / "torch" / f"{name}.json.gz") as source, pair[-1].open("wb") as target:
            shutil.copyfileobj(source, target)
    subjects: list[Subject] = []
    for peer, title in (("hta", "HTA 0.5.0"), ("traceinsight", "traceinsight 0.6.1")):
        start = (str(install(peer)), str(HERE / "hta_diff.py"))
        for backend in ("default", BATCH, COMPRESS):
            command = (*start, backend, *map(str, pair))
            # Ours and the bound side by side, again and again: both are over before the machine's
            # speed has changed, so their ratio says what seconds by themselves cannot.
            subjects += [ours(*pair), bare(*pair), Subject(f"{title}, {backend}", (command,))]
    return _measured(subjects, rounds)


def measure_million(folder: Path, rounds: int) -> dict[str, Any]:
    """Generated pairs of growing size; the largest once less often."""
    found: dict[str, Any] = {"sizes": {}}
    for size in SIZES:
        pair = [folder / f"{size}_{side}.json" for side in "ab"]
        for side, path in zip("ab", pair, strict=True):
            generate = [str(HERE / "generate_trace.py"), str(size), str(path), "--side", side]
            subprocess.run([sys.executable, *generate], check=True, stdout=subprocess.DEVNULL)
        times = rounds if size < SIZES[-1] else max(2, rounds // 2)
        found["sizes"][str(size)] = _measured([ours(*pair), bare(*pair)], times)
        for path in pair:
            path.unlink()
    walls = [found["sizes"][str(size)]["costs"][OURS]["cpu_s"] for size in SIZES]
    # time ~ events ** slope: 1 is linear
    slope = np.polyfit(np.log(SIZES), np.log(walls), 1)[0]
    found["slope"] = round(float(slope), 3)
    return found


def measure_nsys(folder: Path, rounds: int) -> dict[str, Any]:
    path = folder / "million.sqlite"
    generate = [str(HERE / "generate_nsys.py"), "1000000", str(path)]
    subprocess.run([sys.executable, *generate], check=True)
    show = (sys.executable, "-m", "common.cli", "show", str(path), "--json")
    return _measured([Subject(OURS, (show,))], rounds)


def _measured(subjects: list[Subject], rounds: int) -> dict[str, Any]:
    costs, failed = interleaved(subjects, rounds)
    return {"costs": medians(costs), "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the real traces")
    parser.add_argument("--only", action="append", choices=("hta", "million", "nsys"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table-only", action="store_true", help="print what is recorded")
    given = parser.parse_args()
    parts = given.only or ["hta", "million", "nsys"]
    found = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    if not given.table_only:
        if "hta" in parts and given.data is None:
            parser.error("the HTA pair needs --data DIR")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            for part in parts:
                measured = {
                    "hta": lambda: measure_hta(given.data, folder, given.rounds),
                    "million": lambda: measure_million(folder, given.rounds),
                    "nsys": lambda: measure_nsys(folder, given.rounds),
                }[part]()
                found[part] = {**measured, "about": about("diff")}
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_page()
    print(render(all_recorded(), "<!-- figures -->\n<!-- end of figures -->"))


if __name__ == "__main__":
    main()
