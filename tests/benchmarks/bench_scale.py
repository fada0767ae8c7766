"""Do the largest files still fit, and does the cost grow with them in a straight line?

    python tests/benchmarks/bench_scale.py [--only torch|nsys|ranks] [--folder DIR]

Ten million events of torch.profiler and five million kernels of Nsight Systems through
`worklog show` and `worklog diff`, and a folder of 64 ranks beside another. Files are generated, one
size after the other, and deleted at once: the largest pair takes 5 GB in DIR. Writes
tests/benchmarks/recorded/scale.json, which `tests/fuzz/figures.py` puts into tests/README.md.

Memory is the largest sum over all processes of a command, pages that they share counted in each:
an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from whole_process import Cost, about, cost_of

HERE = Path(__file__).resolve().parent
RESULT = HERE / "recorded" / "scale.json"
TORCH_EVENTS = (1_000_000, 3_000_000, 10_000_000)
NSYS_KERNELS = (500_000, 1_500_000, 5_000_000)
RANKS, EVENTS_PER_RANK = 64, 50_000
LIMIT_S = 3_600.0


def measure_sizes(
    sizes: Sequence[int], generator: str, ending: str, folder: Path, keep: Callable[[Any], None]
) -> Any:
    """`show` of one file and `diff` of two, once for every size: CPU time is the figure. What is
    known is kept after every size: the largest take long."""
    found: dict[str, Any] = {"sizes": {}}
    for size in sizes:
        pair = [folder / f"{side}{ending}" for side in "ab"]
        for number, path in enumerate(pair):
            generate(generator, size, path, number)
        costs = {
            "show": cost_of(worklog("show", pair[0]), LIMIT_S),
            "diff": cost_of(worklog("diff", *pair), LIMIT_S),
        }
        found["sizes"][str(size)] = {
            "bytes": [path.stat().st_size for path in pair],
            "costs": {name: _figures(cost) for name, cost in costs.items()},
        }
        for path in pair:
            path.unlink()
        print(size, found["sizes"][str(size)], file=sys.stderr, flush=True)
        done = [size for size in sizes if str(size) in found["sizes"]]
        for command in ("show", "diff") if len(done) > 1 else ():
            costs_of = [found["sizes"][str(n)]["costs"][command] for n in done]
            found[f"fit_{command}"] = fitted(done, costs_of)
            keep(found)
    return found


def generate(generator: str, size: int, path: Path, number: int) -> None:
    """The second side is the same program slower in places (torch), or one of another seed."""
    more = ["--side", "ab"[number]] if "trace" in generator else ["--seed", str(number + 1)]
    command = [sys.executable, str(HERE / generator), str(size), str(path), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def worklog(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "common.cli", *map(str, words)]


def fitted(sizes: Sequence[int], costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """cost = start + slope * size, by least squares of the relative error; the worst such error."""
    counts = np.array(sizes, dtype=np.float64)
    said = {}
    for key in ("cpu_s", "peak_mib"):
        values = np.array([cost[key] for cost in costs])
        rows = np.stack([1 / values, counts / values], axis=1)
        start, slope = np.linalg.lstsq(rows, np.ones(len(values)), rcond=None)[0]
        worst = float(np.max(np.abs((start + slope * counts) / values - 1)))
        exponent = float(np.polyfit(np.log(counts), np.log(values), 1)[0])
        said |= {
            f"{key}_start": round(float(start), 3),
            f"{key}_per_million": round(float(slope) * 1e6, 3),
            f"{key}_worst_error": round(worst, 3),
            f"{key}_exponent": round(exponent, 3),
        }
    return said


def measure_ranks(
    folder: Path, keep: Callable[[Any], None], ranks: int = RANKS, events: int = EVENTS_PER_RANK
) -> Any:
    """Two folders of per-rank traces beside each other; a quarter of the ranks shows the slope."""
    sides = [folder / side for side in "ab"]
    for number, side in enumerate(sides):
        side.mkdir()
        for rank in range(ranks):
            path = side / f"rank-{rank}.json"
            more = ["--side", "ab"[number], "--seed", str(rank + 1)]
            command = [sys.executable, str(HERE / "generate_trace.py"), str(events), str(path)]
            subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = {"ranks": ranks, "events_per_rank": events, "costs": {}}
    found["one"] = _figures(
        cost_of(worklog("diff", *(side / "rank-0.json" for side in sides)), LIMIT_S)
    )
    for count in (ranks, ranks // 4):
        for side in sides:
            for path in sorted(side.iterdir(), key=lambda p: int(p.stem.split("-")[1]))[count:]:
                path.unlink()
        found["costs"][str(count)] = _figures(cost_of(worklog("diff", *sides), LIMIT_S))
        keep(found)
        print(count, found["costs"][str(count)], file=sys.stderr, flush=True)
    for side in sides:
        for path in side.iterdir():
            path.unlink()
        side.rmdir()
    return found


def _keep(found: dict[str, Any], part: str, about: dict[str, Any], measured: Any) -> None:
    found[part] = {**measured, "about": about}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _figures(cost: Cost) -> dict[str, float]:
    return {
        "wall_s": round(cost.wall_s, 2),
        "cpu_s": round(cost.cpu_s, 2),
        "peak_mib": round(cost.tree_peak_bytes / (1 << 20)),
        "largest_process_mib": round(cost.peak_bytes / (1 << 20)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=("torch", "nsys", "ranks"))
    parser.add_argument("--folder", type=Path, help="where the generated files go for a while")
    given = parser.parse_args()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    ways = {
        "torch": partial(measure_sizes, TORCH_EVENTS, "generate_trace.py", ".json"),
        "nsys": partial(measure_sizes, NSYS_KERNELS, "generate_nsys.py", ".sqlite"),
        "ranks": measure_ranks,
    }
    for part in given.only or list(ways):
        with tempfile.TemporaryDirectory(dir=given.folder) as made:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            on = {
                **about("show and diff"), "memory_gib": round(memory / (1 << 30), 1),
            }  # fmt: skip
            ways[part](Path(made), partial(_keep, found, part, on))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
