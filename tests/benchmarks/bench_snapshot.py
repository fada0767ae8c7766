"""What does it cost to read and analyse a memory snapshot of a million events?

    python tests/benchmarks/bench_snapshot.py [--events 1000000] [--rounds 5] [--against DIR]

Whole processes (`worklog show --json` of one generated snapshot, `worklog diff --json` of two), all
in turn within a round, medians. `--against` names another checkout of this repository, which is
measured in the same rounds: on a busy machine only such a ratio says anything. Writes the figures
to tests/benchmarks/recorded/ and the table to tests/benchmarks/README.md, unless --against or
another number of events is given. Not a test: what misses its target is marked in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_table import table_of, write_page
from generate_snapshot import write_snapshot
from whole_process import ROOT, Subject, about, interleaved, medians

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded" / "snapshot.json"
MILLION = 1_000_000


def subjects(pair: tuple[Path, Path], tree: Path, name: str) -> list[Subject]:
    """`show` and `diff` as the package of `tree` has them."""
    code = f"import sys; sys.path.insert(0, {str(tree)!r}); from common.cli import main; "
    start = (sys.executable, "-P", "-c", code + "sys.exit(main(sys.argv[1:]))")
    a, b = map(str, pair)
    return [
        Subject(f"show{name}", ((*start, "show", a, "--json"),)),
        Subject(f"diff{name}", ((*start, "diff", a, b, "--json"),)),
    ]


def measure(events: int, rounds: int, against: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        pair = Path(made) / "a.pickle", Path(made) / "b.pickle"
        held = [write_snapshot(path, events, side) for path, side in zip(pair, "ab", strict=True)]
        chosen = subjects(pair, ROOT, "")
        if against is not None:
            chosen += subjects(pair, against.resolve(), f" of {against.name}")
        costs, failed = interleaved(chosen, rounds)
    return {"costs": medians(costs), "failed": failed, "files": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=MILLION)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    given = parser.parse_args()
    found = measure(given.events, given.rounds, given.against)
    print("\n".join(table_of(found["costs"], found["costs"]["show"])))
    for name, why in found["failed"].items():
        print(f"{name} failed: {why}")
    if given.against is None and given.events == MILLION and not found["failed"]:
        RECORDED.write_text(json.dumps({**found, "about": about("show")}, indent=1) + "\n")
        write_page()


if __name__ == "__main__":
    main()
