"""What happens to damaged reports of Nsight Compute and Nsight Systems, which NVIDIA's code reads?

    python tests/fuzz/report_files.py --cases 1000 --seed 11 --out RESULT.json

Copies of the small real reports (WORKLOG_TEST_DATA) with flipped bits, zeroed, deleted, repeated or
cut parts and huge lengths. NVIDIA's readers may abort, loop or find less than there is; ours must
answer within ten seconds, in one line that ends in an action or with what was read, and must not
lose a launch without a word. A case is made from (seed, number). Nsight Systems' reports are tried
only where `nsys` is installed, and only every tenth case: each starts that program.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from common.errors import WorklogError  # noqa: E402
from common.traces.formats import open_and_summarise  # noqa: E402

NCU = ("ncu/toy_2080ti.ncu-rep", "ncu/sgemm_a10g_0331_nan.ncu-rep", "ncu/matmul_h100.ncu-rep")
NSYS = ("nsys/nvtx_only_2022.nsys-rep",)
NSYS_EVERY = 10
LONGEST_S = 10.0
CHANGES = ("flip", "flips", "cut", "zero", "repeat", "delete", "length")


def damaged(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """(the damaged copy, what was done). Two cases in five hit the head, where the lengths are."""
    out = bytearray(data)
    at = draw.randrange(min(600, len(out)) if draw.random() < 0.4 else len(out))
    change = draw.choice(CHANGES)
    if change == "flip":
        out[at] ^= 1 << draw.randrange(8)
    elif change == "flips":
        for _ in range(20):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    elif change == "cut":
        del out[at:]
    elif change == "zero":
        out[at : at + 64] = bytes(len(out[at : at + 64]))
    elif change == "repeat":
        out[at:at] = out[at : at + 256]
    elif change == "delete":
        del out[at : at + draw.randrange(1, 300)]
    else:
        out[at : at + 4] = draw.choice((b"\xff\xff\xff\x7f", b"\xff" * 4, b"\x00\x00\x00\x80"))
    return bytes(out), f"{change} at {at}"


@cache
def whole(path: Path) -> tuple[bytes, int]:
    """(the undamaged report, how many launches or events it has)."""
    return path.read_bytes(), found_in(open_and_summarise(path)[-1])


def found_in(summary: Any) -> int:
    return int(summary["events"] if "events" in summary else summary["launches"])


def judged(path: Path, at_most: int) -> tuple[str, str]:
    """("read", "warned" or "refused"; the fault or "")."""
    began = time.monotonic()
    try:
        summary = open_and_summarise(path)[-1]
    except WorklogError as error:
        outcome, fault = "refused", "" if "\n" not in str(error) else f"two lines: {error}"
    except Exception as error:  # this is what is looked for
        return "refused", f"{type(error).__name__}: {str(error)[:300]}"
    else:
        outcome = "warned" if summary["warnings"] else "read"
        lost = outcome == "read" and found_in(summary) < at_most
        fault = f"{found_in(summary)} of {at_most} without a word" if lost else ""
    took = time.monotonic() - began
    return outcome, fault or (f"it took {took:.1f} s" if took > LONGEST_S else "")


def run(data: Path, seed: int, cases: int) -> dict[str, Any]:
    """All cases of a seed. Raises PreconditionError where NVIDIA's reader is not installed."""
    outcomes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    with_nsys = shutil.which("nsys") is not None
    with tempfile.TemporaryDirectory() as made:
        for number in range(cases):
            draw = random.Random(f"{seed} {number}")
            is_nsys = with_nsys and number % NSYS_EVERY == 0
            name = draw.choice(NSYS if is_nsys else NCU)
            content, launches = whole(data / name)
            changed, what = damaged(content, draw)
            kind = name.rpartition(".")[2]
            path = Path(made) / f"case.{kind}"
            path.write_bytes(changed)
            outcome, fault = judged(path, launches)
            outcomes[f"{kind} {outcome}"] += 1
            if fault:
                faults.append({"number": number, "file": name, "change": what, "fault": fault})
    return {
        "reports": dict(outcomes), "cases": cases, "seed": seed, "faults": faults,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = os.environ.get("WORKLOG_TEST_DATA")
    if not data:
        parser.error("WORKLOG_TEST_DATA names no folder of real reports; set it")
    result = run(Path(data), given.seed, given.cases)
    text = json.dumps(result, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
