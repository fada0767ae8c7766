"""Is "fixed in 0.14.1" true for every way to run it? Inductor's generated code, as one table.

    .venv/bin/worklog bench float8_weight_only --study codegen

torchao 0.13.0, 0.14.1 and 0.18.0; for a CPU and (without a GPU) for CUDA; one row and four; with
and without the coordinate-descent flag that torchao's `quantize_` switches on. Each version and
target in a process of its own, with all compile caches off. Nothing is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.errors import PreconditionError, WorklogError
from common.experiments.request import packages_root
from common.recording.environment import package_version

VERSIONS = ("0.13.0", "0.14.1", "0.18.0")
TARGETS = ("cpu", "cuda")
TRITON = "triton-3.9.0"
COLUMNS = (
    "target",
    "torchao",
    "M",
    "coordinate descent",
    "kernels",
    "extern calls",
    "B per weight",
)


def readings(version: str, target: str) -> list[dict[str, Any]]:
    """What `generated_code.py` reads, from a process with this torchao. PreconditionError."""
    folders = [packages_root() / f"torchao-{version}", packages_root() / TRITON]
    for folder in folders:
        if not folder.is_dir():
            raise PreconditionError(f"{folder.name} is not installed; run ./run.sh setup")
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("generated_code.py")), version, target],
            check=False,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, folders)),
                "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
                "TORCHINDUCTOR_CACHE_DIR": cache,
            },
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorklogError(f"torchao {version} for {target}: {last[:200]}; run it by itself")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def checks(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    old = [row for row in table if row["torchao"] == "0.13.0"]
    new = [row for row in table if row["torchao"] != "0.13.0"]

    def fused(row: dict[str, Any]) -> bool:
        return bool(row["target"] == "cuda" and row["batch"] == 1 and row["coordinate_descent"])

    return [
        {
            "says": "0.13.0 moves 29 bytes per weight however it is compiled",
            "holds": bool(old) and all(row["bytes_per_weight"] == 29 for row in old),
        },
        {
            "says": "later versions move 1 byte on a GPU with one row and the flag on",
            "holds": all(r["bytes_per_weight"] == 1 and not r["extern"] for r in new if fused(r)),
        },
        {
            "says": "and 5 bytes in every other case: dequantise in one kernel, then a product",
            "holds": all(r["bytes_per_weight"] == 5 for r in new if not fused(r)),
        },
    ]


def main() -> None:
    table = []
    for target in TARGETS:
        for version in VERSIONS:
            print(f"generating code: torchao {version} for {target}", file=sys.stderr, flush=True)
            table += readings(version, target)
    rows = [
        [
            *(row["target"], row["torchao"], row["batch"]),
            "on" if row["coordinate_descent"] else "off",
            row["kernels"],
            ", ".join(call.split(".")[-2] if "." in call else call for call in row["extern"]),
            row["bytes_per_weight"],
        ]
        for row in table
    ]
    document = {
        "schema": "worklog.study/1",
        "title": "Inductor's code for one float8 linear (2048 × 2048), compiled, not run",
        "origin": "compiled",
        "columns": COLUMNS,
        "right": ("M", "kernels", "B per weight"),
        "facts": {"torch": package_version("torch"), "triton": TRITON.partition("-")[2]},
        "figures": {
            f"{row['target']}-{row['torchao']}-m{row['batch']}-"
            f"{'on' if row['coordinate_descent'] else 'off'}": {
                "value": row["bytes_per_weight"],
                "unit": "bytes per weight",
            }
            for row in table
        },
        "rows": rows,
        "checks": checks(table),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    try:
        main()
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
