"""Are the Triton kernels right (interpreted), and what does the compiler make of them (no GPU)?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.contract.problem import load_problem
from common.experiments.request import packages_root

FOLDER = load_problem("float8_weight_only").folder
TRITON = packages_root() / "triton-3.9.0"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TRITON.is_dir(), reason="triton is not installed"),
]

NUMERICS = """
import json, torch
from fused_float8 import packing, triton_linear
torch.manual_seed(0)
E4M3 = torch.float8_e4m3fn
report = {}

def run(x, packed):
    return triton_linear.linear(x, packed.values, packed.scale, packed.nan_rows)

def worst(m, n, k, granularity):
    x, packed = torch.randn(m, k).bfloat16(), packing.pack(torch.randn(n, k), granularity)
    y = run(x, packed).double()
    wide = packed.values.double() * packed.scale.double()[:, None]
    wanted, sizes = x.double() @ wide.T, x.double().abs() @ wide.abs().T
    # The interpreter cuts float32 off to bfloat16 where hardware rounds: a whole unit, not half.
    return float(((y - wanted).abs() / (2.0**-7 * wanted.abs() + 1e-6 * sizes)).max())

shapes = [(1, 5, 2048), (1, 9, 1000), (2, 33, 256), (16, 40, 130), (17, 31, 100), (64, 65, 384)]
report["worst"] = {str(s): max(worst(*s, "row"), worst(*s, "tensor")) for s in shapes}

codes = torch.arange(256, dtype=torch.uint8).view(E4M3).reshape(256, 1).repeat(1, 2)
wanted = codes[:, 0].float()
packed = packing.pack_float8(codes, torch.ones(1))
for name, m in (("gemv", 1), ("gemm", 2)):
    x = torch.zeros(m, 2, dtype=torch.bfloat16)
    x[:, 1] = 1
    y = run(x, packed).float()
    wrong = [i for i in range(256) if not all(
        y[r, i] == wanted[i] or (y[r, i].isnan() and wanted[i].isnan()) for r in range(m))]
    report[name] = wrong
report["empty"] = list(run(x[:0], packed).shape)
print(json.dumps(report))
"""

RESOURCES = """
import json
from dataclasses import asdict
from fused_float8 import aot
print(json.dumps([asdict(aot.resources(b, c)) for b in aot.BATCHES for c in aot.CAPABILITIES]))
"""


def ask(code: str, tmp_path: Path, **environment: str) -> Any:
    paths = [str(FOLDER), str(FOLDER.parents[1]), str(TRITON)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TRITON_CACHE_DIR": str(tmp_path),
            "FLOAT8_KERNELS": "torch",  # nothing here is computed by the CPU kernels
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_interpreted_they_agree_with_the_exact_product_and_all_codes(tmp_path: Path) -> None:
    report = ask(NUMERICS, tmp_path, TRITON_INTERPRET="1")
    assert len(report["worst"]) == 6
    assert max(report["worst"].values()) <= 1, report["worst"]
    assert report["gemv"] == report["gemm"] == []  # the codes that are decoded wrongly
    assert report["empty"] == [0, 256]


def test_compiled_they_spill_nothing_and_load_16_bytes_at_once(tmp_path: Path) -> None:
    table = ask(RESOURCES, tmp_path)
    assert [(r["batch"], r["capability"]) for r in table] == [
        (batch, capability) for batch in (1, 16, 32, 64) for capability in (89, 90, 120)
    ]
    for row in table:
        assert row["local_bytes"] == 0, row
        assert row["wide_loads"] > 0 and row["narrow_loads"] <= 1, row  # 1: nothing of the weight
        assert row["float8_conversions"] > 0, row  # by the hardware
        assert 0 < row["registers"] <= 255 and row["shared_bytes"] <= 99 << 10, row
        assert (row["tensor_core_instructions"] > 0) == (row["kernel"] == "gemm"), row
